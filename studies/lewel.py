"""R2-a and R2-c: how do SCD's maps and their use differ from LEWEL's, and where does SCD win?

Both are put on the same MoCo, on images whose background is predictive in training. The page has their mechanisms side
by side, as configured; the maps of both scored against masks; each method with the other's maps; and a sweep over
scenarios that shows where SCD is better, equivalent or worse.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas

from scd.errors import unknown
from studies.references import (
    MAP_SCORES,
    ORACLE,
    RANDOM,
    SUPERVISED,
    background_correlation,
    chosen_arms,
    correlation_lines,
    learns,
    separates,
)
from studies.suite.analysis import notation, tables
from studies.suite.analysis.comparison import compare
from studies.suite.analysis.conditions import cross_conditions, fall_back_to_metric, planned
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import PairedResult, holm
from studies.suite.analysis.verdict import OUTCOMES, outcome_of
from studies.suite.pages import map_figures, map_traces, study_figures
from studies.suite.pages import sections as standard
from studies.suite.pages.markdown import Picture
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Claim, RunSpec, Study, contrast_factory, merge

METRIC, FALLBACK, SESOI = "knn_top1", "saliency_maxf", 0.01  # one point
MAIN = (METRIC, "linear_top1", "mixed_rand_top1", "bg_gap")
CURVES = ("saliency_maxf", "saliency_maxf_inverted", "view_agreement")
SWEPT = (METRIC, "linear_top1", "mixed_rand_top1", "saliency_maxf")

MOCO = Arm("moco", "MoCo", {"method": "moco"}, "two global views, asymmetric loss", "no map")
ARMS = (
    RANDOM,
    MOCO,
    Arm("lewel", "LEWEL-MoCo", {"method": "moco", "wrapper": "lewel"}, "all of MoCo", "alignment maps, aligned loss"),
    Arm("scd", "SCD-MoCo", {"method": "moco", "wrapper": "scd"}, "all of MoCo", "one saliency map, triplet loss"),
    Arm(
        "maps_swapped", "LEWEL's maps in SCD", {"method": "moco", "wrapper": "scd_alignment"},
        "SCD's triplets on MoCo", "LEWEL's alignment maps, each with its complement, instead of the saliency map",
    ),
    Arm(
        "loss_swapped", "SCD's map in LEWEL", {"method": "moco", "wrapper": "lewel_saliency"},
        "LEWEL's aligned loss on MoCo", "the saliency map and its complement instead of the alignment maps",
    ),
    replace(ORACLE, overrides={"method": "moco", **ORACLE.overrides}),
    Arm("byol", "BYOL", {"method": "byol"}, "BYOL's two global views, symmetric loss", "no map", default=False),
    Arm(
        "lewel_byol", "LEWEL-BYOL", {"method": "byol", "wrapper": "lewel"}, "all of BYOL", "LEWEL's maps and loss",
        default=False,
    ),
    Arm(
        "scd_byol", "SCD-BYOL", {"method": "byol", "wrapper": "scd"}, "all of BYOL", "SCD's map and triplet loss",
        default=False,
    ),
    replace(SUPERVISED, default=False),
)  # fmt: skip
WITH_MAPS = ("lewel", "scd", "maps_swapped", "loss_swapped", "lewel_byol", "scd_byol")
PICTURED = tuple((arm, 1.0) for arm in WITH_MAPS)


@dataclass(frozen=True)
class Scenario:
    """One change of the setting, the rest as in the main comparison.

    Args:
        option: the option of the images that it changes, or None; images without that option skip the scenario.
        default: False: run by ``axes.scenarios=all``. judged: one of the scenarios of the claim.
    """

    name: str
    overrides: dict[str, Any]
    option: str | None = None
    default: bool = True
    judged: bool = True


def images(name: str, **options: Any) -> Scenario:
    """Another value of one option of the embedded images, which the name quotes."""
    return Scenario(name.format(**options), {"data": {"options": options}}, next(iter(options)))


def crops(name: str, low: float) -> Scenario:
    """Another smallest area of the global views."""
    return Scenario(name.format(low=low), {"views": {"scale": [low, 1.0]}})


BASE = Scenario("the main comparison", {})
SCENARIOS = (
    BASE,
    replace(images("no background correlation", rho_train=0.0), judged=False),  # a correct map does not help there
    images("small objects ({scale[0]}–{scale[1]})", scale=[0.15, 0.3]),
    replace(images("large objects ({scale[0]}–{scale[1]})", scale=[0.6, 0.9]), default=False),
    replace(images("no clutter", clutter=0), default=False),
    images("clutter up to {clutter}", clutter=8),
    replace(images("{objects} objects", objects=2), default=False),
    images("{objects} objects", objects=4),
    crops("crops from {low} of the area", 0.08),
    replace(crops("crops from {low} of the area", 0.5), default=False),
)
JUDGED = tuple(each for each in SCENARIOS if each.default and each.judged)
SWEEP = ("moco", "lewel", "scd", "oracle")  # SCD against LEWEL, and the positive control in the same scenario
CHOICES = ("default", "all", "none")  # of axes.scenarios

contrast = contrast_factory(METRIC, SESOI, "SCD is better than LEWEL")
CONTRASTS = (
    contrast("scd", "lewel"),
    contrast("scd_byol", "lewel_byol", "on BYOL SCD is better than LEWEL"),
    contrast("scd", "moco", "SCD is better than MoCo"),
    contrast("lewel", "moco", "LEWEL is better than MoCo"),
    contrast("scd_byol", "byol", "SCD is better than BYOL"),
    contrast("lewel_byol", "byol", "LEWEL is better than BYOL"),
    contrast("maps_swapped", "scd", "in SCD's triplets LEWEL's maps are better than SCD's map"),
    contrast("loss_swapped", "lewel", "in LEWEL's loss SCD's map is better than LEWEL's maps"),
    separates("oracle", "moco", METRIC),
    learns("moco", "MoCo"),
)
SEPARATES, LEARNS = CONTROL = CONTRASTS[-2:]  # a correct separation is seen; the host has learned something
HERE = {"scenario": BASE.name}


def here(question: str, treatment: str, control: str, text: str) -> Claim:
    """A claim about the main comparison."""
    return Claim(text, (contrast(treatment, control, text, HERE),), question)


CLAIMS = (
    here("Is SCD better than LEWEL?", "scd", "lewel", "SCD-MoCo is better than LEWEL-MoCo"),
    here("Whose maps?", "maps_swapped", "scd", "in SCD's triplets LEWEL's maps are better than SCD's map"),
    here("Whose map, in LEWEL?", "loss_swapped", "lewel", "in LEWEL's loss SCD's map is better than LEWEL's maps"),
    Claim(
        f"there is a scenario, of {len(JUDGED)}, in which SCD-MoCo is better than LEWEL-MoCo",
        tuple(contrast("scd", "lewel", conditions={"scenario": each.name}) for each in JUDGED),
        "Is there a scenario where SCD clearly beats LEWEL?", (SEPARATES,), some=True,
    ),
)  # fmt: skip


def plan(settings: Settings) -> list[RunSpec]:
    """The main comparison and, where asked for, LEWEL, SCD and the control in other scenarios; seed by seed."""
    arms, asked = chosen_arms(settings, ARMS), settings.axes.get("scenarios", CHOICES[0])
    if asked not in CHOICES:
        raise unknown("choice of scenarios (axes.scenarios)", asked, CHOICES)
    others = [each for each in SCENARIOS[1:] if asked == "all" or (asked == "default" and each.default)]
    others = [each for each in others if each.option is None or settings.has_option(each.option)]
    runs = []
    for seed in settings.seeds:
        runs += [labelled(settings, arm, seed, BASE) for arm in arms]
        for scenario in others:
            runs += [labelled(settings, arm, seed, scenario) for arm in arms if arm.name in SWEEP]
    return runs


def labelled(settings: Settings, arm: Arm, seed: int, scenario: Scenario) -> RunSpec:
    """One run of an arm in a scenario."""
    trained, overrides = arm is not RANDOM, merge(background_correlation(settings), scenario.overrides)
    return settings.at_equal_epochs(arm, seed, trained, overrides, scenario=scenario.name)


# -------------------------------------------------------------------- page


def prepare(results: Results, settings: Settings) -> Results:
    """Keep the maps of the page's figure."""
    map_traces.keep_maps(results.where(scenario=BASE.name), settings, PICTURED)
    return results


