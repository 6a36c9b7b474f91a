"""R5-a and R4-e: do the answers depend on what is reconstructed of SCD?

SCD's code is not public, and its abstract and reviews leave many choices open. This study trains SCD in a balanced
fraction of all combinations of these choices (:mod:`studies.specifications`), each beside its host, the same loss with
the true mask, and the same loss with a map that knows nothing of its image. It shows the effects in every specification
(a specification curve: Simonsohn, Simmons and Nelson 2020, Nature Human Behaviour 4, 1208-1214), what each choice does,
and which specification a rule chooses that reads no accuracy of SCD.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, isnan, nan, prod
from typing import Any

import pandas

from studies.references import MAP_SCORES, background_correlation, correlation_lines
from studies.specification_effects import Effects
from studies.specifications import WORDS, Specification, designed, host_overrides, shown, wrapper_overrides
from studies.suite.analysis import notation, tables
from studies.suite.analysis.readings import over_readings
from studies.suite.analysis.results import DONE, FAILED, MISSING, Results
from studies.suite.analysis.statistics import PairedResult, least_margin
from studies.suite.analysis.verdict import BETTER, Finding, outcome_of
from studies.suite.pages.markdown import Blocks
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, RunSpec, Study, contrast_factory, merge

METRIC, SESOI = "knn_top1", 0.01  # one point
MAIN = (METRIC, "linear_top1", "feature_std", "effective_rank")
PLACE = "map_place_share"
SHAPE = ("map_area", "map_std", "map_saturation", "map_entropy")
DRAW_OF_CHOICE = 0  # the draw of the embedded images on which the default reconstruction is chosen


def scd(saliency: str) -> dict[str, Any]:
    """SCD with a map source; the specification sets the rest."""
    return {"wrapper": {"preset": "scd", "saliency": {"preset": saliency}}}


HOST = Arm("moco", "MoCo", {}, "the backbone of its specification, MoCo's loss", "no map, no triplet loss")
ARMS = (
    HOST,
    Arm("scd", "SCD", scd("mlp"), "all of MoCo", "learned map, triplet loss; all choices of its specification"),
    Arm(
        "neutral", "SCD with another image's map", scd("other_image"), "all of SCD: loss, weights, map network",
        "in training each image has the learned map of another image of the batch",
    ),
    Arm(
        "oracle", "SCD with the true mask", scd("oracle"), "all of SCD's loss", "the map is the true mask",
    ),
)  # fmt: skip
LEARNED = ("scd", "neutral")  # arms whose map has a normalisation
CLAIM = "on average over the specifications SCD is better than MoCo and than SCD with another image's map"

contrast = contrast_factory(METRIC, SESOI, CLAIM)
CONTRASTS = (
    contrast("scd", "moco"),
    contrast("scd", "neutral"),
    contrast("oracle", "moco", "with the true mask, the loss is better than MoCo alone"),
    contrast("oracle", "neutral", "with the true mask, the loss is better than with another image's map"),
)
ORACLE = CONTRASTS[2]
DRAWN = ("scd-moco", "scd-neutral", "oracle-moco")
RULE = (
    "among the specifications in which the true mask is better than the host and better than another image's map, the "
    "one with the largest lower end of the 95 % interval of the true mask's difference from the host"
)


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """The arms of every specification, seed by seed; hosts with equal settings are one run."""
    return [
        run(settings, arm, seed, specification)
        for seed in settings.seeds
        for specification in specifications(settings.axes)
        for arm in settings.select(ARMS)
    ]


def specifications(axes: Mapping[str, Any]) -> tuple[Specification, ...]:
    """The specifications that the study's options ask for."""
    return designed(axes["choices"], axes["specifications"], axes["design"])


def run(settings: Settings, arm: Arm, seed: int, specification: Specification) -> RunSpec:
    """One run of an arm under the choices of a specification."""
    changes = host_overrides(specification.levels)
    if arm is not HOST:
        changes = merge(changes, wrapper_overrides(specification.levels, learned=arm.name in LEARNED))
    specified = replace(arm, overrides=merge(arm.overrides, changes))
    images = background_correlation(settings)
    return settings.at_equal_epochs(specified, seed, overrides=images, specification=specification.number)


# -------------------------------------------------------------------- analysis


