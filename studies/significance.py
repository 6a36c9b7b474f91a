"""R2-b, R3-a and R4-c: is a margin of +0.2 or +0.3 points over LEWEL significant?

MoCo, LEWEL and SCD with the asymmetric and the symmetric loss and on BYOL, with paired seeds, on images whose
background is predictive in training, where the true mask shows that a separation can help; where the spread
over seeds comes from; and how many seeds a margin takes, at this page's spread and at the published one.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt
from typing import Any

import pandas

from scd.errors import unknown
from scd.evaluation.metric import Metric
from studies.references import RANDOM, background_correlation, chosen_arms, correlation_lines, learns, separates
from studies.suite.analysis import notation, tables
from studies.suite.analysis.conditions import fall_back_to_metric, planned, versus
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import (
    PairedResult,
    equivalence,
    estimate,
    least_margin,
    paired,
    quantile,
    seeds_interval,
    seeds_needed,
    spread_interval,
)
from studies.suite.analysis.verdict import measure
from studies.suite.pages import figures, study_figures
from studies.suite.pages.markdown import Picture
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Claim, RunSpec, Study, contrast_factory, merge

METRIC, FALLBACK, SESOI = "knn_top1", "saliency_maxf", 0.01  # one point
MAIN = (METRIC, "linear_top1")
MARGINS = (0.1, 0.2, 0.3, 0.4)  # points
QUESTIONED = (0.2, 0.3)  # points: the published margins over LEWEL, asymmetric and symmetric
EQUIVALENT = (0.3, 1.0, 2.0)  # points: margins within which arms are tested for equivalence
PUBLISHED = (67.7, 67.6, 67.4, 67.6, 67.3)  # MoCo v2, ImageNet linear top-1 of five runs (its repository)
IMAGES = 50_000  # of ImageNet's validation set
DISAGREEMENT = 0.1  # share of test images on which exactly one of two networks is right, for an example
COUNTS = (2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)  # of seeds, in the figure
SOURCES = {
    "init": "initial weights",
    "order": "order of the images",
    "views": "augmentation",
    "probe": "held-out part of the probe",
}


def arms_of(host: str, suffix: str, base: dict[str, Any], form: str = "") -> tuple[Arm, ...]:
    """Host, LEWEL, SCD and SCD with the true mask in one form."""
    name = host.lower() + (suffix if host == "MoCo" else "")
    label = f"{host}, {form}" if form else host
    return (
        Arm(name, label, base, "backbone, schedule", f"{host} without a map"),
        Arm(f"lewel{suffix}", f"LEWEL-{label}", {**base, "wrapper": "lewel"}, f"all of {label}", "LEWEL's loss"),
        Arm(f"scd{suffix}", f"SCD-{label}", {**base, "wrapper": "scd"}, f"all of {label}", "SCD's map and triplets"),
        Arm(
            f"oracle{suffix}", f"SCD-{label} with the true mask",
            {**base, "wrapper": {"preset": "scd", "saliency": "oracle"}}, f"all of SCD-{label}",
            "the map is the true mask",
        ),
    )  # fmt: skip


ASYMMETRIC = arms_of("MoCo", "", {"method": "moco"}, "asymmetric")
SYMMETRIC = arms_of("MoCo", "_symmetric", {"method": "moco_symmetric"}, "symmetric")
ON_BYOL = arms_of("BYOL", "_byol", {"method": "byol"})
ARMS = (RANDOM, *ASYMMETRIC, *SYMMETRIC, *ON_BYOL)
MANY = (RANDOM, *ASYMMETRIC)  # arms with more seeds
VARIED = ("lewel", "scd")
contrast = contrast_factory(METRIC, SESOI, "SCD is better than LEWEL")
CONTRASTS = (
    contrast("scd", "lewel"),
    contrast("scd_symmetric", "lewel_symmetric"),
    contrast("scd_byol", "lewel_byol"),
    contrast("scd", "moco", "SCD is better than MoCo, asymmetric"),
    contrast("scd_symmetric", "moco_symmetric", "SCD is better than MoCo, symmetric"),
    contrast("scd_byol", "byol", "SCD is better than BYOL"),
    separates("oracle", "moco", METRIC),
    separates("oracle_symmetric", "moco_symmetric", METRIC),
    separates("oracle_byol", "byol", METRIC),
    learns("moco", "MoCo"),
    learns("moco_symmetric", "MoCo"),
    learns("byol", "BYOL"),
)
CONTROLS = {"asymmetric": CONTRASTS[6::3], "symmetric": CONTRASTS[7::3], "BYOL": CONTRASTS[8::3]}  # separates, learns
CONTROL = CONTROLS["asymmetric"]


def claim(question: str, treatment: str, control: str, text: str, form: str) -> Claim:
    """One claim about two arms of one form, with the positive controls of that form."""
    return Claim(text, (contrast(treatment, control, text),), question, CONTROLS[form])


CLAIMS = (
    claim("Asymmetric loss?", "scd", "lewel", "SCD-MoCo is better than LEWEL-MoCo, asymmetric", "asymmetric"),
    claim(
        "Symmetric loss?", "scd_symmetric", "lewel_symmetric", "SCD-MoCo is better than LEWEL-MoCo, symmetric",
        "symmetric",
    ),
    claim("On BYOL?", "scd_byol", "lewel_byol", "SCD-BYOL is better than LEWEL-BYOL", "BYOL"),
    claim("Is there a gain over MoCo at all?", "scd", "moco", "SCD-MoCo is better than MoCo, asymmetric", "asymmetric"),
    claim(
        "With the symmetric loss?", "scd_symmetric", "moco_symmetric", "SCD-MoCo is better than MoCo, symmetric",
        "symmetric",
    ),
    claim("Over BYOL?", "scd_byol", "byol", "SCD-BYOL is better than BYOL", "BYOL"),
)  # fmt: skip


def plan(settings: Settings) -> list[RunSpec]:
    """Many seeds of the asymmetric arms, the asked-for seeds of all, and one source of chance at a time in two arms."""
    arms, images = chosen_arms(settings, ARMS), background_correlation(settings)
    many = sorted({*settings.seeds, *range(int(settings.axes.get("main_seeds", 0)))})
    runs = [
        labelled(settings.at_equal_epochs(arm, seed, arm is not RANDOM, images), "all")
        for seed in many
        for arm in arms
        if seed in settings.seeds or arm in MANY
    ]
    for source in settings.axes.get("chance", []):
        if source not in SOURCES:
            raise unknown("source of chance (axes.chance)", source, SOURCES)
        for level in range(int(settings.axes.get("levels", 0))):
            own = merge(images, {"seed_of": {source: level}} if level else {})  # level 0 is seed 0's run
            chosen = [arm for arm in arms if arm.name in VARIED]
            runs += [labelled(settings.at_equal_epochs(arm, 0, overrides=own), source, level) for arm in chosen]
    return runs


def labelled(spec: RunSpec, chance: str, level: int | None = None) -> RunSpec:
    """The run under the name of what varies in it; its seed is then the level."""
    seed = spec.labels["seed"] if level is None else level
    return replace(spec, labels={**spec.labels, "seed": seed, "chance": chance})


# -------------------------------------------------------------------- page


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, out = report.results.where(chance="all"), report.out
    contrasts = fall_back_to_metric(CONTRASTS, results, FALLBACK)
    metric = results.metric(contrasts[0].metric)
    measured = {each.name: measure(results, each) for each in contrasts}
    shown = [each for each in planned(contrasts, results) if each.metric == contrasts[0].metric]
    names = {each.name: versus(each, report.names) for each in shown}
    report.judge_claims(results, beside=planned(contrasts, results))
    report.say(margin_sentence(measured[report.study.primary]))
    report.show(
        tables.contrast_table(results, shown, names),
        f"Paired differences in {metric.label}, in points, over the seeds that both arms have; Holm's correction over "
        f"all {len(shown)} rows; detectable: the true difference that is found with 80 % power.",
        study_figures.differences(results, shown, report.names, out),
    )

    equal = report.section("Are the arms equivalent?")
    equal.table(equivalence_table({name: measured[name] for name in names}, names, metric))
    equal.text(
        "Two one-sided t tests: a p below 0.05 means that the difference lies within ± the margin. A contrast that is "
        "neither different nor equivalent is not resolved by these seeds."
    )
    power(report, measured)
    decomposition(report, contrasts[0].metric)
    accuracy = report.section("Accuracy")
    accuracy.table(tables.arm_table(results, report.labels, MAIN))
    accuracy.figure(study_figures.seeds(results, report.labels, contrasts[0].metric, out, reference="moco"))


def published_sd() -> float:
    """The spread of MoCo v2's five published runs, in points."""
    return estimate(PUBLISHED).sd


