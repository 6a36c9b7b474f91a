"""Runs for tests of the store: those of small plans, written by the store's own writer without being trained."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

from studies.status import planned as plans
from studies.suite.execution.inventory import silently
from studies.suite.execution.store import Store
from studies.suite.planning.identity import ROOT, evaluation_part

SMALL = ("tier=smoke", "arms=moco", "seeds=2", "axes.budgets=[epochs]", "axes.rho=[0.8]",
         "evaluation.protocols=[linear]", "sizes.generated_train=80", "sizes.generated_test=40")  # fmt: skip
TWO_STAGES = ("tier=smoke", "arms=orl", "seeds=2", "evaluation.protocols=[linear]")
HOLD = """
import sys, json
sys.path.insert(0, {root!r})
from studies.suite.execution.store import Store
records = getattr(Store({store!r}), {kind!r})
with records.claim({run!r}):
    records.begin({run!r}, json.loads({config!r}))
    print("ready", flush=True)
    sys.stdin.read()
"""


@cache
def planned(study="multicrop", words=SMALL):
    """The specs of a small plan."""
    (plan,) = plans([study], words, Path("runs"), Path("reports"), silently)
    return plan.runs


def configuration(spec, protocol=None, pretraining=None):
    """What config.json of a run or, with ``protocol``, of its evaluation holds, after a round trip through JSON."""
    if protocol is None:
        return json.loads(json.dumps(spec.config))
    part = evaluation_part(spec.config, protocol)
    return json.loads(json.dumps({"pretraining": pretraining or spec.id, **part}))


def write(records, run, config, git=None, fail=""):
    """A finished run, or one that failed for a reason."""
    with records.claim(run) as folder:
        assert folder is not None
        records.begin(run, config)
        if fail:
            records.fail(run, fail)
        else:
            records.finish(run, {"numbers": {"a": 1.0}, "seconds": 1.0}, {"python": "3", "git": git or {}})


def write_whole(folder, spec, run=None, git=None):
    """A finished pretraining and its evaluations; under another id they are those of older code."""
    store = Store(folder)
    write(store.records_of(spec), run or spec.id, configuration(spec), git)
    for number, (evaluation, protocol) in enumerate(spec.evaluations.items()):
        name = evaluation if run is None else f"{number:04d}{run[4:]}"
        write(store.evaluations, name, configuration(spec, protocol, run), git)
    return store


def holding(folder, kind, run, config):
    """A process that has begun a run and holds it until it is killed, or its input is closed."""
    text = HOLD.format(root=str(ROOT), store=str(folder), kind=kind, run=run, config=json.dumps(config))
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout.readline() == "ready\n"
    return process


def names(folder: Path) -> set[str]:
    """What lies in a store, as KIND/ID."""
    return {f"{path.parent.name}/{path.name}" for path in folder.glob("*/*") if not path.name.startswith(".")}


def git(folder, *words):
    """The output of git in a folder, without the user's settings."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
