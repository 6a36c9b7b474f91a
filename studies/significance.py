"""R2-b, R3-a and R4-c: is a margin of +0.2 or +0.3 points over LEWEL anything at all?

MoCo, LEWEL and SCD in the asymmetric and the symmetric form and on BYOL, with many paired seeds; where the spread over
seeds comes from; and how many seeds a margin of a given size takes, at this suite's spread and at the published one.
"""

from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import pandas

from studies.suite.analysis import tables
from studies.suite.analysis.conditions import by_what_there_is, versus
from studies.suite.analysis.results import Evidence, gather, save
from studies.suite.analysis.statistics import (
    PairedResult,
    equivalence,
    estimate,
    least_margin,
    paired,
    quantile,
    seeds_needed,
    spread_interval,
)  # fmt: skip
from studies.suite.analysis.verdict import family, judge, rule
from studies.suite.pages import map_figures as mapfigures
from studies.suite.pages import report
from studies.suite.pages.index import write_index
from studies.suite.pages.study_figures import Panels, Picture
from studies.suite.planning.study import Arm, RunSpec, Settings, Standing, Study, declarer

METRIC, FALLBACK, SESOI = "linear_top1", "saliency_maxf", 0.01  # one point
MAIN = (METRIC, "knn_top1")
MARGINS = (0.1, 0.2, 0.3, 0.4)  # points; +0.2 and +0.3 are the published ones
PUBLISHED = (67.7, 67.6, 67.4, 67.6, 67.3)  # MoCo v2, ImageNet linear top-1 of five runs (its repository)
IMAGES = 50_000  # of ImageNet's validation set
SOURCES = {
    "init": "initial weights", "order": "order of the images", "views": "augmentation", "probe": "probe's held-out "
    "part",
}  # fmt: skip


def arms_of(host: str, suffix: str, base: dict[str, Any], form: str) -> tuple[Arm, Arm, Arm]:
    """Host, LEWEL and SCD in one form."""
    name = host.lower() + (suffix if host == "MoCo" else "")
    label = f"{host}{f', {form}' if form else ''}"
    return (
        Arm(name, label, base, "backbone, schedule, views", f"{host} as it is"),
        Arm(
            f"lewel{suffix}", f"LEWEL-{label}", {**base, "wrapper": "lewel"}, f"all of {label}", "LEWEL's aligned loss"
        ),
        Arm(f"scd{suffix}", f"SCD-{label}", {**base, "wrapper": "scd"}, f"all of {label}", "SCD's map and triplets"),
    )


ASYMMETRIC = arms_of("MoCo", "", {"method": "moco"}, "asymmetric")
SYMMETRIC = arms_of("MoCo", "_symmetric", {"method": "moco_symmetric"}, "symmetric")
ON_BYOL = arms_of("BYOL", "_byol", {"method": "byol", "views": {"recipe": "byol"}}, "")
ARMS = (*ASYMMETRIC, *SYMMETRIC, *ON_BYOL)
LABELS = {arm.name: arm.label for arm in ARMS}
VARIED = ("lewel", "scd")
CLAIM = "SCD is better than LEWEL, in MoCo's asymmetric and symmetric form and on BYOL"

contrast = declarer(METRIC, SESOI, CLAIM)
CONTRASTS = (
    contrast("scd", "lewel"),
    contrast("scd_symmetric", "lewel_symmetric"),
    contrast("scd_byol", "lewel_byol"),
    contrast("scd", "moco", "SCD is better than MoCo, asymmetric"),
    contrast("scd_symmetric", "moco_symmetric", "SCD is better than MoCo, symmetric"),
    contrast("scd_byol", "byol", "SCD is better than BYOL"),
)


def plan(settings: Settings) -> list[RunSpec]:
    """Many seeds of the asymmetric arms, the asked-for seeds of all, and one source of chance at a time in two arms."""
    arms = settings.select(ARMS)
    many = sorted({*settings.seeds, *range(int(settings.axes.get("main_seeds", 0)))})
    runs = [
        labelled(settings.spec(arm, seed), "all")
        for seed in many
        for arm in arms
        if seed in settings.seeds or arm in ASYMMETRIC
    ]
    for source in settings.axes.get("chance", []):
        for level in range(int(settings.axes.get("levels", 0))):
            own = {"seed_of": {source: level}} if level else {}  # level 0 is seed 0's run
            chosen = [arm for arm in arms if arm.name in VARIED]
            runs += [labelled(settings.spec(arm, 0, overrides=own), source, level) for arm in chosen]
    return runs


def labelled(spec: RunSpec, chance: str, level: int | None = None) -> RunSpec:
    """The run under what varies in it; its seed is then the level."""
    seed = spec.labels["seed"] if level is None else level
    return replace(spec, labels={**spec.labels, "seed": seed, "chance": chance})


# -------------------------------------------------------------------- page


def render(settings: Settings, records: pandas.DataFrame, standing: Standing) -> Path:
    """Write records, figures, page and index; returns the page's path."""
    return compose(gather(STUDY, settings, records, standing), settings.out)


