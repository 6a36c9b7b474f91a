"""The study of a published curve: its settings, its rule, and its page from known numbers."""

import json

import numpy as np
import pytest
import scipy.stats
from synthetic_results import settings_of, study_results

from scd.errors import DataError
from scd.evaluation.metric import SHARE, Metric
from studies import moco_curve
from studies.moco_curve import OFFICIAL, PUBLIC, SECOND, STUDY, distance, level, signature, snapshots_of
from studies.suite.execution.run import losses_over_training
from studies.suite.pages.publish import publish


@pytest.mark.parametrize("tier", ["smoke", "gpu"])
def test_the_settings_are_those_of_the_demo_on_every_tier(tier):
    (spec,) = STUDY.plan(settings_of("moco_curve", seeds=1, words=(f"tier={tier}",)))
    config = spec.config
    assert config["backbone"] == {
        "_target_": "scd.nn.backbone.build_backbone", "name": "resnet18", "small_stem": True, "padding": "zeros",
        "channels_last": True, "normalisation": "cifar10",
    }  # fmt: skip
    assert {key: config["method"][key] for key in config["method"] if key != "_target_"} == {
        "dim": 128, "hidden": 0, "queue_size": 4096, "momentum": 0.99, "temperature": 0.1, "symmetric": False,
        "bn_groups": 8,
    }  # fmt: skip
    views = config["views"]
    assert (views["recipe"], views["size"], views["scale"], config["data"]["size"]) == (
        "moco_cifar10",
        32,
        [0.08, 1],
        32,
    )
    assert config["data"]["train_limit"] is None and config["data"]["test_limit"] is None
    optimizer, schedule = config["optimizer"], config["schedule"]
    assert (optimizer["name"], optimizer["lr"], optimizer["momentum"], optimizer["weight_decay"]) == (
        "sgd",
        0.06,
        0.9,
        5e-4,
    )
    assert (schedule["name"], schedule["per"], schedule["warmup_epochs"], schedule["total_epochs"]) == (
        "cosine",
        "epoch",
        0,
        200,
    )
    training = config["training"]
    assert training["batch_size"] == 512 and training["budget"] == {"unit": "epochs", "value": 3}
    assert training["snapshots"] == [1 / 3, 2 / 3, 1.0] and training["log_every"] is None
    (protocol,) = config["evaluation"]["protocols"]
    assert (protocol["k"], protocol["temperature"], protocol["features"]) == (200, 0.1, "projection")


def test_knn_is_measured_after_the_scored_epochs_and_the_last_one():
    assert snapshots_of(3, [1, 2, 3, 10]) == [1 / 3, 2 / 3, 1.0]
    assert snapshots_of(12, [1, 10, 200]) == [1 / 12, 10 / 12, 1.0]


def test_other_images_are_refused_in_one_line(tmp_path):
    with pytest.raises(DataError, match="'shapes' is not CIFAR-10: give data=cifar10 or data=FOLDER"):
        STUDY.plan(settings_of("moco_curve", seeds=1, words=("data=shapes",)))
    from PIL import Image

    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (40, 30)).save(tmp_path / split / name / "0.png")
    text = "is not CIFAR-10: it has 2 training images in 2 classes, the first of 40 x 30 px; this study needs 50,000"
    with pytest.raises(DataError, match=text):
        STUDY.plan(settings_of("moco_curve", seeds=1, words=(f"data={tmp_path}",)))


@pytest.mark.parametrize(
    ("losses", "is_level", "outcome"),
    [
        ((6.96, 7.25, 7.29, 7.10), True, "yes"),
        ((6.96, 7.25, 7.29), True, "yes"),
        ((6.96, 7.25, 7.29), False, "no"),  # the shape alone is not enough
        ((6.96, 7.25, 7.29), None, "not resolved"),
        ((6.96, 7.25, 7.29, 7.30), True, "no"),
        ((6.96, 7.25, 7.24), None, "no"),
        ((6.96, 7.25), True, "not read"),
    ],
)
def test_the_sign_follows_from_the_losses(losses, is_level, outcome):
    assert signature(dict(enumerate(losses, start=1)), is_level)[1] == outcome


@pytest.mark.parametrize(
    ("first", "expected"),
    [((6.95, 6.90, 7.00), True), ((6.80, 6.78, 6.82), False), ((6.80, 6.90, 7.05), True), ((6.95, 6.90), None)],
)
def test_the_level_is_judged_by_the_spread_of_our_seeds(first, expected):
    settings = settings_of("moco_curve", seeds=len(first))
    results = study_results(STUDY, {}, settings, lambda arm, seed: {"loss@0.333333": first[seed]})
    assert level(results) is expected
    assert expected is None or expected == (
        abs(np.mean(first) - 6.9495)
        <= scipy.stats.t.ppf(0.975, len(first) - 1) * np.std(first, ddof=1) * (1 / len(first) + 1 / 2) ** 0.5
    )


@pytest.mark.parametrize("run", [OFFICIAL, SECOND])
def test_both_public_runs_show_the_sign(run):
    assert signature({epoch: values[0] for epoch, values in PUBLIC[run].items()}, True)[1] == "yes"


def test_the_distance_is_to_the_nearer_public_value_in_units_of_their_difference():
    assert [distance(value, [7.2, 7.0]) for value in (7.1, 7.0, 7.3, 6.6)] == pytest.approx([0, 0, 0.5, -2])
    assert distance(7.1, [7.2]) is None


def test_the_page_has_our_values_beside_the_public_ones(tmp_path, no_figures):
    settings = settings_of("moco_curve", tmp_path, seeds=1)

    def numbers(arm, seed):
        losses = {"loss@0.333333": 6.95, "loss@0.666667": 7.22, "loss@1.00": 7.311}
        return losses | {
            "knn_over_training@0.3333": 0.31,
            "knn_over_training@0.6667": 0.32,
            "knn_over_training@1.00": 0.33,
        }

    results = study_results(STUDY, {}, settings, numbers)
    results = results.with_runs(results.runs, {"knn_over_training": Metric("kNN", SHARE, "higher", "kNN")})
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert "**Not resolved.** The loss rises until epoch 3: yes; then it falls: not trained that far" in text
    (third,) = [line for line in text.splitlines() if line.startswith("| 3 ")]
    cells = [cell.strip() for cell in third.strip("|").split("|")]
    assert cells == ["3", "7.311 (+0.5)", "7.290", "7.251", "33.0 (+0.0)", "34.7", "32.7"]
    about = json.loads((tmp_path / "records" / "moco_curve.json").read_text(encoding="utf-8"))
    assert about["outcome"] == "not resolved" and moco_curve.curves(results)[2] == {
        "loss": 7.22,
        "knn_over_training": 32.0,
    }


def test_a_log_by_epoch_gives_the_loss_of_each_epoch(tmp_path):
    lines = [{"step": step, "loss": loss} for step, loss in ((97, 6.9), (194, 7.2), (291, 7.3))]
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert losses_over_training(tmp_path, 291) == {"loss@0.333333": 6.9, "loss@0.666667": 7.2, "loss@1.00": 7.3}