def margin_sentence(main: PairedResult) -> str:
    """The size of the published margins, beside the spread over seeds here and in print."""
    sd = published_sd()
    chance = quantile(0.025, len(PUBLISHED) - 1) * sd * sqrt(2)
    parts = []
    for margin in QUESTIONED:
        here = seeds_interval(main.spread, main.df, margin / 100)
        known = f"{here[0]:,} to {here[1]:,} paired seeds" if here else "an unknown number of seeds"
        low, high = seeds_interval(sd, len(PUBLISHED) - 1, margin, paired=False)
        parts.append(
            f"+{margin} points takes {known} at this page's spread of SCD − LEWEL, and {low} to {high} runs of each "
            "method at the published spread of MoCo v2"
        )
    within = [margin for margin in QUESTIONED if margin < chance]
    words = {2: "both margins are", 1: f"+{min(within, default=0)} is", 0: "neither margin is"}[len(within)]
    return (
        f"**What the margins mean.** By MoCo v2's five published runs (standard deviation {sd:.2f} points), two single "
        f"runs of one method differ by up to {chance:.2f} points in 95 of 100 cases: as differences of single runs, "
        f"{words} within chance. With 80 % power, {'; '.join(parts)} (95 % intervals, as the spread itself is an "
        "estimate)."
    )


