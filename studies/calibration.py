"""Can a tier see effects that are known? The effects that it must reproduce before its other pages are believed.

Every effect (:mod:`studies.known_effects`) is a claim of its own with a published direction. The study trains the arms
that the effects compare, says which effects come out in the published direction, and keeps the result for the line
that every other page prints (studies/suite/pages/calibration.py).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path

import pandas

from scd.evaluation.metric import Metric
from studies.known_effects import (
    ANY,
    ARMS,
    BYOL,
    COLLAPSING,
    CORRELATED,
    DRAWN,
    EFFECTS,
    KNN,
    LEARNS,
    LINEAR,
    LOSS,
    MOCO,
    NO_TRAINING,
    PHOTOGRAPHS,
    RHO,
    SYMMETRIC,
    UNTRAINED,
    Effect,
    contrast,
)
from studies.references import chosen_arms
from studies.suite.analysis import notation, tables
from studies.suite.analysis.answers import sentence
from studies.suite.analysis.comparison import compare
from studies.suite.analysis.conditions import versus
from studies.suite.analysis.results import Results
from studies.suite.analysis.tables import Notes, Table
from studies.suite.analysis.verdict import BETTER, EQUIVALENT, NOT_RESOLVED, WORSE, Finding, Verdict, find
from studies.suite.pages import calibration, figures
from studies.suite.pages import sections as standard
from studies.suite.pages.markdown import Picture
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import RunSpec, Study

ABSENT = "absent"
WORDS = {BETTER: "reproduced", WORSE: "wrong direction", EQUIVALENT: ABSENT, NOT_RESOLVED: "not resolved"}
NOT_MEASURED = "not measured"
MOST_NAMED = 4  # effects of one outcome that the first sentence names; the table has all
NO_PAIR = "no seed has finished in both arms, or the images lack what the metric takes"
CELLS = {
    "reproduced": "**yes**", "wrong direction": "**no**, wrong direction", ABSENT: "**no**, absent",
    "not resolved": "not resolved", NOT_MEASURED: NOT_MEASURED,
}  # fmt: skip
# metric -> the protocol that measures it
PROTOCOLS = {
    LINEAR: "linear", KNN: "knn", "mixed_same_top1": "background", "mixed_rand_top1": "background",
    "bg_gap": "background", "background_top1": "background", "effective_rank": "collapse", "feature_std": "collapse",
}  # fmt: skip
COLLAPSE = (LINEAR, KNN, LOSS, "effective_rank", "feature_std")
METRICS = {
    LOSS: Metric("last training loss", "", None, "of the last logged step; for BYOL in [0, 4], 0: equal embeddings")
}
BACKGROUND = ("mixed_same_top1", "mixed_rand_top1", "bg_gap", "background_top1")


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """All runs, seed by seed. Arms with a predictive background are left out where the images have no such option."""
    left_out = () if settings.has_option("rho_train") else CORRELATED
    arms = [arm for arm in chosen_arms(settings, ARMS) if arm not in left_out]
    return [settings.at_equal_epochs(arm, seed, arm not in UNTRAINED) for seed in settings.seeds for arm in arms]


def prepare(results: Results, settings: Settings) -> Results:
    """Add the seconds of each evaluation to the runs, by protocol: ``seconds_knn`` and so on."""
    from studies.suite.execution.store import Store  # not needed to read a page's records

    store, rows = Store(settings.store), results.runs.to_dict("records")
    for row in rows:
        for folder in results.folders.get(row["run"], ()):
            if record := store.evaluations.record(folder.name):
                row[f"seconds_{record['protocol']}"] = record["seconds"]
    return results.with_runs(pandas.DataFrame(rows))


# -------------------------------------------------------------------- effects


@dataclass(frozen=True)
class Measured:
    """An effect with what the page found; ``is_expected``: whether it is known of the page's images."""

    effect: Effect
    verdict: Verdict
    is_expected: bool

    @property
    def finding(self) -> Finding:
        """Of its one contrast."""
        return self.verdict.findings[0]

    @property
    def outcome(self) -> str:
        """ "reproduced", "not resolved", "wrong direction", "absent" or "not measured"."""
        return WORDS[self.finding.outcome] if self.finding.gain.n else NOT_MEASURED


