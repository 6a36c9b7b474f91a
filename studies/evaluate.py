"""Score your own checkpoint: every protocol that your images allow, beside random weights.

    python -m studies.evaluate checkpoint=FILE backbone=resnet50 data=FOLDER [supervised=FILE] [key=value ...]

The file is recognised by its keys (``scd/checkpoints/formats.py``) and has to fit the backbone completely. Nothing is
trained or downloaded. Finished evaluations are kept in the store and never repeated; the page is written to
``reports/evaluate-NAME.md``, its numbers to ``reports/records/evaluate-NAME.csv``.
"""

import argparse
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scd.installation import check_torchvision
from studies.program import EXIT_FAILED, exit_code, program
from studies.suite.pages.out_folder import check_writable

if TYPE_CHECKING:
    from studies.suite.execution.scoring import Scoring
    from studies.suite.execution.store import Records

SHOWN = 3  # names of unused tensors
HELP = """\
words:
  checkpoint=FILE    weights in PyTorch's or safetensors' format: plain, torchvision, timm, MoCo,
                     BYOL, DINO, iBOT, DINOv2, MAE, DenseCL, LEWEL, SlotCon, solo-learn, lightly,
                     or this suite's
  backbone=NAME      resnet50, resnet18, vit_small_patch16_224, timm/MODEL, studies/conf/backbone
  backbone.OPTION=X  of that backbone: num_heads=12, patch_size=8, small_stem=true, vector=mean
  data=FOLDER        class folders or parquet files, as for the studies; shapes (default), cifar10
  supervised=FILE    supervised weights of the same backbone; default: from the libraries' cache
  branch=NAME        online (student, query) or momentum (teacher, target, key)
  prefix=TEXT        what to remove from the names, for a format that is not recognised
  protocols=a,b      default: all with frozen weights; all: also fine-tuning and detection
  seeds=3            how many probe seeds       size=224     side of the images in pixels
  device=cuda        default: cpu               name=TITLE   of the page
  tier=gpu           how many images are used; data.*, evaluation.*, sizes.* as for the studies

examples:
  {program} checkpoint=moco.pth.tar backbone=resnet50 data=FOLDER
  {program} checkpoint=dino.pth backbone=vit_small_patch16_224 --dry-run
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Score a checkpoint and write its page; the exit code: 0, 1 an evaluation failed, 2 wrong usage, 130 stopped."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog=program("evaluate"),
        description=__doc__.splitlines()[0],
        epilog=HELP.format(program=program("evaluate")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="see below")
    parser.add_argument("--dry-run", action="store_true", help="list what would be evaluated, and end")
    parser.add_argument("--store", default="runs", metavar="DIR", help="where evaluations are kept (default: runs)")
    parser.add_argument("--out", default="reports", metavar="DIR", help="where pages are written (default: reports)")
    given = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def begin() -> int:
        check_torchvision()
        return run(given.words, Path(given.store), Path(given.out), given.dry_run)

    kept = "" if given.dry_run else "finished evaluations are kept, and the same command continues from here"
    return exit_code(begin, kept)


def run(words: Sequence[str], store: Path, out: Path, dry: bool) -> int:
    """Plan, evaluate what is missing, write the page."""
    from studies.suite.analysis.image_notes import before_decoding, in_lines
    from studies.suite.execution.scoring import FOLDER, prepare, score, scores_of
    from studies.suite.execution.store import Records
    from studies.suite.pages import images_as_read
    from studies.suite.planning.scoring import request

    command = shlex.join([*program("evaluate").split(), *map(shown, words)])
    asked = request(words, store, out, command)
    scoring = prepare(asked, check=not dry)
    records = Records(store / FOLDER)
    if dry:
        for line in before_decoding(scoring.data, "evaluation"):
            print(line, file=sys.stderr)
        print("\n".join(plan_lines(scoring, records)))
        return 0
    check_writable(out)
    read, notes = data_notes(scoring)
    for line in (*remarks(scoring), *in_lines(read, notes)):
        print(line, file=sys.stderr)
    if not scoring.data.source.embedded:
        picture = images_as_read.draw([scoring.data], images_as_read.path_in(store, asked.page))
        print(f"shown as read in {picture}", file=sys.stderr)
    failed: dict[str, str] = {}
    try:
        failed = score(scoring, records)
    finally:
        from studies.suite.pages.scores import write_page

        scores = {network.name: scores_of(scoring, network, records) for network in scoring.networks}
        if scores["checkpoint"].numbers:
            print(
                write_page(scoring, scores, out, failed, [*(f"Read as {line}" for line in read), *notes]),
                file=sys.stderr,
            )
        else:
            print("no evaluation of the checkpoint has finished yet: no page", file=sys.stderr)
    for key, reason in failed.items():
        print(f"{key} failed: {reason}", file=sys.stderr)
    return EXIT_FAILED if failed else 0


def shown(word: str) -> str:
    """A word as the page prints it: a file by its name, without the folders of one machine."""
    key, _, value = word.partition("=")
    if key in ("checkpoint", "supervised", "data") and os.sep in value:
        return f"{key}={Path(value).name}"
    return word


def remarks(scoring: "Scoring") -> list[str]:
    """What was read, before the first evaluation."""
    lines = []
    for network in scoring.networks:
        fitted = network.fitted
        if fitted is not None:
            prefix = f", '{fitted.prefix}' removed" if fitted.prefix else ""
            branch = f", {fitted.branch} network" if fitted.branch else ""
            lines.append(
                f"{network.label}: '{fitted.file}' is {fitted.format}{branch}{prefix}; {len(fitted.used)} tensors are "
                f"used, {len(fitted.unused)} are not{named(fitted.unused)}"
            )
            lines += [f"  {note}" for note in fitted.notes]
    return lines + [remark.replace("`", "'") for remark in scoring.remarks]


def named(unused: Sequence[str]) -> str:
    """The first of the names that are not used, as a reader may have expected one of them to be."""
    return f" ({', '.join(unused[:SHOWN])}{', …' if len(unused) > SHOWN else ''})" if unused else ""


def plan_lines(scoring: "Scoring", records: "Records") -> list[str]:
    """What would be evaluated."""
    from studies.suite.execution.store import Status
    from studies.suite.planning.scoring import NEEDS

    asked = scoring.request
    images = ", ".join(f"{count} {part}" for part, count in scoring.images.items() if count)
    lines = [
        *remarks(scoring),
        f"images: {asked.settings.data} ({images}) at {asked.size} px; probe seeds: {len(asked.seeds)}",
    ]
    states = {
        (network.name, protocol["name"]): records.status(scoring.id(network, protocol))
        for network, protocol in scoring.pairs()
    }
    for protocol in scoring.protocols:
        done = [network.label for network in scoring.networks if states[network.name, protocol["name"]] is Status.DONE]
        state = f"finished of {', '.join(done)}" if done else "to be evaluated"
        lines.append(f"  {protocol['name']}: {state}")
    lines += [f"  {name}: left out, it needs {NEEDS.get(name, 'other data')}" for name in scoring.left_out]
    missing = sum(state is not Status.DONE for state in states.values())
    lines.append(f"{len(states)} evaluations of {len(scoring.networks)} networks, {missing} missing")
    lines.append(f"page: {asked.settings.out / asked.page}.md")
    return lines


def data_notes(scoring: "Scoring") -> tuple[list[str], list[str]]:
    """How the images were read, and what else a reader must know of them."""
    from studies.suite.analysis.dependence_notes import notes_on_dependence
    from studies.suite.analysis.image_notes import notes_on_images, notes_on_splits
    from studies.suite.analysis.what_was_read import what_was_read

    images = scoring.data
    notes = [*notes_on_images(images), *notes_on_splits(images), *notes_on_dependence(images)]
    return what_was_read(images, decode=True), list(dict.fromkeys(notes))


if __name__ == "__main__":
    sys.exit(main())
