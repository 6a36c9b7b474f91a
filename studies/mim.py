"""R4-a: masked image modelling has moved on. What is the advantage over MAE?

MAE, DINO, SCD-DINO and SCD-MoCo on one ViT, at equal epochs and at equal training FLOPs; MoCo by ``arms=all``. They are
compared by each protocol on its own, because the published answer depends on it: MAE is behind in linear probing and
ahead in fine-tuning. MAE is cheap: it encodes a quarter of the patches of one view. At equal FLOPs it therefore sees
several times as many images, and the claims are made there.

A positive control asks whether the MAE of this page behaves as published: with 75 % of the patches masked it has to be
better than with 25 %. The true mask in SCD's place is no control here, because the claims are about whole methods and
not about the separation; ``dino_vit`` asks for that.

To stay within 20 minutes, the tier cpu has half of the epochs of DINO's recipe, one learning rate of fine-tuning for
all arms, and fine-tuning at equal FLOPs alone (``axes.finetuned``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas

from scd.errors import unknown
from studies import dino_vit
from studies.references import LONGER, RANDOM, background_correlation, chosen_arms, correlation_lines
from studies.suite.analysis import notation, tables
from studies.suite.analysis.comparison import compare
from studies.suite.analysis.conditions import BUDGET_WORDS, conditions, cross_conditions, planned_there, title, words
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import select
from studies.suite.analysis.verdict import BETTER, SUPPORTED, WORSE, outcome_of
from studies.suite.pages import sections as standard
from studies.suite.pages import study_figures
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Claim, Contrast, RunSpec, Study, contrast_factory, merge

LINEAR, SESOI = "linear_top1", 0.01  # one point
AXES = {  # the number that stands for each protocol, and how a sentence names it
    LINEAR: "linear probing",
    "knn_top1": "kNN",
    "finetune_top1": "fine-tuning with all labels",
    "labels10_top1": "fine-tuning with 10 % of the labels",
    "labels1_top1": "fine-tuning with 1 % of the labels",
    "scene_miou_linear": "segmenting scenes",
}
COSTS = {
    "parameters_trained": "parameters",
    "parameters_backbone": "of these in the ViT",
    "flops_per_step": "FLOPs per step",
    "steps": "steps",
    "epochs": "epochs",
    "total_flops": "training FLOPs",
    "seconds_pretrain": "time (s)",
}
FINE_TUNING = "scd.evaluation.finetune.FineTune"
COLLAPSE = ("effective_rank", "feature_std")
AT_FLOPS = {"budget": "flops"}

BY_NAME = {arm.name: arm for arm in dino_vit.ARMS}
DINO, SCD = BY_NAME["dino"], BY_NAME["scd"]  # SCD-DINO: its epochs are those of all, and its training FLOPs
MOCO, SCD_MOCO = BY_NAME["moco"], replace(BY_NAME["scd_moco"], default=True)
MAE = Arm("mae", "MAE", {"method": "mae"}, "ViT", "one view; 75 % of its patches are masked and predicted, no pairs")
FEW_MASKED = Arm(
    "mae_25", "MAE, 25 % masked", {"method": {"preset": "mae", "mask_ratio": 0.25}}, "all of MAE",
    "25 % of the patches are masked",
)  # fmt: skip
ARMS = (RANDOM, DINO, SCD, MOCO, SCD_MOCO, MAE, FEW_MASKED)
LABELS = {arm.name: arm.label for arm in ARMS}
OF_MOCO, OF_MAE = (MOCO.name, SCD_MOCO.name), (MAE.name, FEW_MASKED.name)
IN_BOTH = (RANDOM.name, DINO.name, SCD.name)  # one run in both budgets
HOST_OF = {SCD.name: DINO.name, SCD_MOCO.name: MOCO.name}


# -------------------------------------------------------------------- contrasts and claims


def contrast(metric: str, treatment: str, control: str, claim: str, remedy: str = "") -> Contrast:
    """A contrast by one protocol at equal training FLOPs, named by the protocol too."""
    made = contrast_factory(metric, SESOI, claim)(treatment, control, claim, AT_FLOPS)
    return replace(made, name=f"{treatment}-{control}, {metric}", remedy=remedy)


def better(metric: str, treatment: str, control: str) -> Contrast:
    """The contrast that says that one arm is better than another by a protocol."""
    return contrast(
        metric, treatment, control, f"{LABELS[treatment]} is better than {LABELS[control]} in {AXES[metric]}"
    )


def learns(metric: str, arm: str) -> Contrast:
    """The positive control that the training of an arm can be seen by a protocol."""
    text = f"{LABELS[arm]} is better than {LABELS[RANDOM.name]} in {AXES[metric]}"
    return contrast(metric, arm, RANDOM.name, text, LONGER)


MASKING = contrast(
    LINEAR, MAE.name, FEW_MASKED.name, "MAE is better in linear probing with 75 % of the patches masked than with 25 %",
    f"{LONGER}, more patches (`sizes.crop`, `sizes.vit.patch`), or larger networks (`sizes.vit`)",
)  # fmt: skip
OF_MAE_ITSELF = (learns(LINEAR, MAE.name), MASKING)


def claim_of(metric: str, scd: str) -> Claim:
    """SCD on one host is better than MAE by one protocol, with the controls of both sides.

    That training can be seen by the protocol is shown by DINO, whatever the host: MoCo is run where it is asked for.
    """
    declared = better(metric, scd, MAE.name)
    text = f"at equal training FLOPs {LABELS[scd]} is better than MAE in {AXES[metric]}"
    name = AXES[metric] if AXES[metric] == "kNN" else AXES[metric].capitalize()
    asked = f"{name}: {LABELS[scd]}?"
    return Claim(text, (declared,), asked, (learns(metric, DINO.name), *OF_MAE_ITSELF))


CLAIMS = (
    *(claim_of(metric, scd) for scd in HOST_OF for metric in AXES),
    Claim(MASKING.claim, (MASKING,), "Does the MAE of this page behave as published?", OF_MAE_ITSELF[:1]),
)
COMPARED = tuple(better(metric, arm, MAE.name) for metric in AXES for arm in (*HOST_OF, *HOST_OF.values()))
ADDED = tuple(better(metric, scd, host) for metric in AXES for scd, host in HOST_OF.items())
SEEN = tuple(learns(metric, arm) for metric in AXES for arm in (DINO.name, MOCO.name, MAE.name))
CONTRASTS = (*COMPARED, *ADDED, *SEEN, MASKING)


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """All arms in each budget that is asked for, seed by seed."""
    asked = settings.axes.get("budgets", BUDGET_WORDS)
    for budget in asked:
        if budget not in BUDGET_WORDS:
            raise unknown("budget (axes.budgets)", budget, BUDGET_WORDS)
    budgets, arms = [budget for budget in BUDGET_WORDS if budget in asked], chosen_arms(settings, ARMS)
    return [run(settings, arm, seed, budget) for seed in settings.seeds for budget in budgets for arm in arms]


def run(settings: Settings, arm: Arm, seed: int, budget: str) -> RunSpec:
    """One run. DINO, SCD-DINO and random weights are the same run in both budgets: two labels of one configuration."""
    unit = "none" if arm is RANDOM else "epochs" if arm.name in IN_BOTH else budget
    own = replace(arm, overrides=merge(like_dino(settings, arm), arm.overrides))
    spec = settings.spec(own, seed, unit, reference=SCD, overrides=background_correlation(settings))
    if arm is FEW_MASKED or budget not in settings.axes["finetuned"]:
        protocols = spec.config["evaluation"]["protocols"]
        spec = spec.with_protocols([each for each in protocols if each["_target_"] != FINE_TUNING])
    return replace(spec, labels={**spec.labels, "budget": budget})


def like_dino(settings: Settings, arm: Arm) -> dict[str, Any]:
    """What an arm takes from DINO: MoCo all but its method and the local views, MAE the ViT."""
    if arm.name in OF_MOCO:
        return dino_vit.like_dino(settings)
    if arm.name in OF_MAE:  # whose own recipe names a larger ViT on the tier paper
        dino = settings.configure(DINO, settings.seeds[0])["backbone"]
        return {"backbone": {**dino, "weight_init": "jax", "drop_path_rate": 0.0}}  # both as in the official code
    return {}


# -------------------------------------------------------------------- page


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, labels, out = report.results, report.labels, report.out
    found, metrics = conditions(results, ("budget",)), [metric for metric in AXES if results.has(metric)]
    main = LINEAR if results.has(LINEAR) or not metrics else metrics[0]
    beside = [*CONTRASTS, *cross_conditions((*COMPARED, MASKING), [each for each in found if each != AT_FLOPS])]
    beside = [each for each in planned_there(beside, results) if each.metric in measured(results, each.conditions)]
    verdicts = report.judge_claims(beside=beside)
    first = AT_FLOPS if AT_FLOPS in found or not found else found[0]
    lines = (as_published(verdicts[-1].outcome), direction_sentence(results, first), cost_sentence(results))
    report.say(*filter(None, (*lines, shares_sentence(results))))
    drawn = [each for each in beside if each.metric == main and each.control == MAE.name]
    report.show(
        gains(results, measured(results, first), first),
        f"Paired differences in points, at {words(first)}, with 95 % t intervals, not corrected.",
        study_figures.differences(results, drawn, report.names, out),
    )
    for condition in found:
        if condition != first:
            section = report.section(f"The same at {words(condition)}")
            section.table(gains(results, measured(results, condition), condition))
    accuracy = report.section("Every arm by every protocol")
    for condition in found:
        accuracy.heading(title(condition))
        accuracy.table(tables.arm_table(results, labels, measured(results, condition), **condition))
    accuracy.figure(study_figures.seeds(results, labels, main, out, reference=MAE.name))
    cost = report.section("Cost of the training")
    cost.table(cost_table(results, labels))
    cost.text(
        "FLOPs count 2 per multiply-add, forward and backward pass, the momentum network included. Parameters are "
        "those that are trained; MAE's decoder and the heads of the others are not used afterwards. Times are means "
        "over seeds, measured while other runs shared the machine."
    )
    cost.figure(study_figures.cost(results, labels, main, out, shared=IN_BOTH))
    published = report.section("Published numbers, quoted")
    published.table(quoted(results, first))
    published.text(
        "None of the published numbers was measured here; they come from ImageNet, other networks and hundreds of "
        f"epochs, so that their direction alone is compared. Differences here are at {words(first)}."
    )
    standard.indicators(
        report.section("Collapse"), results, labels, COLLAPSE, "Indicators of collapse, of features.", found
    )  # fmt: skip


def measured(results: Results, condition: Mapping[str, Any]) -> list[str]:
    """The metrics of the protocols that MAE has finished in a budget; all of them where none has finished."""
    done = select(results.finished, arm=MAE.name, **condition)
    return [metric for metric in AXES if done.empty or (metric in done and done[metric].notna().any())]


def gains(results: Results, metrics: Sequence[str], condition: Mapping[str, Any]) -> tables.Table:
    """Every arm minus MAE, and MAE minus random weights, by each protocol."""
    notes, rows = tables.Notes(), []
    pairs = [(arm, MAE.name) for arm in (*HOST_OF, *HOST_OF.values())] + [(MAE.name, RANDOM.name)]
    pairs = [pair for pair in pairs if set(pair) <= set(results.about["arms"])]
    for metric in metrics:
        row = {"protocol": AXES[metric]}
        for treatment, control in pairs:
            found = compare(results, treatment, control, metric, **condition)
            row[f"{LABELS[treatment]} − {LABELS[control]}"] = tables.difference_cell(metric, found, results, notes)
        rows.append(row)
    return tables.Table(pandas.DataFrame(rows), [*notes.lines, *tables.interval_note(results)], tuple(metrics))


def as_published(outcome: str) -> str:
    """A warning where the MAE of the page is not known to behave as published; empty where it does."""
    if outcome == SUPPORTED:
        return ""
    return (
        "**On MAE.** This page has not shown that its MAE behaves as published (75 % of the patches masked better than "
        "25 %). A claim that is supported all the same is one about this MAE, and says nothing of a well-trained one."
    )


def shares_sentence(results: Results) -> str:
    """How much of the difference from MAE is SCD's, and how much its host's, in linear probing."""
    parts = []
    for scd, host in HOST_OF.items():
        pairs = ((scd, MAE.name), (host, MAE.name), (scd, host))
        found = [compare(results, *pair, LINEAR, **AT_FLOPS) for pair in pairs if results.has(LINEAR)]
        if found and all(each.n for each in found):
            whole, own, added = (notation.amount(results.metric(LINEAR), each) for each in found)
            parts.append(f"{LABELS[scd]} minus MAE is {whole}; {LABELS[host]} alone gives {own}, SCD adds {added}")
    return f"**What of it is SCD's?** In linear probing, {'. '.join(parts)}." if parts else ""


# -------------------------------------------------------------------- cost


def cost_sentence(results: Results) -> str:
    """The verdict on cost: what an image costs in the training of MAE and of SCD-DINO, and what equal FLOPs buy."""
    at_epochs, at_flops = (
        {arm: costs(select(results.finished, arm=arm, budget=budget)) for arm in (MAE.name, SCD.name)}
        for budget in BUDGET_WORDS
    )
    mae, scd = at_epochs[MAE.name] or at_flops[MAE.name], at_epochs[SCD.name] or at_flops[SCD.name]
    if not mae or not scd:
        return ""
    ratio = scd["image"] / mae["image"]
    cheaper = f"MAE is the cheaper, by a factor of {ratio:.1f}" if ratio > 1 else "MAE is not the cheaper"
    text = (
        f"**Cost:** {cheaper}: training on an image takes {notation.quantity(mae['image'])}FLOP, and "
        f"{notation.quantity(scd['image'])}FLOP with SCD-DINO"
    )
    long = at_flops[MAE.name]
    if long:
        text += f"; for the FLOPs of SCD-DINO's {scd['epochs']:.3g} epochs MAE trains {long['epochs']:.3g}"
    return f"{text}."


def costs(runs: pandas.DataFrame) -> dict[str, float]:
    """Training FLOPs of a source image, and epochs, means over some finished runs; {} where they are not recorded."""
    needed = ["total_flops", "images_seen", "epochs"]
    if runs.empty or not set(needed) <= set(runs) or not (runs["images_seen"] > 0).all():
        return {}
    return {"image": float((runs["total_flops"] / runs["images_seen"]).mean()), "epochs": float(runs["epochs"].mean())}


def cost_table(results: Results, labels: Mapping[str, str]) -> tables.Table:
    """Parameters, FLOPs of a step and of the whole training, and time, of each trained arm in each budget."""
    rows, done = [], results.finished
    for budget in results.levels("budget"):
        whole = select(done, arm=MAE.name, budget=budget)["total_flops"].mean() if len(done) else float("nan")
        for arm, label in labels.items():
            runs = select(done, arm=arm, budget=budget)
            if arm == RANDOM.name or runs.empty:
                continue
            row = {"budget": BUDGET_WORDS[budget], "arm": label}
            for column, heading in COSTS.items():
                values = runs[column].dropna() if column in runs else ()
                row[heading] = notation.quantity(values.mean()) if len(values) else tables.NONE
            relative = runs["total_flops"].mean() / whole
            row["training FLOPs / MAE's"] = tables.NONE if pandas.isna(relative) else f"{relative:.2f}"
            rows.append(row)
    return tables.Table(pandas.DataFrame(rows))


# -------------------------------------------------------------------- published


@dataclass(frozen=True)
class Quote:
    """What publications say of MAE beside DINO or MoCo by one protocol.

    Attributes:
        text: the numbers; source: where they stand.
        other_is_better: whether DINO or MoCo is better there; None where no number of both was found.
    """

    text: str
    source: str = ""
    other_is_better: bool | None = None


PUBLISHED = {
    LINEAR: Quote(
        "ImageNet, ViT-B/16: DINO 78.2, MAE 68.0", "DINO (arXiv 2104.14294), Table 2; MAE's README and paper "
        "(arXiv 2111.06377)", True,
    ),
    "knn_top1": Quote("ImageNet, ViT-B/16: DINO 76.1; of MAE no number was found", "DINO, Table 2"),
    "finetune_top1": Quote(
        "ImageNet, ViT-B: from random weights 82.3, DINO 82.8, MoCo v3 83.2, MAE 83.6", "MAE, Table 3", False
    ),
    "labels10_top1": Quote("no number of both was found"),
    "labels1_top1": Quote(
        "ImageNet, 1 % of the labels, fine-tuned or probed, whichever is better: DINO with ViT-B/8 70.0, MAE with "
        "ViT-L/16 67.1", "I-JEPA (arXiv 2301.08243), Table 2", True,
    ),
    "scene_miou_linear": Quote(
        "ADE20K mIoU, ViT-B, fine-tuned with UperNet: MoCo v3 47.3, MAE 48.1; here the network is frozen",
        "MAE, Table 5", False,
    ),
}  # fmt: skip
RATIOS = Quote(
    "ImageNet linear top-1, ViT-L: 58.9 with 20 % masked, 61.7 with 30 %, 73.5 with 75 %; fine-tuned 83.4, 83.4 and "
    "84.9", "MAE, Figure 5",
)  # fmt: skip


def quoted(results: Results, condition: Mapping[str, Any]) -> tables.Table:
    """The published direction by each protocol, beside the one that was found here."""
    notes, rows = tables.Notes(), []
    for metric, quote in PUBLISHED.items():
        known = quote.other_is_better is not None
        row = {
            "protocol": AXES[metric],
            "published": quote.text,
            "from": quote.source or tables.NONE,
            "better, as published": ("DINO or MoCo" if quote.other_is_better else "MAE") if known else tables.NONE,
        }
        for arm in (arm for arm in HOST_OF.values() if arm in results.about["arms"]):
            found = compare(results, arm, MAE.name, metric, **condition) if results.has(metric) else None
            cell = tables.difference_cell(metric, found, results, notes) if found else notes.dash("not measured")
            row[f"{LABELS[arm]} − MAE here"] = cell
            row[f"{LABELS[arm]}: as published?"] = direction(results, arm, metric, condition) or tables.NONE
        rows.append(row)
    return tables.Table(pandas.DataFrame(rows), notes.lines)


def direction(results: Results, arm: str, metric: str, condition: Mapping[str, Any]) -> str:
    """ "yes" or "no" where a difference from MAE has a known and a published direction, else its outcome, or ""."""
    other_is_better = PUBLISHED[metric].other_is_better
    found = compare(results, arm, MAE.name, metric, **condition) if results.has(metric) else None
    if other_is_better is None or found is None or not found.n:
        return ""
    outcome = outcome_of(found, SESOI)
    return ("yes" if (outcome == BETTER) == other_is_better else "no") if outcome in (BETTER, WORSE) else outcome


def direction_sentence(results: Results, condition: Mapping[str, Any]) -> str:
    """Where DINO's difference from MAE has the published direction, and where the reverse one."""
    found: dict[str, list[str]] = {}
    for metric in PUBLISHED:
        found.setdefault(direction(results, DINO.name, metric, condition), []).append(AXES[metric])
    if not {"yes", "no"} & set(found):
        return ""
    told = {"yes": "has the published direction", "no": "has the reverse of the published direction"}
    parts = [f"{text} in {' and '.join(found[key])}" for key, text in told.items() if key in found]
    warning = (
        " What is reversed is known of long trainings of large networks; a training as short as this one may not show "
        "it, so that no answer here holds for them."
    )
    return f"**As published?** DINO minus MAE {', and '.join(parts)}.{warning if 'no' in found else ''}"


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    return {
        "Equal training FLOPs": (
            "every arm takes as many steps as cost the forward and backward FLOPs of SCD-DINO's training, and its "
            "learning-rate schedule ends there. DINO, whose step costs little less than SCD-DINO's, and random weights "
            "are the same runs in both budgets"
        ),
        "The check of MAE": (
            f"published: {RATIOS.text} ({RATIOS.source}), at equal epochs. Here both also have equal FLOPs where the "
            "claims are made, for which the arm with 25 % masked trains fewer epochs"
        ),
        "Settings of the arms": (
            "MAE has its own optimiser settings, views and initial weights, and DINO's epochs; SCD-MoCo has DINO's "
            "optimiser, schedule and global views. None was tuned for one arm. Random weights are DINO's"
        ),
        **correlation_lines(results),
    }


