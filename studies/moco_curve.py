"""Does the engine reproduce a published training curve: MoCo's official CIFAR-10 demo, epoch by epoch?

One arm with the demo's settings, on CIFAR-10 alone. Its loss and its kNN accuracy stand beside those of two public
runs. A sign of the right dynamics needs few epochs: the loss rises until epoch 3, while the queue fills with keys that
are harder than random ones, and falls from then on.
"""

import math
from typing import TYPE_CHECKING, Any

import pandas

from scd.errors import DataError
from scd.evaluation.metric import Metric
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import estimate, quantile
from studies.suite.analysis.tables import Table
from studies.suite.pages import map_figures
from studies.suite.pages.markdown import Picture
from studies.suite.pages.publish import Report
from studies.suite.pages.study_figures import colours_of
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, RunSpec, Study

if TYPE_CHECKING:
    from scd.data.sources.source import Source

SIDE, IMAGES, CLASSES = 32, 50_000, 10  # of CIFAR-10
LOSS, KNN = "loss", "knn_over_training"
OFFICIAL, SECOND, OURS = "official log", "second public run", "this engine"
# epoch -> mean loss of the epoch, kNN top-1 after it in percent
PUBLIC = {
    OFFICIAL: {  # printed in the notebook of facebookresearch/moco, branch colab-notebook
        1: (6.957, 31.98), 2: (7.250, 33.52), 3: (7.290, 34.71), 4: (7.099, 36.98), 5: (6.862, 37.95),
        10: (5.991, 48.03), 20: (4.341, 61.38), 200: (2.272, 82.58),
    },
    SECOND: {1: (6.942, 30.06), 2: (7.199, 30.91), 3: (7.251, 32.67), 4: (7.149, 34.74), 5: (6.914, 38.00)},
}  # fmt: skip
PEAK = 3  # the epoch of the highest loss, in both public runs
LEAST_SEEDS = 3  # from which the level is judged: the initial weights alone move it
QUANTITIES = {LOSS: "mean loss of the epoch", KNN: "kNN top-1 (%)"}
ARM = Arm("moco", "MoCo", {}, "all settings of MoCo's CIFAR-10 demo", "the code, and the seed")


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """The demo, seed by seed, as far as it is trained.

    Raises:
        DataError: images that are not CIFAR-10's.
    """
    if settings.embedded:
        raise DataError(f"data '{settings.data}' is not CIFAR-10: give data=cifar10 or data=FOLDER with CIFAR-10")
    if "path" in settings.locations:
        from studies.suite.planning.assembly import open_data  # imports torch, which listing the studies must not

        check_images(open_data(settings.base["data"], settings.locations))
    snapshots = {"training": {"snapshots": snapshots_of(settings.axes["epochs"], settings.axes["scored"])}}
    return [settings.spec(arm, seed, overrides=snapshots) for seed in settings.seeds for arm in settings.select((ARM,))]


def check_images(source: "Source") -> None:
    """The training images are as those of CIFAR-10: 50,000 of 32 x 32 pixels, in 10 classes.

    Raises:
        DataError: they are not.
    """
    train = source.split("train")
    labels = set(train["label"][:]) if "label" in train.column_names else set()
    width, height = train[0]["image"].size
    found = f"{len(train):,} training images in {len(labels)} classes, the first of {width} x {height} px"
    if (len(train), len(labels), width, height) != (IMAGES, CLASSES, SIDE, SIDE):
        raise DataError(
            f"data '{source.name}' is not CIFAR-10: it has {found}; this study needs {IMAGES:,} in {CLASSES} classes "
            f"of {SIDE} x {SIDE} px: data=FOLDER with CIFAR-10"
        )


def snapshots_of(epochs: float, scored: list[int]) -> list[float]:
    """The shares of the training after which kNN is measured: after each scored epoch, and at the end."""
    return [*(epoch / epochs for epoch in sorted(scored) if epoch < epochs), 1.0]


# -------------------------------------------------------------------- page


def sections(report: Report) -> None:
    """The study's part of the page."""
    results = report.results
    ours = curves(results)
    loss = {epoch: values[LOSS] for epoch, values in ours.items() if LOSS in values}
    text, report.outcome = signature(loss, level(results))
    report.say(text, distance_sentence(ours), summary=text)
    report.show(
        Table(pandas.DataFrame(rows(ours)), metrics=(LOSS, KNN)),
        "Mean over seeds. In brackets: distance to the nearer of the two public runs, in units of the difference "
        "between them; 0 lies between the two. Two runs are a small sample: a distance of 1 or 2 is no contradiction.",
        figure(report),
    )


