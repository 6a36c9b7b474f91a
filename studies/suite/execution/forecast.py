"""What a plan would run, and how long it would take."""

from collections.abc import Mapping, Sequence
from statistics import median

import pandas

from studies.suite.execution.store import Status, Store
from studies.suite.planning.resolve import Planned
from studies.suite.planning.study import TRAINING

ASSUMED_SPEED = {"cpu": 1.5e10, "cuda": 2e13}  # FLOP/s of one run; every estimate that uses it says so
ALIKE = 10  # finished runs whose steps cost at most so many times more or less predict a run's speed
EVALUATION_SHARE = 0.1  # of the median run's training, for the progress bar
EVALUATION_SECONDS = 5.0  # of a run, where the store has no finished one


def work(runs: Mapping[str, Planned]) -> dict[str, float]:
    """How much each run counts in the progress bar, in FLOPs; evaluation counts a little, too."""
    extra = EVALUATION_SHARE * median([item.flops for item in runs.values()] or [0]) or 1.0
    return {name: item.flops + extra for name, item in runs.items()}


def estimate(missing: Mapping[str, Planned], store: Store, workers: int) -> tuple[float, str]:
    """Seconds that the missing runs take, so many at a time, and what this is estimated from."""
    seconds, basis, _ = seconds_of(missing, store)
    return sum(seconds.values()) / max(1, min(workers, len(missing))), basis


def seconds_of(missing: Mapping[str, Planned], store: Store) -> tuple[dict[str, float], str, bool]:
    """Seconds that each missing run takes, what this is estimated from, and whether finished runs are part of that."""
    trained = [item for item in missing.values() if item.spec.kind == TRAINING]
    typical = median([item.spec.flops_per_step for item in trained] or [1.0])
    records = [
        record
        for record in store.pretraining.finished()
        if typical / ALIKE < record.get("flops_per_step", 0) < typical * ALIKE and record.get("seconds_pretrain")
    ]
    speeds = [record["total_flops"] / record["seconds_pretrain"] for record in records]
    scored = [record["seconds"] for record in store.evaluations.finished()]
    per_run = median([len(item.spec.evaluations) for item in trained] or [0])
    evaluation = per_run * median(scored) if scored else EVALUATION_SECONDS
    if speeds:
        speed, basis = median(speeds), f"{len(speeds)} finished runs of such a size in this store"
    else:
        accelerator = trained[0].spec.config["training"]["accelerator"] if trained else "cpu"
        speed = ASSUMED_SPEED[accelerator]
        basis = f"an assumed {speed / 1e9:,.0f} GFLOP/s a run, since the store has no finished run of such a size"
    seconds = dict.fromkeys(missing, 0.0)
    for run, item in missing.items():
        if item.spec.kind != TRAINING:
            continue
        if store.pretraining.status(item.spec.id) is not Status.DONE:
            seconds[run] += item.seconds if item.seconds else item.flops / speed
        seconds[run] += evaluation
    return seconds, basis, bool(speeds)


def memory_lines(planned: Sequence[Planned]) -> list[str]:
    """What the estimated memory of a device consists of, for the run that needs most; nothing where none is known."""
    known = [item for item in planned if item.memory]
    if not known:
        return []
    largest = max(known, key=lambda item: item.memory.total)
    training = largest.spec.config["training"]
    parts = {
        "parameters and buffers": largest.memory.parameters,
        "gradients": largest.memory.gradients,
        "optimiser state": largest.memory.optimizer,
        "activations kept for the backward pass": largest.memory.activations,
        "images": largest.memory.images,
    }
    unit, size = ("GiB", 2**30) if largest.memory.total >= 2**30 else ("MiB", 2**20)
    words = ", ".join(f"{name} {count / size:.3g}" for name, count in parts.items() if count)
    return [
        f"estimated memory of a device: {largest.memory.total / size:.3g} {unit} ({words}), in arm "
        f"'{largest.spec.labels['arm']}' on {training['devices']} device(s), the most of all arms; counted from "
        "shapes, a lower bound: temporary tensors, workspaces and views are left out"
    ]


def table(planned: Sequence[Planned], store: Store) -> str:
    """The plan: one row per arm, budget and axis, with how many of its runs are done."""
    rows = []
    for item in planned:
        labels = {key: value for key, value in item.spec.labels.items() if key != "seed"}
        done = store.status(item.spec) is Status.DONE
        steps = item.steps if item.steps is not None else f"{item.seconds:g} s"
        row = {**labels, "steps": steps, "TFLOP a run": item.flops / 1e12}
        if any(other.memory for other in planned):
            row["GiB a device"] = item.memory.total / 2**30 if item.memory else 0.0
        rows.append({**row, "runs": 1, "done": int(done)})
    frame = pandas.DataFrame(rows)
    keys = [column for column in frame.columns if column not in ("runs", "done")]
    summed = frame.groupby(keys, sort=False, dropna=False)[["runs", "done"]].sum().reset_index()
    summed["missing"] = summed["runs"] - summed["done"]
    return summed.to_markdown(index=False, floatfmt=".3g")