DEVIATIONS = (
    "Scale: a small ViT on small images for a few epochs. MAE is published for ViT-B and larger after 800 epochs and "
    "more, and still improves with longer training.",
    "Fine-tuning: SGD for a few passes with learning rates from a short list; MAE fine-tunes for 100 epochs by AdamW "
    "with a decay of the rate over layers, mixing of images and stochastic depth.",
    "On the tier `paper` MAE trains DINO's ViT-S/16 for DINO's epochs; its paper's smallest network is a ViT-B.",
    "Segmentation: a linear classifier on frozen features of generated scenes; the published numbers are of networks "
    "that are fine-tuned with a decoder for segmentation.",
    "MoCo on the ViT keeps MoCo v2's queue and head, without MoCo v3's batch-norm heads and in-batch negatives.",
    "SCD is a reconstruction (`scd/scd.py`); on a ViT its feature map is the patch tokens after the final norm.",
)

STUDY = Study(
    name="mim",
    question_ids=("R4-a",),
    question="Masked image modelling (MAE) has moved on: what is the advantage over it?",
    title="What is the advantage over masked image modelling?",
    arms=ARMS,
    contrasts=CONTRASTS,
    control=CLAIMS[0].controls,
    primary=COMPARED[0].name,
    claims=CLAIMS,
    looks=(5,),
    plan=plan,
    sections=sections,
    deviations=DEVIATIONS,
    notes=notes,
)
