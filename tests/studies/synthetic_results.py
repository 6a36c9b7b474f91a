"""Results of a small study with two arms, for the tests of analysis and pages."""

import pandas

from studies.suite.analysis.results import Results

LABELS = {"a": "A", "b": "B"}
METRICS = {
    "linear_top1": ("linear top-1", "share in [0, 1]", "higher", "accuracy of a linear probe"),
    "saliency_iou": ("saliency IoU", "share in [0, 1]", "higher", "overlap of map and mask"),
    "knn_top1": ("kNN top-1", "share in [0, 1]", "higher", "accuracy of the nearest neighbours"),
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