def sections(report: Report) -> None:
    """The study's part of the page."""
    main, labels, out = report.results.where(scenario=BASE.name), report.labels, report.out
    contrasts = fall_back_to_metric(planned(CONTRASTS, main), main, FALLBACK)
    metric = METRIC if main.has(METRIC) or not main.has(FALLBACK) else FALLBACK
    report.judge_claims(beside=cross_conditions(contrasts, [HERE]))
    sweep = swept(report.results, metric)
    report.say(by_outcome(sweep))
    report.show(
        tables.gain_table(main, labels, metric, MOCO.name, {"equal epochs": {}}),
        f"Paired differences in {main.metric(metric).label}, in points, with 95 % t intervals, not corrected.",
        study_figures.differences(main, contrasts, report.names, out),
    )

    scenarios(report, sweep, metric)
    mechanism = report.section("The two mechanisms")
    mechanism.table(mechanisms(main))
    mechanism.text(
        "From this page's configuration and records. Rows without a number state what the code does "
        "(`baselines/lewel.py`, `scd/scd.py`)."
    )
    accuracy = report.section("Accuracy")
    accuracy.table(tables.arm_table(main, labels, MAIN))
    accuracy.figure(study_figures.seeds(main, labels, metric, out, reference=MOCO.name))
    maps = report.section("Maps against true masks")
    standard.indicators(
        maps, main, {name: labels[name] for name in WITH_MAPS if name in labels}, (*MAP_SCORES, "map_std"),
        "Both polarities, beside a map that is 1 everywhere. LEWEL has several maps: they are averaged and scaled from "
        "their minimum to their maximum in each image; the IoU depends on this scaling, maxF hardly.",
    )  # fmt: skip
    map_traces.pictures(maps, main, report.names, PICTURED, out)
    maps.figure(map_traces.curve_figure(main, report.names, CURVES, out, WITH_MAPS))