def averaged(results: Results, chosen: Sequence[Specification]) -> Results:
    """The metric of each arm and seed as its mean over all specifications; a seed that lacks one has no value."""
    numbers, rows = [each.number for each in chosen], []
    for (arm, seed), runs in results.runs.groupby(["arm", "seed"], sort=False):
        values = dict(zip(runs["specification"], runs[METRIC] if METRIC in runs else [nan] * len(runs), strict=True))
        found = [values.get(number, nan) for number in numbers]
        is_done = (runs["status"] == DONE).all() and not any(map(isnan, found))
        status = DONE if is_done else MISSING if (runs["status"] == MISSING).any() else FAILED
        mean = sum(found) / len(found) if is_done else nan
        rows.append({"arm": arm, "budget": "epochs", "seed": seed, "status": status, "reason": "", METRIC: mean})
    return results.with_runs(pandas.DataFrame(rows))


def positive_control(effects: Effects) -> Finding:
    """The true mask against the host where it gains most, with an interval that allows for the choice of this place.

    Each end has the error of the readings divided by the number of specifications (Bonferroni).
    """
    findings = []
    for each in effects.chosen:
        gain, count = effects.gain(each, ORACLE), len(effects.chosen)
        if gain.spread:
            alpha = gain.alpha / count
            ends = {"ci_low": gain.bound("lower", alpha), "ci_high": gain.bound("upper", alpha)}
            gain = replace(gain, **ends, alpha=alpha)
        detectable = least_margin(gain.n, gain.spread, alpha=2 * gain.alpha, df=gain.df) if gain.spread else None
        findings.append(Finding(ORACLE, gain, outcome_of(gain, SESOI), detectable))
    return max(findings, key=lambda finding: lower_end(finding.gain))


def lower_end(gain: PairedResult) -> float:
    """The lower end of the interval, for comparisons; minus infinity where it is unknown."""
    return -inf if gain.ci_low is None else gain.ci_low


def chosen_by_rule(effects: Effects) -> Specification | None:
    """The specification that ``RULE`` chooses; None where none qualifies."""
    qualified = [
        each
        for each in effects.chosen
        if all(effects.findings[each.number, name].outcome == BETTER for name in ("oracle-moco", "oracle-neutral"))
    ]
    return max(qualified, key=lambda each: lower_end(effects.gain(each, ORACLE)), default=None)


# -------------------------------------------------------------------- page


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, contrasts, axes = report.results, report.study.contrasts, report.results.about["axes"]
    chosen, over = specifications(axes), over_readings(results.about["looks"])
    effects = Effects(results, chosen, axes["choices"], contrasts, report.names)
    report.judge(contrasts, averaged(results, chosen), controls=[positive_control(effects)])
    report.say(rule_sentence(effects))
    report.show(
        effects.outcomes(),
        f"Number of the {len(chosen)} specifications with each outcome, by 95 % intervals{over}, not corrected for the "
        "number of specifications.",
        effects.curve([each for each in contrasts if each.name in DRAWN], report.out),
    )

    every = report.section("Every specification")
    every.table(effects.every())
    every.text(
        f"Paired differences in {results.metric(METRIC).label}, in points, with 95 % intervals{over}, not corrected, "
        "sorted by the first one. Specifications share hosts with equal settings, so their differences from "
        f"{report.names[HOST.name]} are correlated."
    )
    choices = report.section("What each choice does")
    if any(effects.levels()):
        choices.table(
            effects.by_level(),
            "Paired differences, in points, averaged over the specifications with each level; 95 % t intervals over "
            f"seeds{over}, by their own spread.",
        )
        choices.table(
            effects.main_effects(),
            "The same, minus that of the choice's first level: main effects, not corrected. The fraction balances the "
            "other choices only approximately, and with few specifications an interaction of two others can look like "
            "a main effect.",
        )
    described(choices, axes, len(chosen))
    numbers(report)


def rule_sentence(effects: Effects) -> str:
    """Which specification the rule chooses on these images, and whether these are the images that it is meant for."""
    results, best = effects.results, chosen_by_rule(effects)
    draw = results.about["base"].get("data", {}).get("options", {}).get("seed")
    there = "these images" if draw is None else f"draw {draw} of the images"
    if best is None:
        text = f"On {there} it chooses no specification: in none is the true mask better than both"
    else:
        gain = notation.amount(results.metric(METRIC), effects.gain(best, ORACLE))
        text = f"On {there} it chooses specification {best.number} ({best.words(effects.choices)}): {gain}"
    other = "" if draw == DRAW_OF_CHOICE else f" The default is to be chosen on draw {DRAW_OF_CHOICE}, not here."
    return (
        f"**Choice of a default.** The rule, declared beforehand, reads no accuracy of SCD with its own map: {RULE}. "
        f"{text}.{other}"
    )


