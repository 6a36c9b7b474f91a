"""One run against the store: what is missing of its pretraining and evaluations is done and recorded."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from scd.allocator import keep_freed_memory
from scd.atomic import disk_full, is_disk_full
from scd.errors import UsageError
from studies.suite.execution import machine
from studies.suite.execution.ranks import Team, devices_of, started
from studies.suite.execution.store import Records, Status, Store, remove
from studies.suite.planning.identity import evaluation_part
from studies.suite.planning.study import TRAINING, RunSpec

if TYPE_CHECKING:
    from studies.suite.execution.evaluation import Evaluation
    from studies.suite.execution.pretraining import Pretrained, Runtime

NEARLY_FULL = 2**20  # bytes; torch reports a full disk without its error number


class Ending(StrEnum):
    """How a run ended for the process that was asked to do it."""

    DONE = "done"
    FAILED = "failed"
    BUSY = "busy"  # another process has finished it or works on it
    FULL = "full"  # no space is left: the next run would fail, too


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and why where it did not end well."""

    ending: Ending
    reason: str = ""


@dataclass(frozen=True)
class Execution:
    """One run in one process.

    Args:
        spec: the run, completed by the planner.
        store: where it is recorded.
        runtime: how it is executed.
        threads: of this process, for the record.
        keep_checkpoints: a finished run keeps its last checkpoint.
        team: the processes of runs on several devices, where torchrun or Slurm started them; this one is rank 0.
            Without it, a run on several devices starts the others itself.
    """

    spec: RunSpec
    store: Store
    runtime: "Runtime"
    threads: int | None = None
    keep_checkpoints: bool = False
    team: Team | None = None

    def perform(self) -> Outcome:
        """Do what is missing of the run unless another process does it; errors are recorded, not raised.

        Only KeyboardInterrupt, Stopped and the like are raised; the run then resumes at the next call.
        """
        keep_freed_memory()
        if self.spec.kind != TRAINING:
            return self._record(self.store.measurements, self.spec.id, self.spec.config, self._measure) or BUSY
        records, pretrained = self.store.pretraining, []
        if records.status(self.spec.id) is not Status.DONE:
            ended = self._record(
                records, self.spec.id, self.spec.config, lambda folder: self._pretrain(folder, pretrained)
            )
            if ended is None and records.status(self.spec.id) is not Status.DONE:
                return BUSY
            if ended is not None and ended.ending is not Ending.DONE:
                return ended
            if ended is not None and not self.keep_checkpoints:
                remove(records.folder(self.spec.id) / "checkpoints")
        return self._evaluate(pretrained[0] if pretrained else None)

    # ---------------------------------------------------------------- parts

    def _pretrain(self, folder: Path, pretrained: list["Pretrained"]) -> dict[str, Any]:
        from studies.suite.execution.pretraining import pretrain_run  # torch is imported by workers only

        check_code(self.spec)
        with self._processes() as runtime:
            run = pretrain_run(self.spec.config, self.spec.locations, folder, runtime, self._inputs())
        pretrained.append(run)
        return training_record(self.spec.config, run, self.spec.flops_per_step, folder)

    @contextlib.contextmanager
    def _processes(self) -> Iterator["Runtime"]:
        """The process group of a run on several devices. The run is claimed by now: the others follow this process."""
        devices, accelerator = devices_of(self.spec), self.spec.config["training"]["accelerator"]
        if self.team is not None and self.team.world != devices:
            raise UsageError(f"{self.team.world} processes were started for training.devices={devices}")
        if devices == 1:
            yield self.runtime
            return
        with contextlib.ExitStack() as stack:
            team = self.team or stack.enter_context(started(self.spec, self.runtime.device, self.threads))
            runtime = team.lead(self.spec, self.store.root, self.runtime)
            stack.enter_context(team.group(accelerator))
            yield runtime

    def _evaluate(self, pretrained: "Pretrained | None") -> Outcome:
        """All evaluations that are missing; one that fails does not keep the others from being done.

        Raises:
            Stopped: the runtime asked to stop between two of them.
        """
        from scd.training.state import Stopped

        records, failed = self.store.evaluations, []
        missing = {
            evaluation: protocol
            for evaluation, protocol in self.spec.evaluations.items()
            if records.status(evaluation) is not Status.DONE
        }
        if not missing and pretrained is None:
            return BUSY  # another process has done everything
        shared: list[Evaluation] = []
        for evaluation, protocol in missing.items():
            if self.runtime.stop is not None and self.runtime.stop():
                raise Stopped("stopped between two evaluations")
            config = {"pretraining": self.spec.id, **evaluation_part(self.spec.config, protocol)}
            ended = self._record(
                records, evaluation, config, lambda folder, p=protocol: self._score(folder, p, pretrained, shared)
            )
            if ended is None and records.status(evaluation) is not Status.DONE:
                return BUSY
            if ended is not None and ended.ending is Ending.FULL:
                return ended
            if ended is not None and ended.ending is Ending.FAILED:
                failed.append(f"{protocol['name']}: {ended.reason}")
        return Outcome(Ending.FAILED, "; ".join(failed)) if failed else Outcome(Ending.DONE)

    def _score(
        self, folder: Path, protocol: Mapping[str, Any], pretrained: "Pretrained | None", shared: "list[Evaluation]"
    ) -> dict[str, Any]:
        from studies.suite.execution.evaluation import Evaluation

        began = perf_counter()
        if not shared:
            check_code(self.spec)
            own = self.store.pretraining.folder(self.spec.id)
            method = pretrained.method.eval() if pretrained else None
            device = pretrained.device if pretrained else device_of(self.spec.config, self.runtime)
            shared.append(Evaluation(self.spec.config, self.spec.locations, own, device, method, self._inputs()))
        numbers = shared[0].run(protocol, folder)
        return {"protocol": protocol["name"], "numbers": numbers, "seconds": perf_counter() - began}

    def _measure(self, folder: Path) -> dict[str, Any]:
        from studies.suite.execution.measurement import measure

        check_code(self.spec)
        began = perf_counter()
        return {**measure(self.spec.config), "seconds": perf_counter() - began}

    @property
    def _accelerator(self) -> str:
        """Where the numbers are computed."""
        return self.spec.config.get("training", {}).get("accelerator", "cpu")

    def _inputs(self) -> dict[str, Any]:
        """The methods of the earlier runs that this one uses."""
        return load_inputs(self.spec, self.store)

    # ---------------------------------------------------------------- recording

    def _record(self, records: Records, run: str, config: Mapping[str, Any], do: Any) -> Outcome | None:
        """Claim a part of the run, do it, and record its numbers or its failure; None if another process has it."""
        with records.claim(run) as folder:
            if folder is None:
                return None
            try:
                records.begin(run, config)
                records.finish(run, do(folder), machine.describe(self.threads, self._accelerator))
            except Exception as error:
                if _full(error, folder):
                    return Outcome(Ending.FULL, disk_full(folder))
                reason = one_line(error)
                records.fail(run, reason, error)
                return Outcome(Ending.FAILED, reason)
            return Outcome(Ending.DONE)


