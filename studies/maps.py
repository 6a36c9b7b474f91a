"""Saliency maps of your own pictures, by every finished method of a store.

    python -m studies.maps PICTURE_OR_FOLDER ... [run=LATEST] [--out=maps] [--store=runs]

Beside each method's own map stand TokenCut and, for a ViT, the attention, both of the same backbone; and what needs no
training: saliency by RBD, superpixels, and boxes by selective search. One PNG per picture, and one contact sheet.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scd.errors import DataError, UsageError
from studies.program import exit_code, program

if TYPE_CHECKING:
    from tqdm import tqdm

    from studies.suite.pages.drawn_pictures import Subject
    from studies.suite.pages.shown_runs import StoredRun

EXIT_NOT_ALL = 1
EPILOG = """\
run=  which finished runs (several words may be given; default: the newest run
      of each method that has a map):
  run=LATEST     those of the most recent study: of the page with the newest run
  run=mechanism  the newest run of each arm of a study
  run=ID         one run, by the name of its folder or its first characters
  run=PATH       a run's folder, or a file that studies.export has written
examples:
  {program} photo.jpg
  {program} photos run=LATEST --out sheets
  {program} photos run=runs/pretraining/ID/backbone.safetensors
exit code: 0; 1 something was not drawn (it is named); 2 wrong usage"""


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the maps; the exit code: 0, 1 something was not drawn, 2 wrong usage, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog=program("maps"),
        description=__doc__.splitlines()[0],
        epilog=EPILOG.format(program=program("maps")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s PICTURE_OR_FOLDER ... [run=...] [options]",
    )
    parser.add_argument("words", nargs="+", metavar="PICTURE_OR_FOLDER | run=...", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="maps", metavar="DIR", help="where PNGs and index.html go (default: maps)")
    parser.add_argument("--store", default="runs", metavar="DIR", help="where runs are kept (default: runs)")
    parser.add_argument("--reports", default="reports", metavar="DIR", help="the pages' folder (default: reports)")
    parser.add_argument("--side", type=int, default=480, metavar="N", help="most pixels of a map's longer side; 0: all")
    given = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    def begin() -> int:
        try:
            return draw(given.words, Path(given.out), Path(given.store), Path(given.reports), given.side)
        except OSError as error:
            raise UsageError(f"'{error.filename or given.out}': {error.strerror or error}") from error

    return exit_code(begin, "the sheet was not written")


# ---------------------------------------------------------------- what is drawn


def draw(words: Sequence[str], out: Path, store: Path, reports: Path, side: int) -> int:
    """Read the pictures, find the maps, write PNGs and the sheet; the exit code."""
    paths, named = split_words(words)
    if side < 0:
        raise UsageError(f"--side={side}: give a number of pixels, or 0 for the pictures' own size")
    files, notes = found_files(paths, out)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    from studies.suite.pages import contact_sheet, drawn_pictures

    subjects, said, failed = chosen_subjects(named, store, reports)
    for line in said:
        print(line, file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    annotators, pictures = drawn_pictures.annotators(), []
    with bar(len(files) * (2 + len(subjects))) as progress:
        for file, png in zip(files, drawn_pictures.png_names(files), strict=True):
            try:
                pictures.append(drawn_pictures.read(file, png, annotators))
            except DataError as error:
                fail(failed, str(error), progress)
                progress.total -= 1 + len(subjects)
            progress.update()
        for subject in subjects:
            for picture in pictures:
                try:
                    picture.panels += drawn_pictures.panels_of(subject, picture)
                except UsageError as error:
                    fail(failed, f"{subject.title} ({subject.group}) on '{picture.path}': {error}", progress)
                progress.update()
        shown = []
        for picture in pictures:
            try:
                shown.append(drawn_pictures.write(picture, out, side))
            except UsageError as error:
                fail(failed, f"'{picture.path}': {error}", progress)
            progress.update()
    if not shown:
        print("nothing was drawn: see above", file=sys.stderr)
        return EXIT_NOT_ALL
    print(contact_sheet.write_sheet(out, shown, [*drawn_pictures.NOTES, *said], failed))
    counted = f"{len(shown)} picture{'' if len(shown) == 1 else 's'}, {len(subjects)} network"
    left = f"; not drawn: {len(failed)}, see above" if failed else ""
    print(f"{counted}{'' if len(subjects) == 1 else 's'}{left}", file=sys.stderr)
    return EXIT_NOT_ALL if failed else 0


def split_words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The pictures, and what ``run=`` names.

    Raises:
        UsageError: no picture, or a setting that there is not.
    """
    named = [word.partition("=")[2] for word in words if word.startswith("run=")]
    paths = [Path(word).expanduser() for word in words if not word.startswith("run=")]
    for path in paths:
        if "=" in str(path) and not path.exists():
            raise UsageError(f"unknown setting '{path}'; run=ID chooses runs, everything else is a picture or a folder")
    if not paths:
        raise UsageError(f"name a picture or a folder of pictures: {program('maps')} PICTURE_OR_FOLDER")
    if "" in named:
        raise UsageError("run= names no run; give run=LATEST, run=STUDY, run=ID or run=PATH")
    return paths, named