def equivalence_table(measured: Mapping[str, PairedResult], names: Mapping[str, str], metric: Metric) -> tables.Table:
    """One row per contrast: the difference, and its equivalence within several margins."""
    notes, rows = tables.Notes(), []
    for name, result in measured.items():
        row = {"treatment vs. control": names[name], "pairs": str(result.n)}
        shown = notation.number(metric, result.mean, signed=True) if result.n else notes.dash("no pair of seeds")
        row["difference (points)"] = shown
        for margin in EQUIVALENT:
            p = equivalence(result, margin / 100)
            row[f"p within ±{margin:g}"] = notes.dash("no two pairs that differ") if p is None else notation.p_value(p)
        rows.append(row)
    return tables.Table(pandas.DataFrame(rows), notes.lines)


def power(report: Report, measured: Mapping[str, PairedResult]) -> None:
    """How many seeds a margin takes, and what the test set adds."""
    section = report.section("How many seeds does a margin take?")
    compared = {
        "here, SCD − LEWEL, asymmetric (paired)": measured["scd-lewel"],
        "here, symmetric (paired)": measured["scd_symmetric-lewel_symmetric"],
        "here, on BYOL (paired)": measured["scd_byol-lewel_byol"],
    }
    columns = {name: (result.spread and 100 * result.spread, result.df, True) for name, result in compared.items()}
    columns["MoCo v2 on ImageNet, published (unpaired)"] = (published_sd(), len(PUBLISHED) - 1, False)
    notes, rows = tables.Notes(), []
    for margin in MARGINS:
        row = {"margin (points)": f"{margin:g}"}
        for name, (sd, df, is_paired) in columns.items():
            between = seeds_interval(sd, df, margin, paired=is_paired)
            needed = seeds_needed(sd, margin, paired=is_paired)
            shown = between and f"{needed:,} [{between[0]:,}, {between[1]:,}]"
            row[name] = shown or notes.dash("no two pairs that differ")
        rows.append(row)
    spread = {"margin (points)": "standard deviation"}
    spread |= {
        name: f"{sd:.2f}" if sd else notes.dash("no two pairs that differ") for name, (sd, *_) in columns.items()
    }
    section.table(tables.Table(pandas.DataFrame([*rows, spread]), notes.lines))
    section.text(
        "Seeds (of each arm) with which a two-sided t test at 5 % finds a true difference of that size with 80 % "
        "power, with the 95 % interval that comes from that of the spread. The spreads here are those of a small "
        "network on few images and are larger than ImageNet's; the "
        f"published column is of single runs of one method ({', '.join(map(str, PUBLISHED))}), whose seeds were not "
        "paired."
    )
    p = sum(PUBLISHED) / len(PUBLISHED) / 100
    apart, disagreeing = 1.96 * sqrt(2 * p * (1 - p) / IMAGES), 1.96 * sqrt(DISAGREEMENT / IMAGES)
    section.text(
        f"More seeds do not remove the error of the test set: on {IMAGES:,} images at {100 * p:.1f} % the difference "
        f"of two networks has a 95 % sampling half width of {100 * apart:.2f} points if their errors were "
        f"independent, and of {100 * disagreeing:.2f} points if exactly one of them is right on {DISAGREEMENT:.0%} of "
        "the images (computed, not measured)."
    )
    points = [
        {"row": name, "x": n, "value": least_margin(n, sd, paired=is_paired)}
        for name, (sd, _, is_paired) in columns.items()
        if sd
        for n in COUNTS
    ]
    path = f"figures/{report.results.page}-power.png"
    axes = "seeds of each arm", "difference found with 80 % power (points)"
    figures.power_curves(report.out / path, pandas.DataFrame(points), *axes, QUESTIONED)
    bands = " and ".join(f"+{margin}" for margin in QUESTIONED)
    section.figure(
        Picture(path, f"The difference that a number of seeds finds with 80 % power; bands: {bands} points.")
    )