def mechanisms(main: Results) -> tables.Table:
    """What each method does, side by side; numbers from the configuration and the records."""
    overrides = main.about["overrides"]
    lewel, scd = (overrides.get(arm, {}).get("wrapper", {}) for arm in ("lewel", "scd"))
    count, heads = main.about["base"].get("method", {}).get("dim"), lewel.get("heads", 1)

    def record(arm: str, column: str) -> str:
        values = main.of(arm)[column].dropna() if column in main.runs else ()
        return notation.quantity(values.mean()) if len(values) else tables.NONE

    rows = [
        ("number of maps", f"{count}, in {heads} heads", "1, and its complement"),
        ("pooled vectors per view", f"{count // heads if count else tables.NONE}", "2: foreground and background"),
        ("made by", "the projection head, at every position", f"an MLP, {scd.get('saliency', {}).get('depth')} layers"),
        ("normalised", "softmax over positions of unit-length logits", "a sigmoid at each position"),
        ("pools", "a head's share of the channels", "all channels"),
        ("attraction", "to the same index in the other view", "between the foregrounds of two views"),
        ("repulsion", "from other images' vectors, where the host has negatives", "from the image's own background"),
        ("weight of its loss", f"{1 - lewel.get('weight', 0):g} of the sum", f"{scd.get('weight')} beside the host's"),
        ("gradient to the map", "yes", "yes" if scd.get("map_gradient") else "no"),
        ("trained parameters", record("lewel", "parameters_trained"), record("scd", "parameters_trained")),
        ("FLOPs per training step", record("lewel", "flops_per_step"), record("scd", "flops_per_step")),
    ]
    return tables.Table(pandas.DataFrame(rows, columns=["", "LEWEL", "SCD"]))


def swept(results: Results, metric: str) -> dict[str, PairedResult]:
    """SCD minus LEWEL on MoCo, in every scenario of the plan."""
    return {name: compare(results.where(scenario=name), "scd", "lewel", metric) for name in results.levels("scenario")}