def compose(evidence: Evidence, out: Path) -> Path:
    """The page from its evidence alone."""
    out = Path(out)
    whole = evidence.where(chance="all")
    contrasts = by_what_there_is(CONTRASTS, whole, FALLBACK)
    metric = contrasts[0].metric
    primary = family(contrasts, STUDY.primary)
    verdict = judge(whole.finished, primary)
    answer = report.answer_of(verdict, LABELS)
    evidence = evidence.answered(verdict.outcome, answer)
    labels = {name: LABELS[name] for name in evidence.about["arms"]}
    results = {each.name: paired(whole.finished, each.treatment, each.control, metric) for each in contrasts}
    names = {each.name: versus(each, LABELS) for each in contrasts}
    panels = Panels(whole, LABELS, "moco", (), metric, SESOI, out)

    page = report.Page("Does a margin of +0.2 or +0.3 points mean anything?")
    report.opening(page, evidence, STUDY, answer)
    page.text(margin_sentence(results[STUDY.primary]))
    page.table(tables.contrast_table(whole, contrasts, names, {each.name: "all chance" for each in contrasts}))
    page.text(
        f"Paired differences in {tables.label(metric)}, in points, over the seeds that both arms have; Holm's "
        "correction "
        f"over all {len(contrasts)} rows; the last column is for a true difference of 1 point."
    )
    page.figure(panels.differences([replace(each, conditions={"budget": "epochs"}) for each in contrasts]))
    page.heading("Is it the same, then?")
    page.table(equivalence_table(results, names, metric))
    page.text(
        "Two one-sided t tests: a p below 0.05 says that the difference lies within ± the margin. Neither different "
        "nor "
        "equivalent means that the seeds do not tell."
    )
    power(page, evidence, results, out)
    decomposition(page, evidence, metric)
    page.heading("Arms")
    report.chosen_arms(page, evidence, STUDY)
    page.table(tables.arm_table(whole, labels, MAIN))
    page.figure(panels.seeds([]))
    page.heading("How the verdict is reached")
    page.text(f"Claim: *{verdict.claim}*.", rule(len(primary), "1 point"))
    report.how_measured(page, evidence, MAIN, measured(evidence, whole))
    report.deviations(page, DEVIATIONS)
    report.cost(page, whole, labels)
    report.provenance(page, evidence, ("arm", "chance"))
    path = page.write(out / f"{evidence.page}.md")
    save(evidence, out)
    write_index(out)
    return path


def published_sd() -> float:
    """The spread of MoCo v2's five published runs, in points."""
    return estimate(PUBLISHED).sd


def margin_sentence(main: PairedResult) -> str:
    """What +0.2 and +0.3 points are, beside the spread over seeds here and in print."""
    sd = published_sd()
    chance = quantile(0.025, len(PUBLISHED) - 1) * sd * sqrt(2)
    parts = []
    for margin in (0.2, 0.3):
        here = seeds_needed(main.sd, margin / 100)
        parts.append(
            f"+{margin} points takes {f'about {here:,} paired seeds' if here else 'an unknown number of seeds'} at "
            "this "
            f"page's spread of SCD − LEWEL, and {seeds_needed(sd, margin, paired=False)} runs of each method at MoCo "
            "v2's published one"
        )
    within = [margin for margin in (0.2, 0.3) if margin < chance]
    said = {2: "both margins are within chance", 1: f"+{min(within, default=0)} is within chance", 0: "both exceed it"}
    return (
        f"**What the margins mean.** By MoCo v2's five published runs (standard deviation {sd:.2f} points) two single "
        f"runs of one method differ by up to {chance:.2f} points in 95 of 100 cases: as differences of single runs, "
        f"{said[len(within)]}. To find it with 80 % power, {'; '.join(parts)}."
    )


def equivalence_table(results: dict[str, PairedResult], names: dict[str, str], metric: str) -> tables.Table:
    """One row per contrast: effect size, and equivalence within several margins."""
    notes, rows = tables.Notes(), []
    for name, result in results.items():
        row = {"treatment vs. control": names[name], "pairs": str(result.n)}
        row["difference"] = tables.number(metric, result.mean, True) if result.n else notes.dash("no pair of seeds")
        for margin in (0.3, 1.0, 2.0):
            p = equivalence(result, margin / 100)
            row[f"p within ±{margin:g}"] = notes.dash("no two pairs that differ") if p is None else tables.p_value(p)
        rows.append(row)
    return tables.Table(pandas.DataFrame(rows), notes.lines)