def is_drawn(results: Results) -> bool:
    """Whether the images are drawn, on backgrounds of a known correlation."""
    return "rho_train" in results.about["base"].get("data", {}).get("options", {})


def effects_on(results: Results) -> list[Effect]:
    """The effects that are known of the page's images."""
    known = (ANY, DRAWN if is_drawn(results) else PHOTOGRAPHS)
    return [each for each in EFFECTS if each.images in known]


def measured_effects(report: Report) -> list[Measured]:
    """All effects that the page's runs can show, judged; the expected ones first."""
    results, expected = report.results, effects_on(report.results)
    others = [each for each in EFFECTS if each.images == PHOTOGRAPHS and each not in expected]
    verdicts = report.judge_claims(
        claims=[each.claim for each in expected], beside=[each.contrast for each in others], is_said=False
    )
    found = [Measured(each, verdict, True) for each, verdict in zip(expected, verdicts, strict=True)]
    return found + [
        Measured(each, Verdict(each.claim.text, (find(results, each.contrast),), (), 1), False) for each in others
    ]


def counted(found: Sequence[Measured], results: Results) -> str:
    """The page's answer: how many known effects are reproduced, and which are not."""
    expected = [each for each in found if each.is_expected]
    outcomes = Counter(each.outcome for each in expected)
    parts = []
    for outcome in ("wrong direction", ABSENT, "not resolved", NOT_MEASURED):
        names = [each.effect.claim.text for each in expected if each.outcome == outcome]
        listed = f" ({'; '.join(names)})" if len(names) <= MOST_NAMED else ""
        parts += [f"{len(names)} {outcome}{listed}"] if names else []
    rest = f" The others: {', '.join(parts)}." if parts else ""
    text = f"**{outcomes['reproduced']} of {len(expected)} known effects are reproduced.**{rest}"
    control = find(results, LEARNS)
    if control.gain.n and control.gain.is_read and control.outcome != BETTER:
        text = (
            "**The control fails:** MoCo is not better than random weights in linear top-1, so this tier cannot see "
            f"what a training does. {text}"
        )
    return text


def effect_table(found: Sequence[Measured], results: Results) -> Table:
    """One row per effect: what is published, what was measured, whether it is reproduced."""
    notes, rows = Notes(), []
    for each in found:
        gain, metric = each.finding.gain, results.metric(each.finding.contrast.metric)
        cell = CELLS[each.outcome]
        if not each.is_expected:
            cell = f"{each.outcome}{notes.mark('known of photographs only, and not counted here')}"
        elif gain.n and not gain.is_read:
            cell += notes.mark(f"not judged before {results.about['looks'][0]} paired seeds")
        difference = gain.negated() if metric.better == "lower" else gain
        measured = f"{metric.label}: {notation.amount(metric, difference)}" if gain.n else notes.dash(NO_PAIR)
        text = each.effect.claim.text
        rows.append(
            {
                "known effect": text[:1].upper() + text[1:],
                "published": f"{each.effect.published} ({each.effect.source})",
                "measured": measured,
                "reproduced?": cell,
            }
        )
    return Table(
        pandas.DataFrame(rows), notes.lines, tuple(dict.fromkeys(each.finding.contrast.metric for each in found))
    )


