"""R2-a and R2-c: how do SCD's maps and their use differ from LEWEL's, and where does SCD win?

Both stand on the same MoCo and the same BYOL. Their mechanisms stand side by side, as the configuration has them; both
kinds of map are scored against masks; each is given the other's maps; and a sweep over scenarios says where SCD wins,
ties and loses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas

from studies.suite.analysis import tables
from studies.suite.analysis.conditions import by_what_there_is
from studies.suite.analysis.results import Evidence, gather, save
from studies.suite.analysis.statistics import PairedResult, equivalence, holm, paired
from studies.suite.analysis.verdict import family, judge
from studies.suite.pages import map_figures as mapfigures
from studies.suite.pages import map_traces as traces
from studies.suite.pages import report
from studies.suite.pages.contrasts import compared
from studies.suite.pages.index import write_index
from studies.suite.pages.study_figures import Panels, Picture
from studies.suite.planning.study import Arm, RunSpec, Settings, Standing, Study, declarer

METRIC, FALLBACK, SESOI = "linear_top1", "saliency_maxf", 0.01  # one point
MAIN = (METRIC, "knn_top1", "mixed_rand_top1", "bg_gap")
SALIENCY = (
    "saliency_iou", "saliency_iou_inverted", "saliency_iou_whole",
    "saliency_maxf", "saliency_maxf_inverted", "saliency_maxf_whole", "saliency_inverted_share", "map_std",
)  # fmt: skip
COURSE = ("saliency_maxf", "saliency_maxf_inverted", "view_agreement")
SWEPT = (METRIC, "knn_top1", "mixed_rand_top1", "saliency_maxf")
ON_BYOL = {"method": "byol", "views": {"recipe": "byol"}}

RANDOM = Arm("random", "random weights", {}, "backbone, evaluation", "no training: the floor")
MOCO = Arm("moco", "MoCo", {"method": "moco"}, "two global views, asymmetric loss", "no map")
ARMS = (
    RANDOM,
    MOCO,
    Arm("lewel", "LEWEL-MoCo", {"method": "moco", "wrapper": "lewel"}, "all of MoCo", "alignment maps, aligned loss"),
    Arm("scd", "SCD-MoCo", {"method": "moco", "wrapper": "scd"}, "all of MoCo", "one saliency map, triplet loss"),
    Arm(
        "maps_swapped", "LEWEL's maps in SCD", {"method": "moco", "wrapper": "scd_alignment"},
        "SCD's triplets on MoCo", "16 alignment maps, each with its complement, in the place of the saliency map",
    ),
    Arm(
        "loss_swapped", "SCD's map in LEWEL", {"method": "moco", "wrapper": "lewel_saliency"},
        "LEWEL's aligned loss on MoCo", "the saliency map and its complement in the place of the alignment maps",
    ),
    Arm("byol", "BYOL", ON_BYOL, "two global views, symmetric loss", "no map"),
    Arm("lewel_byol", "LEWEL-BYOL", {**ON_BYOL, "wrapper": "lewel"}, "all of BYOL", "alignment maps, aligned loss"),
    Arm("scd_byol", "SCD-BYOL", {**ON_BYOL, "wrapper": "scd"}, "all of BYOL", "one saliency map, triplet loss"),
)  # fmt: skip
LABELS = {arm.name: arm.label for arm in ARMS}
WITH_MAPS = ("lewel", "scd", "maps_swapped", "loss_swapped", "lewel_byol", "scd_byol")
PICTURED = tuple((arm, 1.0) for arm in WITH_MAPS)
CLAIM = "SCD is better than LEWEL, on MoCo and on BYOL"


@dataclass(frozen=True)
class Scenario:
    """One change of the setting, the rest as in the main comparison; ``generated`` ones need the embedded images."""

    name: str
    overrides: dict[str, Any]
    generated: bool = True


def images(**options: Any) -> dict[str, Any]:
    """Other options of the embedded images."""
    return {"data": {"options": options}}


BASE = Scenario("as above", {}, generated=False)
SCENARIOS = (
    BASE,
    Scenario("background correlation 0.8", images(rho_train=0.8)),
    Scenario("small objects (0.15–0.3)", images(scale=[0.15, 0.3])),
    Scenario("large objects (0.6–0.9)", images(scale=[0.6, 0.9])),
    Scenario("no clutter", images(clutter=0)),
    Scenario("clutter up to 8", images(clutter=8)),
    Scenario("2 objects", images(objects=2)),
    Scenario("4 objects", images(objects=4)),
    Scenario("crops from 0.08 of the area", {"views": {"scale": [0.08, 1.0]}}, generated=False),
    Scenario("crops from 0.5 of the area", {"views": {"scale": [0.5, 1.0]}}, generated=False),
)
SWEEP = ("lewel", "scd")

contrast = declarer(METRIC, SESOI, CLAIM)
CONTRASTS = (
    contrast("scd", "lewel"),
    contrast("scd_byol", "lewel_byol"),
    contrast("scd", "moco", "SCD is better than MoCo"),
    contrast("lewel", "moco", "LEWEL is better than MoCo"),
    contrast("scd_byol", "byol", "SCD is better than BYOL"),
    contrast("lewel_byol", "byol", "LEWEL is better than BYOL"),
    contrast("maps_swapped", "scd", "in SCD's triplets LEWEL's maps are better than SCD's map"),
    contrast("loss_swapped", "lewel", "in LEWEL's loss SCD's map is better than LEWEL's maps"),
)


def plan(settings: Settings) -> list[RunSpec]:
    """The main comparison and, where asked for, LEWEL and SCD on MoCo in every other scenario; seed by seed."""
    arms = settings.select(ARMS)
    embedded = settings.base["data"]["name"] == "shapes"
    others = [scenario for scenario in SCENARIOS[1:] if embedded or not scenario.generated]
    runs = []
    for seed in settings.seeds:
        runs += [labelled(settings, arm, seed, BASE) for arm in arms]
        for scenario in others if settings.axes.get("scenarios", True) else []:
            runs += [labelled(settings, arm, seed, scenario) for arm in arms if arm.name in SWEEP]
    return runs


def labelled(settings: Settings, arm: Arm, seed: int, scenario: Scenario) -> RunSpec:
    """One run of an arm in a scenario."""
    trained, overrides = arm is not RANDOM, scenario.overrides
    return settings.at_equal_epochs(arm, seed, trained, overrides, scenario=scenario.name)


# -------------------------------------------------------------------- page


def render(settings: Settings, records: pandas.DataFrame, standing: Standing) -> Path:
    """Write records, figures, page and index; returns the page's path."""
    evidence = gather(STUDY, settings, records, standing)
    traces.keep_maps(evidence.where(scenario=BASE.name), settings, PICTURED)
    return compose(evidence, settings.out)


