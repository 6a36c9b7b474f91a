"""R3-b: the paper's first table has linear probing alone. Does the answer, or the ranking, depend on the protocol?

Every arm is trained once and evaluated by all protocols: kNN, linear probe, fine-tuning with all, a tenth and a
hundredth of the labels, transfer to other images, classes and segments of scenes, mixed backgrounds, the worst group of
class and background, and COMUS. SCD is compared with MoCo in each of them, beside a control that a trained network, and
a correct separation, can be seen there; and the rankings of the arms are compared between protocols.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy
import pandas
from scipy.stats import kendalltau

from studies.references import (
    LONGER,
    ORACLE,
    PREDICTIVE,
    RANDOM,
    SUPERVISED,
    background_correlation,
    chosen_arms,
    correlation_lines,
)
from studies.suite.analysis import notation, tables
from studies.suite.analysis.comparison import compare
from studies.suite.analysis.conditions import planned
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import by_seed, estimate
from studies.suite.analysis.verdict import BETTER, WORSE, outcome_of
from studies.suite.pages import map_figures, study_figures
from studies.suite.pages.markdown import Blocks, Picture
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Claim, Contrast, RunSpec, Study, contrast_factory

SESOI = 0.01  # one point
PROTOCOLS = {  # the number that stands for each protocol, and how a sentence names it
    "knn_top1": "kNN",
    "linear_top1": "the linear probe",
    "finetune_top1": "fine-tuning with all labels",
    "labels10_top1": "fine-tuning with 10 % of the labels",
    "labels1_top1": "fine-tuning with 1 % of the labels",
    "other_linear_top1": "transfer to another set of images",
    "scene_map": "the classes of scenes",
    "scene_miou_linear": "the segments of scenes",
    "mixed_rand_top1": "mixed backgrounds",
    "worst_group_top1": "the worst group of class and background",
    "comus_miou": "COMUS",
}
COLUMNS = {  # headings of the tables
    "knn_top1": "kNN", "linear_top1": "linear", "finetune_top1": "fine-tuned", "labels10_top1": "10 %",
    "labels1_top1": "1 %", "other_linear_top1": "transfer", "scene_map": "scenes", "scene_miou_linear": "segments",
    "mixed_rand_top1": "mixed-rand", "worst_group_top1": "worst group",
    "comus_miou": "COMUS",
}  # fmt: skip
REFERENCE = "linear_top1"  # the protocol of the paper's first table

MOCO = Arm("moco", "MoCo", {"method": "moco"}, "two global views, asymmetric loss", "no map")
ARMS = (
    RANDOM,
    SUPERVISED,
    MOCO,
    Arm("scd", "SCD-MoCo", {"method": "moco", "wrapper": "scd"}, "all of MoCo", "one saliency map, triplet loss"),
    replace(ORACLE, overrides={"method": "moco", **ORACLE.overrides}, label="SCD-MoCo with the true mask"),
    Arm("lewel", "LEWEL-MoCo", {"method": "moco", "wrapper": "lewel"}, "all of MoCo", "alignment maps, aligned loss"),
    Arm("byol", "BYOL", {"method": "byol"}, "BYOL's two global views, symmetric loss", "no map"),
    Arm(
        "scd_byol", "SCD-BYOL", {"method": "byol", "wrapper": "scd"}, "all of BYOL", "one saliency map, triplet loss"
    ),
    Arm(
        "dino", "DINO", {"method": "dino", "backbone": "vit"}, "DINO's recipe, on a ViT",
        "prototypes, local views; another backbone",
    ),
    Arm(
        "scd_dino", "SCD-DINO", {"method": "dino", "wrapper": "scd", "backbone": "vit"}, "all of DINO, on the ViT",
        "one saliency map, triplet loss",
    ),
    Arm("mae", "MAE", {"method": "mae"}, "MAE's recipe, on the ViT", "masked patches are predicted, one view"),
)  # fmt: skip
RANKED = tuple(arm.name for arm in ARMS if arm.name not in (RANDOM.name, SUPERVISED.name, ORACLE.name))


def claim_in(metric: str) -> tuple[Claim, Contrast]:
    """SCD is better than MoCo by one protocol, with the controls in the same protocol."""
    text = f"by {PROTOCOLS[metric]} SCD-MoCo is better than MoCo"
    make = contrast_factory(metric, SESOI, text)

    def contrast(treatment: str, control: str, claim: str = text, remedy: str = "") -> Contrast:
        return replace(make(treatment, control, claim), name=f"{treatment}-{control}, {metric}", remedy=remedy)

    controls = (
        contrast("moco", RANDOM.name, "MoCo is better than random weights", LONGER),
        contrast(ORACLE.name, "moco", "a correct map helps", PREDICTIVE),
    )
    own = contrast("scd", "moco")
    return Claim(text, (own,), f"By {PROTOCOLS[metric]}?", controls), own


JUDGED = tuple(claim_in(metric) for metric in PROTOCOLS)
CLAIMS = tuple(claim for claim, _ in JUDGED)
CONTRASTS = (*(own for _, own in JUDGED), *(control for claim, _ in JUDGED for control in claim.controls))


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """All arms, seed by seed, at the epochs of their recipes; every protocol is evaluated on the same weights."""
    images = background_correlation(settings)
    return [
        settings.at_equal_epochs(arm, seed, arm is not RANDOM, images)
        for seed in settings.seeds
        for arm in chosen_arms(settings, ARMS)
    ]


# -------------------------------------------------------------------- page


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, labels, out = report.results, report.labels, report.out
    metrics = [metric for metric in PROTOCOLS if results.has(metric)]
    report.judge_claims(beside=[each for each in planned(CONTRASTS, results) if each.metric in metrics])
    agreement, orders = agreements(results, metrics), {metric: Order.by(results, metric) for metric in metrics}
    report.say(ranking_sentence(orders, agreement))
    report.show(
        gains(results, metrics),
        "Paired differences in points, at the epochs of each arm's recipe, with 95 % t intervals, not corrected.",
        study_figures.differences(
            results, [each for each in planned(CONTRASTS, results) if each.metric == REFERENCE], report.names, out
        ),
    )
    accuracy = report.section("Every arm by every protocol")
    accuracy.table(tables.arm_table(results, labels, metrics))
    rankings(report.section("Rankings, with ties by interval"), orders, labels)
    if len(agreement):
        section = report.section("Do protocols agree?")
        path = f"figures/{results.page}-agreement.png"
        texts = agreement.map(lambda value: "" if pandas.isna(value) else f"{value:.2f}")
        map_figures.heat(out / path, agreement, texts, "same ranking  →")
        section.figure(
            Picture(
                path,
                "Kendall's τ between the rankings by two protocols, of the self-supervised arms, within each seed; "
                "mean over seeds. 1: the same order, 0: unrelated, −1: the reverse.",
            )
        )
        agreement_table(section, results, orders)
    groups = [name for name in ("usual_background_top1", "other_background_top1", "group_weighted_top1", "groups")
              if results.has(name)]  # fmt: skip
    if groups:
        section = report.section("Groups of class and background")
        section.table(tables.arm_table(results, labels, ["worst_group_top1", *groups]))
        section.text(
            "Each class on its usual background and on all others; the worst group weighs all groups alike "
            "(`scd/evaluation/worst_group.py`)."
        )


def gains(results: Results, metrics: list[str]) -> tables.Table:
    """SCD minus MoCo, and the controls, by each protocol."""
    notes, rows = tables.Notes(), []
    pairs = {
        "SCD − MoCo": ("scd", "moco"),
        "true mask − MoCo": (ORACLE.name, "moco"),
        "MoCo − random": ("moco", RANDOM.name),
        "SCD-BYOL − BYOL": ("scd_byol", "byol"),
        "SCD-DINO − DINO": ("scd_dino", "dino"),
    }
    for metric in metrics:
        row = {"protocol": PROTOCOLS[metric].removeprefix("the ")}
        for heading, pair in pairs.items():
            row[heading] = tables.difference_cell(metric, compare(results, *pair, metric), results, notes)
        rows.append(row)
    return tables.Table(pandas.DataFrame(rows), [*notes.lines, *tables.interval_note(results)], tuple(metrics))


@dataclass(frozen=True)
class Order:
    """The self-supervised arms by one protocol, each pair of them compared once.

    Attributes:
        arms: those that have finished runs.
        outcomes: of a pair of them, "better" or "worse" where its paired interval excludes 0.
    """

    arms: tuple[str, ...]
    outcomes: Mapping[tuple[str, str], str]

    @classmethod
    def by(cls, results: Results, metric: str) -> "Order":
        """By the number that stands for a protocol."""
        arms = tuple(arm for arm in RANKED if len(results.of(arm)))
        return cls(arms, {pair: outcome_of(compare(results, *pair, metric), 0.0) for pair in combinations(arms, 2)})

    @property
    def places(self) -> dict[str, int]:
        """Place of each arm: one more than the arms that are better; arms that no interval resolves share one."""
        places = dict.fromkeys(self.arms, 1)
        for (first, second), outcome in self.outcomes.items():
            if outcome in (BETTER, WORSE):
                places[second if outcome == BETTER else first] += 1
        return places

    def resolved(self, other: "Order") -> tuple[int, int]:
        """Pairs whose order this protocol and another one resolve: how many alike, and how many the other way round."""
        both = [
            (outcome, other.outcomes[pair])
            for pair, outcome in self.outcomes.items()
            if {outcome, other.outcomes.get(pair)} <= {BETTER, WORSE}
        ]
        same = sum(one == two for one, two in both)
        return same, len(both) - same


def rankings(section: Blocks, orders: Mapping[str, Order], labels: Mapping[str, str]) -> None:
    """The places of the arms by every protocol."""
    found = {metric: order.places for metric, order in orders.items()}
    rows = [
        {"arm": labels[arm], **{COLUMNS[metric]: str(found[metric].get(arm, tables.NONE)) for metric in orders}}
        for arm in RANKED
        if arm in labels
    ]
    section.table(tables.Table(pandas.DataFrame(rows)))
    section.text(
        "Place 1 + the number of self-supervised arms that are better by a paired 95 % interval, not corrected. Equal "
        "places are ties; with few seeds there are many. DINO, SCD-DINO and MAE train a ViT by recipes of their own."
    )


def order_of(results: Results, metric: str) -> dict[int, dict[str, float]]:
    """Seed -> arm -> the metric, of the self-supervised arms."""
    values: dict[int, dict[str, float]] = {}
    for arm in RANKED:
        done = results.of(arm)
        for seed, value in by_seed(done, metric).items() if len(done) else ():
            values.setdefault(seed, {})[arm] = value
    return values


def taus(results: Results, one: str, other: str) -> list[float]:
    """Kendall's tau-b between two protocols, of the arms of each seed that has three of them or more."""
    first, second, found = order_of(results, one), order_of(results, other), []
    for seed in sorted(set(first) & set(second)):
        arms = [arm for arm in first[seed] if arm in second[seed]]
        if len(arms) > 2:
            tau = kendalltau([first[seed][arm] for arm in arms], [second[seed][arm] for arm in arms]).statistic
            found += [] if numpy.isnan(tau) else [float(tau)]
    return found