def power(page: report.Page, evidence: Evidence, results: dict[str, PairedResult], out: Path) -> None:
    """How many seeds a margin takes, and what the test set adds."""
    page.heading("How many seeds does a margin take?")
    spreads = {
        "here, SCD − LEWEL, asymmetric (paired)": results["scd-lewel"].sd,
        "here, symmetric (paired)": results["scd_symmetric-lewel_symmetric"].sd,
        "here, on BYOL (paired)": results["scd_byol-lewel_byol"].sd,
    }
    columns = {name: (None if sd is None else 100 * sd, True) for name, sd in spreads.items()}
    columns["MoCo v2 on ImageNet, published (unpaired)"] = (published_sd(), False)
    notes, rows = tables.Notes(), []
    for margin in MARGINS:
        row = {"margin (points)": f"{margin:g}"}
        for name, (sd, is_paired) in columns.items():
            needed = seeds_needed(sd, margin, paired=is_paired)
            row[name] = f"{needed:,}" if needed else notes.dash("no two pairs that differ")
        rows.append(row)
    spread = {"margin (points)": "standard deviation"}
    spread |= {name: f"{sd:.2f}" if sd else notes.dash("no two pairs that differ") for name, (sd, _) in columns.items()}
    page.table(tables.Table(pandas.DataFrame([*rows, spread]), notes.lines))
    page.text(
        "Seeds (of each arm) with which a two-sided t test at 5 % finds a true difference of that size with 80 % "
        "power. "
        "The spreads here are those of a small network on a few thousand images and are larger than ImageNet's; the "
        "published column is of single runs of one method (67.7, 67.6, 67.4, 67.6, 67.3), whose seeds were not paired."
    )
    p = sum(PUBLISHED) / len(PUBLISHED) / 100
    apart, disagreeing = 1.96 * sqrt(2 * p * (1 - p) / IMAGES), 1.96 * sqrt(0.1 / IMAGES)
    page.text(
        f"More seeds do not remove the test set's own error: on {IMAGES:,} images at {100 * p:.1f} % the difference "
        "of two "
        f"networks has a 95 % sampling half width of {100 * apart:.2f} points if their errors were independent, and of "
        f"{100 * disagreeing:.2f} points if exactly one of them is right on 10 % of the images (computed, not "
        "measured)."
    )
    known = {name: (sd, is_paired) for name, (sd, is_paired) in columns.items() if sd}
    points = [
        {"row": name, "x": n, "value": least_margin(n, sd, paired=is_paired)}
        for name, (sd, is_paired) in known.items()
        for n in (2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
    ]
    path = f"figures/{evidence.page}-power.png"
    mapfigures.power_curves(
        out / path, pandas.DataFrame(points), "seeds of each arm", "difference found with 80 % power (points)"
    )
    page.figure(
        Picture(path, "The difference that a number of seeds finds with 80 % power; bands: +0.2 and +0.3 points.")
    )


def decomposition(page: report.Page, evidence: Evidence, metric: str) -> None:
    """The spread over one source of chance at a time."""
    page.heading("Where does the spread come from?")
    notes, rows = tables.Notes(), []
    for source in ["all", *(name for name in SOURCES if name in evidence.levels("chance"))]:
        done = evidence.where(chance=source).finished
        difference = paired(done, "scd", "lewel", metric)
        row = {"what varies": SOURCES.get(source, "all of them (the seeds)"), "values": str(difference.n)}
        for arm in VARIED:
            sd = estimate(done[done["arm"] == arm][metric] if metric in done else []).sd
            row[f"sd of {LABELS[arm]}"] = notes.dash("fewer than two values") if sd is None else f"{100 * sd:.2f}"
        if difference.sd:
            low, high = spread_interval(100 * difference.sd, difference.n)
            row["sd of the difference"] = f"{100 * difference.sd:.2f} [{low:.2f}, {high:.2f}]"
        else:
            row["sd of the difference"] = notes.dash("fewer than two values")
        rows.append(row)
    page.table(tables.Table(pandas.DataFrame(rows), notes.lines))
    page.text(
        "Standard deviations in points, with the 95 % interval of the difference's (chi-squared). One source takes new "
        "values while the others stay as in seed 0, so their variances need not add up to the first row's: sources "
        "interact, and few values make wide intervals."
    )


def measured(evidence: Evidence, whole: Evidence) -> dict[str, str]:
    """What only this study has to say about its measuring."""
    counts = whole.runs.groupby("arm")["seed"].nunique()
    entries = {
        "Seeds": (
            f"{counts.max()} in the asymmetric arms, {counts.min()} in the others; a seed draws the initial weights, "
            "the "
            "order of the images, the augmentation and the part that the probe holds out; intervals are two-sided 95 % "
            "Student-t over seeds, of paired differences"
        ),
        "Settings of the arms": "the same learning rate in every arm, tuned for none; BYOL's arms take BYOL's two "
        "views",
    }
    return {**entries, **report.preset_lines(evidence)}


DEVIATIONS = (
    "Scale: a small network on small images; published margins are of a ResNet-50 on ImageNet. What carries over is "
    "how "
    "a margin compares with its spread, and the published spread itself.",
    "LEWEL on MoCo: no official code exists; its aligned vectors are contrasted with a queue of their own "
    "(`baselines/lewel.py`).",
    "BYOL: SGD with the suite's shared schedule in place of LARS with warm-up.",
    "SCD is a reconstruction (`scd/scd.py`).",
)

STUDY = Study(
    name="significance",
    question_ids=("R2-b", "R3-a", "R4-c"),
    question="The margins over LEWEL are 0.2 (asymmetric) and 0.3 (symmetric loss): is that significant, or marginal?",
    arms=ARMS,
    contrasts=CONTRASTS,
    primary=CONTRASTS[0].name,
    plan=plan,
    render=render,
)