def described(section: Blocks, axes: Mapping[str, Any], count: int) -> None:
    """What is varied and what is not, how the fraction is taken, and what neutral means."""
    choices = axes["choices"]
    section.heading("The specifications")
    section.items(
        {
            WORDS[choice]: ", ".join(map(shown, levels)) + ("" if len(levels) > 1 else " (not varied on this page)")
            for choice, levels in choices.items()
        }
    )
    section.text(
        "*Map*: how the logits of a learned map become weights. *Padding*: of the backbone, also in the host. "
        "*Projection*: before the triplets' distance. *Host's loss on foregrounds*: the weight of the host's own loss "
        "between the foreground vectors, besides that between the image vectors. *Positive branch* online: with a "
        "symmetric host. All of them: `scd/scd.py`, `scd/maps/learned.py`, `scd/nn/backbone.py`."
    )
    section.text(
        f"{count} of the {prod(map(len, choices.values()))} specifications of the grid, by a design with seed "
        f"{axes['design']} that balances levels and pairs of levels (`studies/specifications.py`) and is fixed before "
        "any run. Specification 1 has the first level of every choice.",
        "**Neutral in every specification** is the learned map of another image: loss, pull, map network, area and "
        "position stay what the specification makes them, and only the relation to the image's content is lost. A "
        "constant map would not be neutral: its foreground and background are the same vector, so that only the pull "
        "between two views is left of the loss.",
        "The true mask has no normalisation: the choice of the map changes nothing in its arm, and the rule tells the "
        "levels of this choice apart by the control alone.",
    )


def numbers(report: Report) -> None:
    """Accuracy, collapse and maps, arm by arm and specification by specification."""
    results = report.results
    for title, arms, metrics, text in (
        ("Accuracy and collapse", report.labels, MAIN, "Means with 95 % t intervals over seeds."),
        (
            "Maps: position or content?", LEARNED, (PLACE, *MAP_SCORES[:5], *SHAPE),
            "A map of position alone has the same values in every image; it can satisfy the triplet loss without any "
            "object. Both polarities are scored, beside fixed maps and the best possible one. Maps that were another "
            "image's in training are each image's own here.",
        ),
        ("Maps against true masks, further scores", LEARNED, MAP_SCORES[5:], "The same maps."),
    ):  # fmt: skip
        section, part = report.section(title), results.with_runs(results.runs[results.runs["arm"].isin(list(arms))])
        if not (present := [metric for metric in metrics if part.has(metric)]):
            section.text("Not measured: no finished run has these numbers.")
            continue
        section.text(text)
        section.table(tables.label_table(part, report.names, present))


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    count = len(specifications(results.about["axes"]))
    return {
        **correlation_lines(results),
        "Claim": "judged on each arm's mean over all specifications, seed by seed; seeds that lack a run are left out",
        "Positive control": f"the true mask is better than the host in at least one of {count} specifications; the "
        f"error of its interval is divided by {count}, which allows for taking the best of them",
        "Settings of the arms": "learning rate, momentum, queue and temperature are the same in every arm; none was "
        "tuned for one arm or specification",
    }


DEVIATIONS = (
    "Scale: a small network on small images; the paper's is a ResNet-50 at 224 px on ImageNet. Which choices matter "
    "can differ there.",
    "The grid holds the choices that this suite found to matter or to be open; it is not the set of all "
    "reconstructions.",
    "The host's loss on the foreground vectors is added to the image-level loss, so the sum of the losses, and with "
    "SGD the step, is larger in these specifications; the control has the same sum.",
)

STUDY = Study(
    name="reconstruction",
    question_ids=("R5-a", "R4-e"),
    question="Why can a simple MLP help to find the foreground, and why does the method work: do the answers depend on "
    "the choices that the publication leaves open?",
    title="Does the result depend on how SCD is reconstructed?",
    arms=ARMS,
    contrasts=CONTRASTS,
    control=(ORACLE,),
    primary=CONTRASTS[0].name,
    plan=plan,
    sections=sections,
    deviations=DEVIATIONS,
    notes=notes,
    looks=(5,),
)
