"""The model card of an exported backbone: README.md in Hugging Face's form, with its facts as YAML front matter.

The card is made of plain values (:class:`Facts`); what is not known is said in its own section. The front matter is
written by ``huggingface_hub``: ``license``, ``library_name``, ``tags``, the numbers as ``model-index``, and the same
facts as the text under ``scd_suite``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from scd.export.loading import how_to_load

TASK = "image-feature-extraction"
TAG = "scd-suite"
LIBRARIES = {"suite": "scd-suite", "torchvision": "torchvision", "timm": "timm", "detectron2": "detectron2"}
UNKNOWN_LICENCE = "not known: nobody has stated under which terms the images may be used"


@dataclass(frozen=True)
class Score:
    """One number of an evaluation.

    Args:
        protocol, images: names of the protocol and of the images that it used.
        name: of the number in the records; label, unit, definition: of its metric.
        is_scored: whether higher or lower is better, in contrast to counts and settings.
        evaluation: id of the evaluation; commit: of the code that made it, "" where it is not known.
    """

    protocol: str
    images: str
    name: str
    label: str
    unit: str
    value: float
    definition: str
    is_scored: bool
    evaluation: str
    commit: str = ""


@dataclass(frozen=True)
class Facts:
    """What a card says. An empty text, and None, mean that it is not known.

    Args:
        run: id of the pretraining; seed: of it; commit: of the code that trained it; is_uncommitted: whether that code
            had changes that the commit does not have.
        backbone: its name; builder, options: what built it, see :mod:`scd.export.hub`; parameters: how many.
        is_small: whether a ResNet has the stem for small images.
        method, wrapper: names of the classes, "" for no wrapper; supervision: what they and their annotations learn
            from; earlier: names of earlier runs that the method uses.
        data: the title of the training images; images: what they are, in one sentence; licence: of the images.
        is_embedded: whether the suite drew the images itself.
        budget: how long it was trained, in one sentence; is_trained: False for random weights; recipe: how, likewise.
        numerics: the numerics class and what makes it; libraries: name -> version.
        scores: of the finished evaluations of this run.
    """

    run: str
    backbone: str
    builder: str
    options: Mapping[str, Any]
    parameters: int
    is_small: bool
    method: str
    wrapper: str
    supervision: str
    data: str
    images: str
    licence: str
    is_embedded: bool
    budget: str
    is_trained: bool
    recipe: str
    numerics: str
    commit: str
    is_uncommitted: bool | None
    seed: int | None
    libraries: Mapping[str, str] = field(default_factory=dict)
    earlier: Sequence[str] = ()
    scores: Sequence[Score] = ()

    @property
    def trained_as(self) -> str:
        """Method and wrapper in words."""
        return f"{self.wrapper} around {self.method}" if self.wrapper else self.method

    @property
    def is_free(self) -> bool:
        """Whether all that the weights were made of is the suite's own."""
        return self.is_embedded and not self.options.get("weights")


def model_card(facts: Facts, naming: str, files: Sequence[str]) -> str:
    """The text of README.md.

    Args:
        naming: whose names the weights have, see :mod:`scd.export.backbone`.
        files: names of the other files in the folder.
    """
    scores = sorted(facts.scores, key=lambda score: (score.protocol, score.images, score.evaluation, score.name))
    parts = [
        f"---\n{front_matter(facts, naming, scores)}\n---",
        f"# {facts.trained_as}, {facts.backbone}, run {facts.run}",
        opening(facts),
        "## How to load it",
        how_to_load(naming, facts.builder, facts.options, facts.is_small, files),
        "## How it was trained",
        "\n".join(f"- **{name}:** {text}" for name, text in trained(facts).items()),
        "## What was measured",
        measured(scores),
        "## What is not known",
        "\n".join(f"- {line}" for line in not_known(facts, scores)),
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(facts: Facts, naming: str, scores: Sequence[Score]) -> str:
    """The YAML of the card. Counts, settings and numbers that are not finite are left to the text."""
    names = [name.lower() for name in (facts.method, facts.wrapper) if name]
    content: dict[str, Any] = {
        "license": "mit" if facts.is_free else "unknown",
        "library_name": LIBRARIES[naming],
        "pipeline_tag": TASK,
        "tags": [TAG, "self-supervised-learning", *names],
    }
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=score.images.lower().replace(" ", "-"),
            dataset_name=score.images,
            metric_type=score.name,
            metric_name=f"{score.label} ({score.protocol})",
            metric_value=score.value,
            metric_args={"protocol": score.protocol, "evaluation": score.evaluation},
        )
        for score in scores
        if score.is_scored and math.isfinite(score.value)
    ]
    if results:
        content |= {"model_name": f"{facts.backbone}-{facts.run}", "eval_results": results}
    own = {
        "run": facts.run,
        "commit": facts.commit or None,
        "uncommitted_changes": facts.is_uncommitted,
        "seed": facts.seed,
        "data": facts.data,
        "licence_of_the_images": facts.licence or None,
        "method": facts.method,
        "wrapper": facts.wrapper or None,
        "supervision": facts.supervision or None,
        "backbone": facts.backbone,
        "backbone_options": dict(facts.options),
        "weights_named_as_in": naming,
        "budget": facts.budget or None,
        "numerics": facts.numerics or None,
    }
    return ModelCardData(**content, scd_suite=own).to_yaml()