def agreements(results: Results, metrics: list[str]) -> pandas.DataFrame:
    """Mean over seeds of Kendall's tau between every two protocols; 1 of a protocol with itself."""
    frame = pandas.DataFrame(1.0, [COLUMNS[each] for each in metrics], [COLUMNS[each] for each in metrics])
    for one, other in combinations(metrics, 2):
        found = taus(results, one, other)
        value = sum(found) / len(found) if found else float("nan")
        frame.loc[COLUMNS[one], COLUMNS[other]] = frame.loc[COLUMNS[other], COLUMNS[one]] = value
    return frame


def agreement_table(section: Blocks, results: Results, orders: Mapping[str, Order]) -> None:
    """Agreement of each protocol with the linear probe: over seeds, and of pairs of arms that both resolve."""
    rows = []
    for metric in (each for each in orders if each != REFERENCE and REFERENCE in orders):
        found = estimate(taus(results, REFERENCE, metric))
        same, reverse = orders[REFERENCE].resolved(orders[metric])
        known = found.half is not None
        rows.append(
            {
                "protocol": PROTOCOLS[metric].removeprefix("the "),
                "τ with the linear probe": tables.NONE if found.mean is None else f"{found.mean:.2f}",
                "95 % interval": f"[{found.mean - found.half:.2f}, {found.mean + found.half:.2f}]" if known
                else tables.NONE,
                "pairs that both resolve": str(same + reverse),
                "of them reversed": str(reverse),
            }
        )  # fmt: skip
    if rows:
        section.table(tables.Table(pandas.DataFrame(rows)))
        section.text(
            "Intervals are over seeds. A pair of arms is resolved by a protocol if its paired 95 % interval excludes 0."
        )


