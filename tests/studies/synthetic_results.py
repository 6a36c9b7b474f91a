"""Results without runs: of a small study with two arms, and of the suite's own studies."""

import hashlib
import json
from dataclasses import fields, replace
from functools import cache

import numpy
import pandas

from scd.evaluation.metric import SHARE, Metric
from studies.suite.analysis.results import Results, assemble
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.study import Progress, RunSpec

LABELS = {"a": "A", "b": "B"}
METRICS = {
    "linear_top1": ("linear top-1", SHARE, "higher", "accuracy of a linear probe"),
    "saliency_iou": ("saliency IoU", SHARE, "higher", "overlap of map and mask"),
    "knn_top1": ("kNN top-1", SHARE, "higher", "accuracy of the nearest neighbours"),
}
ABOUT = {
    "study": "toy", "questions": ["R0-a"], "page": "toy", "tier": "cpu", "meaningful": True, "data": "shapes",
    "seeds": [0, 1, 2], "arms": ["a", "b"], "axes": {}, "reference": None, "base": {}, "overrides": {}, "protocols": [],
    "metrics": {
        name: dict(zip(("label", "unit", "better", "definition"), metric, strict=True))
        for name, metric in METRICS.items()
    },
    "source": {}, "command": "", "planned": 6, "done": 6, "fingerprint": "f" * 16, "roots": ["scd.seeds"],
    "environments": [], "seconds": 60.0,
}  # fmt: skip


def results(top1=(0.6, 0.62, 0.64), status="done", reason="", **about):
    """Arm b with 0.5, 0.52, 0.51, and arm a with ``top1``; seeds of arm a without a value have ``status``."""
    rows = [_row("b", seed, value, 2.0) for seed, value in enumerate((0.5, 0.52, 0.51))]
    for seed in range(3):
        row = {"arm": "a", "budget": "epochs", "seed": seed, "run": f"a{seed}", "status": status, "reason": reason}
        rows.append(_row("a", seed, top1[seed], 3.0) if seed < len(top1) else row)
    return Results({**ABOUT, **about}, pandas.DataFrame(rows))


def _row(arm, seed, value, cost):
    labels = {"arm": arm, "budget": "epochs", "seed": seed, "run": f"{arm}{seed}"}
    return {**labels, "status": "done", "reason": "", "cost": cost, "linear_top1": value}


def of_classes(classes, **about):
    """The results where the runs of arm a are of these numerics classes, and those of arm b of class "one"."""
    found = results(**about)
    names = [*(["one"] * 3), *classes]
    return found.with_runs(found.runs.assign(numerics=names))


# -------------------------------------------------------------------- results of a real study, without its runs

SHARES = (
    "linear_top1", "knn_top1", "shift_linear_top1", "scene_map", "saliency_iou", "saliency_iou_inverted",
    "saliency_maxf", "saliency_inverted_share", "map_std", "attention_maxf", "attention_jaccard", "attention_corloc",
    "tokencut_maxf", "learned_maxf", "inverted_maxf", "whole_maxf", "centre_maxf", "det_ap",
    "det_ap50", "det_ap75", "seg_ap", "seg_ap50", "seg_ap75",
    "centric_linear_top1", "centric_shift_linear_top1",
)  # fmt: skip
STUDY_METRICS = {name: (name.replace("_", " "), SHARE, "higher", f"what {name} is") for name in SHARES}


def settings_of(name, tmp_path=None, seeds=3, axes=None, words=()):
    """Settings of the smoke tier whose page is one that means something."""
    settings = resolved(name, seeds, tuple(words))
    settings = replace(settings, meaningful=True, page=name, axes={**settings.axes, **(axes or {})})
    return settings if tmp_path is None else replace(settings, out=tmp_path)


@cache
def resolved(name, seeds, words):
    """The settings of a command line; composing them takes a second."""
    tier = [] if any(word.startswith("tier=") for word in words) else ["tier=smoke"]
    return resolve_settings(name, [*tier, f"seeds={seeds}", *words])


def study_results(study, gains, settings, numbers_of=None, spread=0.002, finished=None):
    """An accuracy of 0.4 + the arm's gain + a seed's own luck and a little more; random weights are at 0.2.

    Args:
        gains: arm -> its gain.
        numbers_of: further numbers of an arm and a seed.
        finished: how many of the runs have finished, in the order of the plan; None: all.
    """
    draw = numpy.random.default_rng(0)
    luck, numbers, specs = draw.normal(0, 0.02, 100), {}, planned(study, settings)
    for spec in specs:
        arm, seed = spec.labels["arm"], spec.labels["seed"]
        value = (0.2 if arm == "random" else 0.4) + gains.get(arm, 0.0) + luck[seed] + draw.normal(0, spread)
        record = {
            "steps": 10,
            "total_flops": 1e9,
            "flops_per_step": 1e8,
            "supervision": "none",
            "knn_top1": value,
        }
        record |= {
            "linear_top1": value,
            "shift_linear_top1": value,
            "scene_map": value,
            **{contrast.metric: value for contrast in study.contrasts if contrast.metric == "det_ap"},
            "centric_linear_top1": value,
            "centric_shift_linear_top1": value,
            **(numbers_of(arm, seed) if numbers_of else {}),
        }
        numbers.setdefault(spec.id, record)
    metrics = {name: Metric(*metric) for name, metric in STUDY_METRICS.items()}
    count = len(numbers)
    numbers = dict(list(numbers.items())[:finished])
    progress = Progress(planned=count, done=len(numbers))
    return assemble(study, settings, specs, numbers, metrics, {"name": "shapes"}, progress)


PLANS = {}


def planned(study, settings):
    """The plan of a study, its runs named by their configuration alone: quick, and the same in every state of the "
    "code."""
    key = json.dumps([study.name, settings.seeds, settings.arms, settings.axes, settings.base])
    if key not in PLANS:
        PLANS[key] = [
            Named(**{field.name: getattr(spec, field.name) for field in fields(RunSpec)})
            for spec in study.plan(settings)
        ]
    return PLANS[key]


class Named(RunSpec):
    """A spec whose identity is a hash of its configuration."""

    @property
    def id(self):
        text = json.dumps({key: value for key, value in self.config.items() if key != "evaluation"}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