def compose(evidence: Evidence, out: Path) -> Path:
    """The page from its evidence and its kept maps alone."""
    out, main = Path(out), evidence.where(scenario=BASE.name)
    contrasts = by_what_there_is(CONTRASTS, main, FALLBACK)
    metric = contrasts[0].metric
    verdict = judge(main.finished, family(contrasts, STUDY.primary))
    answer = report.answer_of(verdict, LABELS)
    evidence = evidence.answered(verdict.outcome, answer)
    labels = {name: LABELS[name] for name in evidence.about["arms"]}
    panels = Panels(main, LABELS, MOCO.name, (RANDOM.name,), metric, SESOI, out)

    page = report.Page("How does SCD differ from LEWEL, and where does it win?")
    report.opening(page, evidence, STUDY, answer)
    sweep = swept(evidence, metric)
    page.text(won(sweep))
    page.table(tables.gain_table(main, labels, metric, MOCO.name, {"equal epochs": {}}))
    page.text(f"Paired differences in {tables.label(metric)}, in points, with 95 % t intervals, not corrected.")
    page.figure(panels.differences([replace(each, conditions={"budget": "epochs"}) for each in contrasts]))
    scenarios(page, evidence, sweep, metric, out)
    page.heading("The two mechanisms")
    page.table(mechanisms(main))
    page.text(
        "From this page's configuration and records; rows without a number state what the code does "
        "(`baselines/lewel.py`, `scd/scd.py`)."
    )
    page.heading("Arms")
    report.chosen_arms(page, evidence, STUDY)
    page.table(tables.arm_table(main, labels, MAIN))
    page.figure(panels.seeds([]))
    compared(page, main, contrasts, (verdict,), LABELS, "1 point")
    maps(page, main, labels, out)
    report.how_measured(page, evidence, (*MAIN, *SALIENCY, "view_agreement"), measured(evidence))
    report.deviations(page, DEVIATIONS)
    report.cost(page, main, labels)
    report.provenance(page, evidence, ("arm", "scenario"))
    path = page.write(out / f"{evidence.page}.md")
    save(evidence, out)
    write_index(out)
    return path