def curves(results: Results) -> dict[int, dict[str, float]]:
    """Epoch -> the mean over the finished runs of the loss and of kNN in percent, where they were measured."""
    epochs, found = results.about["axes"]["epochs"], {}
    for column in results.finished:
        name, at, share = column.partition("@")
        if at and name in QUANTITIES and results.has(column):
            value = float(results.finished[column].mean())
            epoch = found.setdefault(round(float(share) * epochs), {})
            epoch[name] = 100 * value if name == KNN else value
    return dict(sorted(found.items()))


def signature(loss: dict[int, float], is_level: bool | None) -> tuple[str, str]:
    """Whether the loss rises until epoch 3 and then falls, at the public runs' level; the sentence, and the outcome.

    The rise: loss 1 < loss 2 < loss 3. The fall: the loss of epoch 4 is below that of epoch 3.

    Args:
        loss: epoch -> mean loss.
        is_level: see :func:`level`.
    """
    if not all(epoch in loss for epoch in range(1, PEAK + 1)):
        return f"**Not read:** the sign is the loss of epochs 1 to {PEAK}; fewer were trained.", "not read"
    shown = ", ".join(f"{loss[epoch]:.3f}" for epoch in range(1, min(PEAK + 1, max(loss)) + 1) if epoch in loss)
    rises = all(loss[epoch] < loss[epoch + 1] for epoch in range(1, PEAK))
    falls = loss[PEAK + 1] < loss[PEAK] if PEAK + 1 in loss else None
    words = {True: "yes", False: "no", None: f"not trained that far (axes.epochs={PEAK + 1})"}
    judged = {**words, None: f"not judged below {LEAST_SEEDS} seeds (seeds={LEAST_SEEDS})"}
    failed = not rises or falls is False or is_level is False
    answer = "no" if failed else "not resolved" if is_level is None else "yes"
    text = (
        f"**{answer.capitalize()}.** The loss rises until epoch {PEAK}: {words[rises]}; then it falls: {words[falls]} "
        f"({shown}). The public runs' level lies within what other initial weights give: {judged[is_level]}."
    )
    return text, answer


def level(results: Results) -> bool | None:
    """Whether the public runs' losses are such as our seeds give: their mean lies in a 95 % prediction interval.

    The interval is that of the mean of the public runs, if they came from the distribution of our seeds: t with n - 1
    degrees of freedom, and a spread of sd * sqrt(1 / n + 1 / 2). It has to hold at every epoch with two public values.

    Returns:
        None where fewer than ``LEAST_SEEDS`` seeds have finished.
    """
    epochs, found = results.about["axes"]["epochs"], []
    for column in results.finished:
        name, at, share = column.partition("@")
        if name != LOSS or not at:
            continue
        epoch = round(float(share) * epochs)
        public = [run[epoch][0] for run in PUBLIC.values() if epoch in run]
        if len(public) < 2:
            continue
        ours = estimate(results.finished[column])
        if ours.n < LEAST_SEEDS:
            return None
        half = quantile(0.025, ours.n - 1) * ours.sd * math.sqrt(1 / ours.n + 1 / len(public))
        found.append(abs(ours.mean - sum(public) / len(public)) <= half)
    return all(found) if found else None


def distance(ours: float, public: list[float]) -> float | None:
    """From the nearer of two public values, in units of their difference, signed; 0 between them; None without two."""
    if len(public) < 2 or public[0] == public[1]:
        return None
    low, high = sorted(public)
    beyond = ours - high if ours > high else min(ours - low, 0.0)
    return beyond / (high - low)


def distances(ours: dict[int, dict[str, float]], quantity: str) -> dict[int, float]:
    """Epoch -> the distance of our value, where there are two public ones."""
    place, found = list(QUANTITIES).index(quantity), {}
    for epoch, values in ours.items():
        public = [run[epoch][place] for run in PUBLIC.values() if epoch in run]
        far = distance(values[quantity], public) if quantity in values else None
        if far is not None:
            found[epoch] = far
    return found