BUSY = Outcome(Ending.BUSY)


def load_inputs(spec: RunSpec, store: Store) -> dict[str, Any]:
    """The trained methods of the earlier runs that a run uses, by the name that its configuration gives them."""
    if not spec.inputs:
        return {}
    from studies.suite.execution.evaluation import load_method

    return {
        name: load_method(earlier.config, store.pretraining.folder(earlier.id), load_inputs(earlier, store))
        for name, earlier in spec.inputs.items()
    }


def training_record(
    config: Mapping[str, Any], run: "Pretrained", flops_per_step: float, folder: Path
) -> dict[str, Any]:
    """The numbers of a pretraining. Times in seconds, FLOPs with 2 per multiply-add."""
    from scd.profiling.parameters import count_parameters

    summary, parameters = run.summary, count_parameters(run.method)
    steps = summary.steps if summary else 0
    return {
        "supervision": run.supervision,
        "steps": steps,
        "epochs": steps / run.steps_per_epoch,
        "images_seen": steps * config["training"]["batch_size"],
        "flops_per_step": flops_per_step,
        "total_flops": flops_per_step * steps,
        "devices": config["training"]["devices"],
        "batch_norm_groups": run.batch_norm_groups,
        "parameters_trained": parameters.trained,
        "parameters_momentum": parameters.momentum,
        "parameters_backbone": parameters.inference,
        "seconds_pretrain": summary.seconds if summary else 0.0,
        "seconds_views": summary.views_seconds if summary else 0.0,
        "images_per_second": summary.images_per_second if summary else None,
        "loss_first": first_loss(folder),
        "loss_last": summary.losses.get("loss") if summary else None,
        **(losses_over_training(folder, steps) if config["training"]["log_every"] is None else {}),
        **{f"train_{name}": value for name, value in (summary.losses if summary else {}).items() if name != "loss"},
    }


def first_loss(folder: Path) -> float | None:
    """The mean loss of the first line of progress.jsonl, None without one."""
    path = folder / "progress.jsonl"
    if not path.exists():
        return None
    with path.open(encoding="utf-8") as lines:
        line = lines.readline()
    return json.loads(line)["loss"] if line else None


def losses_over_training(folder: Path, steps: int) -> dict[str, float]:
    """``loss@SHARE`` for each line of progress.jsonl: the mean loss since the line before, at its end.

    Args:
        steps: of the whole run.
    """
    from scd.evaluation.map_trace import share_text

    path = folder / "progress.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    return {f"loss@{share_text(line['step'] / steps)}": line["loss"] for line in found}


def device_of(config: Mapping[str, Any], runtime: "Runtime") -> str:
    """Where a run whose training is finished is evaluated."""
    return f"cuda:{runtime.device}" if config["training"]["accelerator"] == "cuda" else "cpu"


def check_code(spec: RunSpec) -> None:
    """The files on the disk must still be those that the run's id was made of: others may have been imported.

    Raises:
        UsageError: the code was edited while the study was running.
    """
    own, *evaluations = spec.identities(fresh=True)
    if own != spec.id or set(evaluations) != set(spec.evaluations):
        raise UsageError("the code changed while the study was running; give the command again")


def _full(error: Exception, folder: Path) -> bool:
    if is_disk_full(error):
        return True
    return isinstance(error, OSError | RuntimeError) and shutil.disk_usage(folder).free < NEARLY_FULL


def one_line(error: Exception) -> str:
    """Why something failed: the first line of the error, with its class where that is not a usage error."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return first if isinstance(error, UsageError) else f"{type(error).__name__}: {first}"