def mechanisms(main: Evidence) -> tables.Table:
    """What each method does, side by side; numbers from the configuration and the records."""
    base, used = main.about["base"], main.about["presets"].get("wrapper", {})
    lewel, scd = used.get("lewel", {}), used.get("scd", {})
    count = base["method"].get("dim")
    heads = lewel.get("heads", 1)
    depth = scd.get("saliency", {}).get("depth")
    done = main.finished

    def record(arm: str, column: str) -> str:
        values = done[done["arm"] == arm][column].dropna() if column in done else ()
        return tables.quantity(values.mean()) if len(values) else tables.NONE

    rows = [
        ("number of maps", f"{count}, in {heads} heads", "1, and its complement"),
        ("pooled vectors per view", f"{count // heads if count else tables.NONE}", "2: foreground and background"),
        ("made by", "the projection head, applied to every position", f"an MLP of its own, {depth} layers"),
        ("normalised", "over positions: softmax of unit-length logits", "none: a sigmoid at each position"),
        ("pools", "a head's share of the channels", "all channels"),
        (
            "compared with",
            "the same index in the other view (attraction)",
            "foreground with both backgrounds (triplet)",
        ),
        ("who is pushed away", "other images' vectors, where the host has negatives", "the image's own background"),
        ("weight of its loss", f"{1 - lewel.get('weight', 0):g} of the sum", f"{scd.get('weight')} beside the host's"),
        ("gradient to the map", "yes", "yes" if scd.get("map_gradient") else "no"),
        ("trained parameters", record("lewel", "parameters_trained"), record("scd", "parameters_trained")),
        ("FLOPs per training step", record("lewel", "flops_per_step"), record("scd", "flops_per_step")),
    ]
    return tables.Table(pandas.DataFrame(rows, columns=["", "LEWEL", "SCD"]))


def swept(evidence: Evidence, metric: str) -> dict[str, PairedResult]:
    """SCD minus LEWEL on MoCo, in every scenario of the plan."""
    return {
        name: paired(evidence.where(scenario=name).finished, "scd", "lewel", metric)
        for name in evidence.levels("scenario")
    }


def outcome_of(result: PairedResult) -> str:
    """Wins: the 95 % interval lies above 0; loses: below; ties: it is within ± the smallest difference; or open."""
    if result.ci_low is not None and result.ci_low > 0:
        return "wins"
    if result.ci_high is not None and result.ci_high < 0:
        return "loses"
    p = equivalence(result, SESOI)
    return "ties" if p is not None and p < 0.05 else "open"


def won(sweep: Mapping[str, PairedResult]) -> str:
    """The plain list, in one paragraph."""
    groups = {word: [name for name, result in sweep.items() if outcome_of(result) == word] for word in OUTCOMES}
    parts = [f"{word}: {', '.join(names) if names else 'nowhere'}" for word, names in groups.items()]
    return f"**Where SCD-MoCo against LEWEL-MoCo** {'; '.join(parts)} ({len(sweep)} scenarios, not corrected)."


OUTCOMES = ("wins", "ties", "loses", "open")