def by_outcome(sweep: Mapping[str, PairedResult]) -> str:
    """The scenarios by outcome, in one paragraph."""
    groups = {
        outcome: [name for name, result in sweep.items() if outcome_of(result, SESOI) == outcome]
        for outcome in OUTCOMES
    }
    parts = [f"{outcome} in {', '.join(names) if names else 'none'}" for outcome, names in groups.items()]
    return f"**SCD-MoCo against LEWEL-MoCo in {len(sweep)} scenarios** (not corrected): {'; '.join(parts)}."


def scenarios(report: Report, sweep: Mapping[str, PairedResult], metric: str) -> None:
    """The sweep as a table and as a heat map."""
    results, definition = report.results, report.results.metric(metric)
    section = report.section("Where is SCD better?")
    adjusted = holm([result.p for result in sweep.values()])
    rows = []
    for (name, result), p in zip(sweep.items(), adjusted, strict=True):
        known = result.ci_low is not None
        rows.append(
            {
                "scenario": name,
                "pairs": str(result.n),
                "SCD − LEWEL": notation.number(definition, result.mean, True) if result.n else tables.NONE,
                "95 % interval": notation.interval(definition, result) if known else tables.NONE,
                "p (Holm)": notation.p_value(p) if known else tables.NONE,
                "SCD is": outcome_of(result, SESOI),
            }
        )
    section.table(tables.Table(pandas.DataFrame(rows), metrics=(metric,)))
    section.text(
        f"Paired differences in {definition.label}, in points; outcomes as for the contrasts, not corrected. Holm's "
        "correction of p runs over the scenarios."
    )
    present = [each for each in SWEPT if results.has(each)]
    values, texts = {}, {}
    for name in sweep:
        part = results.where(scenario=name)
        found = {each: compare(part, "scd", "lewel", each) for each in present}
        columns = {each: results.metric(each) for each in present}
        values[name] = {
            columns[each].label: notation.scaled(columns[each], result.mean) if result.n else float("nan")
            for each, result in found.items()
        }
        texts[name] = {columns[each].label: cell(results, each, result) for each, result in found.items()}
    path = f"figures/{results.page}-scenarios.png"
    frame = pandas.DataFrame(values).T
    map_figures.heat(report.out / path, frame, pandas.DataFrame(texts).T[frame.columns], "SCD better  →")
    section.figure(
        Picture(
            path,
            "SCD − LEWEL on the same MoCo, in points, by scenario and metric; star: the 95 % interval excludes 0. "
            "Colours are scaled within a column.",
        )
    )


def cell(results: Results, metric: str, result: PairedResult) -> str:
    """A difference, with a star where its interval excludes 0."""
    if not result.n:
        return tables.NONE
    excludes = result.ci_low is not None and (result.ci_low > 0 or result.ci_high < 0)
    return notation.number(results.metric(metric), result.mean, True) + (" ★" if excludes else "")


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    return {
        "Settings of the arms": "the same learning rate in every self-supervised arm, tuned for none; each host has "
        "its own views",
        "Scenarios": "one change at a time from the main comparison, in training and test images alike (the background "
        "correlation in training images only)",
        **correlation_lines(results),
    }


DEVIATIONS = (
    "Scale: a small network on small images; both papers train a ResNet-50 at 224 px on ImageNet.",
    "LEWEL on MoCo: no official code exists; its aligned vectors are contrasted with a queue of their own "
    "(`baselines/lewel.py`). On BYOL it follows the released variant without EMAN.",
    "BYOL below the paper tier: SGD with the suite's shared schedule instead of LARS with warm-up.",
    "SCD is a reconstruction (`scd/scd.py`), and so are the hybrids (`baselines/hybrids.py`).",
)

STUDY = Study(
    name="lewel",
    question_ids=("R2-a", "R2-c"),
    question="How exactly do SCD's saliency maps and their use differ from LEWEL's alignment maps, and in which "
    "scenarios does SCD clearly beat LEWEL?",
    title="How does SCD differ from LEWEL, and where is it better?",
    arms=ARMS,
    contrasts=CONTRASTS,
    control=CONTROL,
    primary=CONTRASTS[0].name,
    claims=CLAIMS,
    looks=(5,),
    fallback=FALLBACK,
    plan=plan,
    sections=sections,
    prepare=prepare,
    deviations=DEVIATIONS,
    notes=notes,
)