def ranking_sentence(orders: Mapping[str, Order], agreement: pandas.DataFrame) -> str:
    """Whether the ranking of the self-supervised arms depends on the protocol, in one paragraph."""
    others, heading = [metric for metric in orders if metric != REFERENCE], COLUMNS[REFERENCE]
    own = agreement.loc[heading].drop(heading).dropna() if REFERENCE in orders else agreement.iloc[0:0]
    if own.empty:
        return "**Does the ranking depend on the protocol?** It is not known yet."
    counted = [orders[REFERENCE].resolved(orders[metric]) for metric in others]
    both, reverse = sum(sum(pair) for pair in counted), sum(pair[1] for pair in counted)
    name = {heading: PROTOCOLS[metric] for metric, heading in COLUMNS.items()}
    return (
        "**Does the ranking depend on the protocol?** Against the linear probe, Kendall's τ of the self-supervised "
        f"arms lies between {own.min():.2f} ({name[own.idxmin()]}) and {own.max():.2f} ({name[own.idxmax()]}), mean "
        f"over seeds. Of {notation.quantity(both)} pairs of arms that the linear probe and another protocol both "
        f"resolve, {reverse} have the reverse order."
    )


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    return {
        "Settings of the arms": "each arm has its own recipe, tuned for none; DINO, SCD-DINO and MAE train the tier's "
        "ViT, so a difference from the other arms is also one of backbones",
        "Fine-tuning": "fewer passes and learning rates than in the papers, so that the page takes minutes; see the "
        "definitions of its numbers",
        **correlation_lines(results),
    }


DEVIATIONS = (
    "Scale: small networks on small images; the paper's table has a ResNet-50 on ImageNet.",
    "SCD is a reconstruction (`scd/scd.py`).",
)

STUDY = Study(
    name="protocols",
    question_ids=("R3-b",),
    question="Table 1 has only linear probing: what do other protocols say, and does the ranking depend on them?",
    title="Does the answer depend on the protocol?",
    arms=ARMS,
    contrasts=CONTRASTS,
    control=CLAIMS[1].controls,
    primary=CONTRASTS[1].name,
    claims=CLAIMS,
    looks=(5,),
    plan=plan,
    sections=sections,
    deviations=DEVIATIONS,
    notes=notes,
)