def effects_figure(found: Sequence[Measured], report: Report) -> Picture | None:
    """The measured differences in the published direction, over what the page could have detected."""
    results, pairs, intervals = report.results, [], []
    for each in found:
        gain, scale = each.finding.gain, each.finding.detectable
        if not scale:
            continue
        label = f"{versus(each.finding.contrast, report.names)}\n{results.metric(each.finding.contrast.metric).label}"
        key = {"panel": str(results.about["data"]).replace("$", r"\$"), "row": label}
        key["style"] = "known effect" if each.is_expected else "known of photographs only"
        pairs += [{**key, "value": value / scale} for value in gain.differences]
        intervals.append({**key, "mean": gain.mean / scale, "low": gain.ci_low / scale, "high": gain.ci_high / scale})
    if not intervals:
        return None
    path = f"figures/{results.page}-effects.png"
    columns = ["panel", "row", "style", "value"]
    figures.differences(
        Path(report.out) / path,
        pandas.DataFrame(pairs, columns=columns),
        pandas.DataFrame(intervals),
        "difference / detectable difference",
        1.0,
    )
    return Picture(
        path,
        "Known effects: paired differences in the published direction with 95 % t intervals, each divided by the "
        "difference that this page could have detected in it (80 % power); small dots: seeds; band: ± that difference.",
    )


def signal_table(found: Sequence[Measured], results: Results, report: Report) -> Table:
    """Per effect and metric: the mean difference over its standard deviation, for each core-minute of a pair."""
    notes, rows = Notes(), {}
    for each in found:
        treatment, control = each.finding.contrast.treatment, each.finding.contrast.control
        name = versus(each.finding.contrast, report.names)
        if name in rows:
            continue
        row = {"pair": name}
        for metric, protocol in PROTOCOLS.items():
            minutes = core_minutes(results, (treatment, control), protocol)
            result = compare(results, treatment, control, metric)
            if result.dz is None or isnan(minutes):
                row[results.metric(metric).label] = notes.dash(
                    "no two pairs that differ, or no time is recorded" if results.has(metric) else "not measured"
                )
                continue
            dz = -result.dz if results.metric(metric).better == "lower" else result.dz
            row[results.metric(metric).label] = f"{dz / minutes:+.1f}".replace("-", notation.MINUS)
        rows[name] = row
    return Table(pandas.DataFrame(list(rows.values())), notes.lines, tuple(PROTOCOLS))


def core_minutes(results: Results, arms: Sequence[str], protocol: str) -> float:
    """Minutes of one pair of runs times their threads: their training and the evaluation by one protocol."""
    column = f"seconds_{protocol}"
    if column not in results.runs or "seconds_pretrain" not in results.runs:
        return nan
    threads = next((each["threads"] for each in results.about["environments"] if each.get("threads")), 1)
    seconds = [(results.of(arm)["seconds_pretrain"] + results.of(arm)[column]).mean() for arm in arms]
    return threads * sum(seconds) / 60 or nan


# -------------------------------------------------------------------- page


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, labels = report.results, report.labels
    found = measured_effects(report)
    expected = [each for each in found if each.is_expected]
    reproduced = sum(each.outcome == "reproduced" for each in expected)
    report.say(counted(found, results), summary=counted(found, results))
    report.outcome = f"{reproduced} of {len(expected)} known effects"
    detectable = {
        each.contrast.metric: each.detectable
        for metric in (KNN, LINEAR)
        if (each := find(results, contrast(SYMMETRIC, MOCO, metric, ""))).detectable
    }
    known = calibration.summary(reproduced, len(expected), find(results, LEARNS).outcome == BETTER, detectable)
    report.results = replace(results, about={**results.about, calibration.KEY: known})
    report.show(
        effect_table(found, results),
        "Measured: paired differences in the metric of the effect with 95 % t intervals over seeds, not corrected. An "
        "effect is reproduced when the interval lies on the published side of 0; that of a background gap is below 0.",
        effects_figure(found, report),
    )

    report.section("Each effect in a sentence").items([sentence(each.verdict, results, report.names) for each in found])
    accuracy = report.section("Accuracy")
    accuracy.text("Mean ± half width of the 95 % t interval over seeds.")
    accuracy.table(tables.arm_table(results, labels, (LINEAR, KNN)))
    standard.indicators(
        report.section("Background reliance"), results, labels, BACKGROUND,
        "Objects of test images on other backgrounds, and the background's own class.",
    )  # fmt: skip
    pair = {arm.name: labels[arm.name] for arm in (NO_TRAINING, BYOL, COLLAPSING) if arm.name in labels}
    standard.indicators(
        report.section("Collapse without a predictor"), results, pair, COLLAPSE,
        f"Where all embeddings are equal, BYOL's training loss is 0{chance(results)}. Effective rank and feature "
        "spread are those of the backbone's features, behind batch normalisation; published indicators are those of "
        "the embedding. They are shown and not counted, see *How it was measured*.",
    )  # fmt: skip
    signal = report.section("Signal per core-minute")
    signal.text(
        "Mean paired difference over its standard deviation over seeds, in the direction that is better (upwards where "
        "neither is), divided by the core-minutes of one pair: training of both arms and their evaluation by the "
        "metric's protocol. The larger it is, the fewer minutes the effect takes to be seen. The first protocol of a "
        "run also pays for the features that later ones reuse."
    )
    signal.table(signal_table(found, results, report))
    report.section("More on known numbers").text(
        "The official CIFAR-10 curve of MoCo has a study of its own, `moco-curve`; its pages are in the "
        "[list](README.md#all-pages)."
    )