def opening(facts: Facts) -> str:
    """The first paragraph."""
    what = (
        f"The backbone `{facts.backbone}` ({facts.parameters:,} parameters) after pretraining by {facts.trained_as} on "
        f"`{facts.data}`."
        if facts.is_trained
        else f"The backbone `{facts.backbone}` ({facts.parameters:,} parameters) with random weights: the run is the "
        f"untrained reference of its study, and {facts.trained_as} has not trained it."
    )
    return (
        f"{what} It is one run of an experiment, one seed of one arm, and not a model that was selected or tuned for "
        "use. It has no classifier."
    )


def trained(facts: Facts) -> dict[str, str]:
    """The facts of the training, by their names."""
    options = ", ".join(f"{name}={value}" for name, value in facts.options.items() if name != "name")
    found = {
        "Data": facts.images,
        "Licence of the images": facts.licence or UNKNOWN_LICENCE,
        "Method": facts.method,
        "Wrapper": facts.wrapper or "none",
        "Supervision": facts.supervision or "not recorded",
        "Backbone": f"{facts.backbone} ({options})" if options else facts.backbone,
        "Budget": facts.budget or "not recorded",
        "Recipe": facts.recipe,
        "Numerics class": facts.numerics or "not recorded",
        "Run": f"`{facts.run}`, seed {'not recorded' if facts.seed is None else facts.seed}",
        "Commit": commit(facts),
    }
    if facts.options.get("weights"):
        found["Initial weights"] = str(facts.options["weights"])
    if facts.earlier:
        found["Earlier runs"] = f"it uses {', '.join(facts.earlier)}"
    if facts.libraries:
        found["Libraries"] = ", ".join(f"{name} {version}" for name, version in facts.libraries.items())
    return found


def commit(facts: Facts) -> str:
    """The code that trained the run."""
    if not facts.commit:
        return "not recorded"
    changes = {True: ", with changes that were not committed", False: ", without further changes", None: ""}
    return f"`{facts.commit}`{changes[facts.is_uncommitted]}"


def measured(scores: Sequence[Score]) -> str:
    """The numbers as a table, and their definitions."""
    if not scores:
        return "No finished evaluation of this run is stored."
    rows = ["| protocol | images | number | value | unit | evaluation |", "|---|---|---|---:|---|---|"]
    rows += [
        f"| {score.protocol} | {cell(score.images)} | {cell(score.label)} (`{score.name}`) | {score.value:.4g} | "
        f"{cell(score.unit)} | `{score.evaluation}` |"
        for score in scores
    ]
    definitions = {score.name: f"- `{score.name}`: {score.definition}" for score in scores if score.definition}
    return "\n".join(
        [
            "From the finished evaluations of this run in its store; each is one measurement of one run, and says "
            "nothing about the spread over seeds.",
            "",
            *rows,
            "",
            *definitions.values(),
        ]
    ).strip()


def cell(text: str) -> str:
    """A text inside a table."""
    return text.replace("|", "\\|")


def not_known(facts: Facts, scores: Sequence[Score]) -> list[str]:
    """What the record of the run does not say."""
    lines = []
    if not facts.is_embedded:
        lines.append(
            "The licence of these weights: it depends on the terms of the images."
            if facts.licence
            else "The licence of the images, and so that of these weights."
        )
    if facts.options.get("weights"):
        lines.append(f"The licence of the initial weights ({facts.options['weights']}), and what they were trained on.")
    if not facts.commit:
        lines.append("The commit of the code that trained it: the suite did not run in a checkout of its repository.")
    elif facts.is_uncommitted is not False:
        lines.append("The exact code: it may have had changes that no commit has.")
    if not facts.numerics:
        lines.append("The numerics class of the machine.")
    if not facts.budget:
        lines.append("How long it was trained.")
    if facts.earlier:
        lines.append(f"The ids of the earlier runs that it uses ({', '.join(facts.earlier)}): its record has none.")
    if other := sorted({score.evaluation for score in scores if score.commit != facts.commit}):
        ids = ", ".join(f"`{each}`" for each in other)
        lines.append(f"Whether other code would give other numbers: evaluations of another commit are {ids}.")
    if not scores:
        lines.append("How good its features are: no protocol has been run on it.")
    lines.append("How it behaves on other images than those of the table.")
    return lines