def scenarios(page: report.Page, evidence: Evidence, sweep: Mapping[str, PairedResult], metric: str, out: Path) -> None:
    """The sweep as a heat map and as a table."""
    page.heading("Where does SCD win?")
    adjusted = holm([result.p for result in sweep.values()])
    rows = []
    for (name, result), p in zip(sweep.items(), adjusted, strict=True):
        known = result.ci_low is not None
        rows.append(
            {
                "scenario": name,
                "pairs": str(result.n),
                "SCD − LEWEL": tables.number(metric, result.mean, True) if result.n else tables.NONE,
                "95 % interval": tables.interval(metric, result) if known else tables.NONE,
                "p (Holm)": tables.p_value(p) if known else tables.NONE,
                "SCD": outcome_of(result),
            }
        )
    page.table(tables.Table(pandas.DataFrame(rows)))
    page.text(
        f"Paired differences in {tables.label(metric)}, in points. SCD *wins* where the 95 % interval lies above 0, "
        f"*loses* where it lies below, *ties* where two one-sided tests put the difference within ± {100 * SESOI:g} "
        "point, and is *open* otherwise; Holm's correction runs over the scenarios."
    )
    present = [each for each in SWEPT if each in evidence.finished and evidence.finished[each].notna().any()]
    values, texts = {}, {}
    for name in sweep:
        done = evidence.where(scenario=name).finished
        found = {each: paired(done, "scd", "lewel", each) for each in present}
        values[name] = {tables.label(k): tables.scaled(k, r.mean) if r.n else float("nan") for k, r in found.items()}
        texts[name] = {tables.label(k): cell(k, r) for k, r in found.items()}
    path = f"figures/{evidence.page}-scenarios.png"
    frame = pandas.DataFrame(values).T
    mapfigures.heat(out / path, frame, pandas.DataFrame(texts).T[frame.columns], "SCD better  →")
    page.figure(
        Picture(
            path,
            "SCD − LEWEL on the same MoCo, in points, by scenario and metric; bold star: the 95 % interval excludes 0. "
            "Colours are scaled within a column.",
        )
    )


def cell(metric: str, result: PairedResult) -> str:
    """A difference, with a star where its interval excludes 0."""
    if not result.n:
        return tables.NONE
    excludes = result.ci_low is not None and (result.ci_low > 0 or result.ci_high < 0)
    return tables.number(metric, result.mean, True) + (" ★" if excludes else "")


def maps(page: report.Page, main: Evidence, labels: Mapping[str, str], out: Path) -> None:
    """Both kinds of map against the masks, and on images."""
    report.indicators(
        page, main, labels, [{}], "Maps against true masks", SALIENCY, WITH_MAPS,
        "Both polarities, beside a map that is 1 everywhere. LEWEL has no single map: its maps are averaged and "
        "stretched from their minimum to their maximum in each image; IoU at 0.5 depends on that stretch, maxF hardly.",
    )  # fmt: skip
    figure = traces.maps_figure(main, LABELS, PICTURED, out)
    if figure:
        page.figure(figure)
    lines = {name: LABELS[name] for name in WITH_MAPS if name in labels}
    courses = traces.course_figure(main, lines, COURSE, out, traces.colours_of(LABELS))
    if courses:
        page.figure(courses)


def measured(evidence: Evidence) -> dict[str, str]:
    """What only this study has to say about its measuring."""
    entries = {
        "Settings of the arms": (
            "the same learning rate in every arm, tuned for none; BYOL's arms take BYOL's two views"
        ),
        "Scenarios": "one change at a time from the main comparison, in training and test images alike (the background "
        "correlation in training images only)",
    }
    return {**entries, **report.preset_lines(evidence)}


DEVIATIONS = (
    "Scale: a small network on small images, see above; both papers train a ResNet-50 at 224 px on ImageNet.",
    "LEWEL on MoCo: no official code exists; its aligned vectors are contrasted with a queue of their own "
    "(`baselines/lewel.py`). On BYOL it follows the released variant without EMAN.",
    "BYOL: SGD with the suite's shared schedule in place of LARS with warm-up.",
    "SCD is a reconstruction (`scd/scd.py`), and so are the swaps (`baselines/hybrids.py`).",
)

STUDY = Study(
    name="lewel",
    question_ids=("R2-a", "R2-c"),
    question="How exactly do SCD's saliency maps and their use differ from LEWEL's alignment maps, and in which "
    "scenarios does SCD clearly beat LEWEL?",
    arms=ARMS,
    contrasts=CONTRASTS,
    primary=CONTRASTS[0].name,
    plan=plan,
    render=render,
)