def decomposition(report: Report, metric: str) -> None:
    """The spread over one source of chance at a time."""
    section, results = report.section("Where does the spread come from?"), report.results
    notes, rows = tables.Notes(), []
    for source in ["all", *(name for name in SOURCES if name in results.levels("chance"))]:
        part = results.where(chance=source)
        difference = paired(part.finished, "scd", "lewel", metric)
        row = {"what varies": SOURCES.get(source, "all of them (the seeds)"), "values": str(difference.n)}
        for arm in VARIED:
            sd = estimate(part.of(arm)[metric] if metric in part.runs else []).sd
            row[f"sd of {report.names[arm]}"] = notes.dash("fewer than two values") if sd is None else f"{100 * sd:.2f}"
        if difference.sd:
            low, high = spread_interval(100 * difference.sd, difference.n - 1)
            row["sd of the difference"] = f"{100 * difference.sd:.2f} [{low:.2f}, {high:.2f}]"
        else:
            row["sd of the difference"] = notes.dash("fewer than two values")
        rows.append(row)
    section.table(tables.Table(pandas.DataFrame(rows), notes.lines))
    section.text(
        "Standard deviations in points, with the 95 % interval of that of the difference (chi-squared). One source "
        "takes new values while the others stay as in seed 0. Their variances need not add up to the first row's: "
        "sources interact, and few values give wide intervals."
    )


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    counts = results.where(chance="all").runs.groupby("arm")["seed"].nunique()
    return {
        "Seeds of the arms": f"{counts.max()} in the asymmetric arms, {counts.min()} in the others",
        "Settings of the arms": "the same learning rate in every arm, tuned for none; each host has its own views",
        **correlation_lines(results),
    }


DEVIATIONS = (
    "Scale: a small network on small images; the published margins are of a ResNet-50 on ImageNet. What carries over "
    "is how a margin compares with its spread, and the published spread itself.",
    "LEWEL on MoCo: no official code exists; its aligned vectors are contrasted with a queue of their own "
    "(`baselines/lewel.py`).",
    "BYOL below the paper tier: SGD with the suite's shared schedule instead of LARS with warm-up.",
    "SCD is a reconstruction (`scd/scd.py`).",
)

STUDY = Study(
    name="significance",
    question_ids=("R2-b", "R3-a", "R4-c"),
    question="The margins over LEWEL are 0.2 (asymmetric) and 0.3 (symmetric loss): is that significant, or marginal?",
    title="Do margins of +0.2 and +0.3 points mean anything?",
    arms=ARMS,
    contrasts=CONTRASTS,
    control=CONTROL,
    primary=CONTRASTS[0].name,
    claims=CLAIMS,
    looks=(5,),
    fallback=FALLBACK,
    plan=plan,
    sections=sections,
    deviations=DEVIATIONS,
    notes=notes,
)
