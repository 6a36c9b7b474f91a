"""A study with a method, a map source and an annotator of its own."""

from studies.references import RANDOM
from studies.suite.analysis import tables
from studies.suite.pages import study_figures
from studies.suite.planning.study import Arm, Contrast, Study

ANNOTATED = {"wrapper": {"preset": "scd", "saliency": "oracle"}, "annotations": {"masks": "threshold"}}
ARMS = (
    RANDOM,
    Arm("colour", "colour regression", {"method": "colour"}, "backbone", "regresses the mean colour"),
    Arm("brightness", "SCD, brightness map", {"wrapper": {"preset": "scd", "saliency": "brightness"}}, "SCD", "map"),
    Arm("annotated", "SCD, annotated map", ANNOTATED, "SCD", "map"),
)
CLAIM = Contrast("brightness-colour", "brightness", "colour", "centroid_top1", 0.01, "the brightness map is better")
CONTROL = Contrast("colour-random", "colour", "random", "centroid_top1", 0.01, "colour regression has learned")


def plan(settings):
    return [settings.at_equal_epochs(arm, seed, arm is not RANDOM) for seed in settings.seeds for arm in ARMS]


def sections(report):
    report.judge(STUDY.contrasts)
    table = tables.gain_table(report.results, report.labels, CLAIM.metric, "colour", {"equal epochs": {}})
    figure = study_figures.differences(report.results, STUDY.contrasts, report.names, report.out)
    report.show(table, "Differences.", figure)


STUDY = Study("extended", ("R5-a",), "Does it work?", "Extended", ARMS, (CLAIM, CONTROL), (CONTROL,), CLAIM.name, plan,
              sections)  # fmt: skip