def found_files(paths: Sequence[Path], out: Path) -> tuple[list[Path], list[str]]:
    """All pictures, each once.

    Raises:
        UsageError: no such picture, a folder without any, or results that would lie among the pictures.
    """
    from scd.data.pictures import find_pictures

    files, notes = [], []
    for path in paths:
        found, said = find_pictures(path, out)
        files += found
        notes += said
    if any(file.resolve().parent == out.resolve() for file in files):
        raise UsageError(f"--out={out} is the folder of the pictures, which might be overwritten; choose another one")
    return list(dict.fromkeys(files)), notes


def chosen_subjects(named: Sequence[str], store: Path, reports: Path) -> tuple[list["Subject"], list[str], list[str]]:
    """The networks, what is to be said about the choice, and the runs that cannot be drawn.

    Raises:
        UsageError: a run that does not exist, or none of the chosen ones fits.
    """
    from studies.suite.pages import shown_runs
    from studies.suite.pages.drawn_pictures import exported_subject, subject_of

    loaded, chosen, failed = [], {}, []
    is_store = any((store / kind).is_dir() for kind in ("pretraining", "evaluations", "measurements"))
    runs = shown_runs.stored_runs(store, reports) if is_store else []
    for word in named:
        path = Path(word).expanduser()
        if path.is_file():
            loaded.append(exported_subject(path))
        elif path.is_dir() and not is_study(word):
            run = shown_runs.read_run(path.resolve())
            if run is None:
                raise UsageError(f"run={word} is no folder of a finished run; give one of runs/pretraining")
            chosen[run.id] = run
        else:
            chosen |= {run.id: run for run in shown_runs.named(word, runs, store, reports)}
    if not named:
        chosen = {run.id: run for run in shown_runs.usual(runs)}
    for run in chosen.values():
        try:
            loaded.append(subject_of(run))
        except UsageError as error:
            if len(chosen) == 1:
                raise
            print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
            failed.append(" ".join(str(error).splitlines()))
    return loaded, said_of(loaded, list(chosen.values()), store, named), failed


def is_study(word: str) -> bool:
    """Whether a word is the name of a study; a folder of that name is ./NAME."""
    from studies.suite.planning.command_line import study_names

    return word.replace("-", "_") in study_names()


def said_of(loaded: Sequence["Subject"], runs: Sequence["StoredRun"], store: Path, named: Sequence[str]) -> list[str]:
    """How to get maps where there are none."""
    from studies.suite.pages.shown_runs import how_to_make_one

    if any(run.has_map for run in runs) or (named and loaded):
        return []
    what = "no run is finished" if not runs else "no finished run has a map of its own"
    beside = "; TokenCut is that of the newest run" if runs else "; TokenCut needs the features of a trained backbone"
    return [f"in the store '{store}' {what}{beside}: make a run with {how_to_make_one()}, then give this command again"]


# ---------------------------------------------------------------- progress


def bar(steps: int) -> "tqdm":
    """A progress bar with the time that is left, over pictures times networks."""
    from tqdm import tqdm

    interval = 0.5 if sys.stderr.isatty() else 30.0
    return tqdm(total=steps, desc="drawing", file=sys.stderr, dynamic_ncols=True, mininterval=interval, unit=" steps")


def fail(failed: list[str], text: str, progress: "tqdm") -> None:
    """Say in one line what is not drawn, and go on."""
    line = " ".join(text.split())
    failed.append(line)
    progress.write(f"error: {line}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