def chance(results: Results) -> str:
    """The accuracy of guessing, where the number of classes is known."""
    classes = results.about["base"].get("data", {}).get("options", {}).get("classes")
    return f"; guessing has a top-1 of {100 / classes:.1f} %" if classes else ""


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    entries = {
        "Control": "MoCo above random weights in linear top-1. Where it fails, no other effect counts as contradicted",
        "Published sizes": (
            "quoted with their source; they come from other images, networks and schedules, so that only their "
            "direction is tested"
        ),
    }
    if is_drawn(results):
        entries["Backgrounds"] = (
            f"drawn independently of the object, but for the arms with ρ = {RHO:g}: there the background's class is "
            "the partner of the object's class with that probability in training, and independent in the test images"
        )
        entries["Multi-crop"] = (
            "known of photographs. On these embedded images the study multicrop measured the opposite direction or no "
            "difference, so it is shown and not counted; on a folder of photographs it counts as an effect"
        )
    else:
        entries["Left out"] = (
            "the effects of a true mask and of a predictive background: they take images whose background is drawn "
            "with a known correlation"
        )
    entries["Chosen after a trial"] = (
        "for a collapse without a predictor, three effects were declared first: lower linear top-1, lower effective "
        "rank and lower feature spread. A trial of one seed showed that rank and spread did not fall although "
        "the loss and the accuracy did; they were dropped, and lower kNN top-1 and a lower last training loss were "
        "added. These two effects were therefore chosen after a look at one seed, and are weaker evidence "
        "than effects that were declared before any run"
    )
    entries["Not among the effects"] = (
        "BYOL without a momentum branch: published results disagree (BYOL, Table 5a: 0.3 % on ImageNet; SimSiam, Table "
        "1: 67.7 % with a predictor and a stop-gradient)"
    )
    return entries


DEVIATIONS = (
    "Scale: the published effects are those of long trainings on photographs; this tier trains for minutes.",
    "Local crops: 4 views beside two unchanged global ones, and the loss is the mean over all pairs; Asym-Siam takes "
    "6, adds their mean to the loss, and raises the smallest area of its large crops.",
    "Linear probe: solved to its optimum on features without augmentation; the papers train it by SGD on crops.",
)

STUDY = Study(
    name="calibration",
    question_ids=(),
    question="Can this tier see effects that are known?",
    title="Known effects: what this tier can see",
    arms=ARMS,
    contrasts=tuple(each.contrast for each in EFFECTS),
    control=(LEARNS,),
    primary=EFFECTS[0].contrast.name,
    claims=tuple(each.claim for each in EFFECTS),
    looks=(5,),
    plan=plan,
    sections=sections,
    prepare=prepare,
    metrics=METRICS,
    deviations=DEVIATIONS,
    notes=notes,
)