def distance_sentence(ours: dict[int, dict[str, float]]) -> str:
    """The largest distances from the public runs."""
    parts = []
    for quantity, label in QUANTITIES.items():
        if far := distances(ours, quantity):
            epoch = max(far, key=lambda each: abs(far[each]))
            parts.append(f"{label}: {far[epoch]:+.1f}, at epoch {epoch}")
    return f"The largest distances from the public runs, in units of their difference: {'; '.join(parts) or 'none'}."


def rows(ours: dict[int, dict[str, float]]) -> list[dict[str, Any]]:
    """One row per epoch that was trained or is published."""
    far = {quantity: distances(ours, quantity) for quantity in QUANTITIES}
    found = []
    for epoch in sorted({*ours, *PUBLIC[OFFICIAL]}):
        row: dict[str, Any] = {"epoch": str(epoch)}
        for place, (quantity, digits) in enumerate(((LOSS, 3), (KNN, 1))):
            name = QUANTITIES[quantity]
            value = ours.get(epoch, {}).get(quantity, math.nan)
            beside = f" ({far[quantity][epoch]:+.1f})" if epoch in far[quantity] else ""
            row[f"{name}, {OURS}"] = "–" if math.isnan(value) else f"{value:.{digits}f}{beside}"
            for run, published in PUBLIC.items():
                row[f"{name}, {run}"] = f"{published[epoch][place]:.{digits}f}" if epoch in published else "–"
        found.append(row)
    return found


def figure(report: Report) -> Picture:
    """Loss and kNN over the epochs, of every seed and of both public runs, up to epoch 5 or the last one trained."""
    results, points = report.results, []
    epochs = results.about["axes"]["epochs"]
    for run in results.finished.to_dict("records"):
        for column, value in run.items():
            name, at, share = column.partition("@")
            if at and name in QUANTITIES and pandas.notna(value):
                scaled = 100 * value if name == KNN else value
                points.append((QUANTITIES[name], OURS, run["seed"], round(float(share) * epochs), scaled))
    for name, published in PUBLIC.items():
        for epoch, values in published.items():
            if epoch <= max(5, epochs):
                points += [
                    (label, name, 0, epoch, value) for label, value in zip(QUANTITIES.values(), values, strict=True)
                ]
    frame = pandas.DataFrame(points, columns=["panel", "row", "seed", "x", "value"])
    frame["order"] = frame["panel"].map(list(QUANTITIES.values()).index)
    path = f"figures/{results.page}-curves.png"
    colours = colours_of({name: name for name in (OFFICIAL, SECOND, OURS)})
    map_figures.curves_over_training(report.out / path, frame.sort_values("order", kind="stable"), "epoch", colours)
    return Picture(path, "Loss and kNN by epoch: this engine, mean over seeds, beside two public runs.")


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    return {
        "Public values": "the log that is printed in the demo's notebook, and a second public run of it; each is one "
        "run, so their difference is one draw of what a seed changes",
        "Level": "judged against the spread of this engine's own seeds: a 95 % prediction interval of the mean of the "
        "public runs, at each epoch",
        "Length": f"the schedule is that of 200 epochs, of which {results.about['axes']['epochs']:g} are trained",
        "Loss": "the mean over the steps of an epoch, while the network learns, as the demo prints it",
        "kNN": "on the output of the linear head, as in the demo; the bank is the whole training set",
    }


DEVIATIONS = (
    "The demo's loop counts epochs from 1, so that its learning rate is half a cosine of epoch / 200 with epochs 1 to "
    "200; ours begins at the peak rate. In epoch 3 the rates differ by less than 0.05 %.",
    "The demo's parts of a batch hold every 8th image, ours consecutive ones; the order of the images is random.",
    "Augmentations compute in floating point, the demo's in 8 bits.",
)

STUDY = Study(
    name="moco_curve",
    question_ids=("engine",),
    question="Does the engine train as published code does: does MoCo's official CIFAR-10 demo give its published loss "
    "and kNN accuracy, epoch by epoch, and does its loss rise until epoch 3 and then fall?",
    title="Does the engine reproduce a published MoCo curve?",
    arms=(ARM,),
    contrasts=(),
    control=(),
    primary="",
    plan=plan,
    sections=sections,
    deviations=DEVIATIONS,
    notes=notes,
    metrics={LOSS: Metric("loss", "", "lower", "mean InfoNCE over the steps of an epoch, queue of 4,096 keys")},
)
