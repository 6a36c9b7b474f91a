"""Every command that README and documentation show is run by a test, or says which hardware or data it needs.

A command is a line of a fenced block ``sh``, or code in a line of text that begins like one. One of three things must
be true of it:

- its line says ``needs: ...`` (a GPU, Slurm, ImageNet);
- it is a study with words: it is planned here by ``--dry-run``, at the tier ``smoke``, with one seed and one arm where
  it names none, and with tiny images in the place of the user's;
- a test of another file runs it (``TESTED``).
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from studies.__main__ import main
from studies.suite.planning.command_line import load_study, study_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BEGINNING = re.compile(r"(nox -|uvx? |pip |torchrun |scd-suite |(\S*/)?python3? -m |(\S*/)?nox -)")
NEEDS = re.compile(r"\bneeds: [^\s|)]")
STUDY = re.compile(r"(?:nox -s (?:study-)?([\w-]+) -- |scd-suite study ([\w-]+) )(.+)")
# the whole command -> the test that runs it, file::test below tests/
TESTED = {
    r"python3 -m venv .*/nox -s study-multicrop|uvx .* study-multicrop":
        "studies/test_studies.py::test_every_arm_takes_the_arguments_that_it_is_given",
    r"python3 -m venv .*/nox -s tests|nox -s tests": "test_front_door.py::test_ci_runs_the_test_command_of_the_readme",
    r"nox -l": "test_front_door.py::test_sessions_are_listed",
    r"nox -s tests -- .*": "test_front_door.py::test_a_session_passes_its_arguments_on",
    r"nox -s study-map-depth": "test_extension.py::test_the_study_of_the_readme_writes_its_page",
    r".* method=vicreg": "test_extension.py::test_the_method_of_the_readme_is_the_host_of_any_study",
    r"nox -s (study-[\w-]+|cost-profile)|nox -s study-moco-curve -- data=FOLDER":
        "studies/test_studies.py::test_every_arm_takes_the_arguments_that_it_is_given",
    r".* data=SCENES axes.scored=.*":
        "studies/test_scene_images.py::"
        "test_real_images_are_trained_on_in_equal_number_and_scored_on_the_same_two_sets",
    r".* data.options.columns.image=picture .*": "studies/test_own_images.py::test_columns_are_named_one_by_one",
    r".* minutes=20": "studies/test_minutes.py::test_a_dry_run_shows_the_first_round",
    r".* --recompute-foreign":
        "studies/test_recompute_foreign.py::test_foreign_runs_are_named_on_the_page_and_computed_again",
    r"torchrun .*":
        "studies/execution/test_ranks.py::test_all_processes_of_torchrun_train_the_runs_that_the_first_one_names",
    r"nox -s answers": "studies/pages/test_answers_html.py::test_the_command_writes_both_forms",
    r"nox -s replicate -- .*": "studies/test_replicate.py::test_a_second_run_on_the_same_machine_gives_equal_records",
    r"nox -s status": "studies/test_status.py::test_a_finished_run_and_one_that_was_not_begun",
    r"nox -s clean": "studies/test_clean.py::test_a_yes_removes_what_was_shown_and_nothing_else",
    r"python -m studies.suite.pages.excerpt":
        "studies/pages/test_excerpt.py::test_the_first_screen_is_copied_with_links_that_hold",
    r"nox -s docs|python -m docs\.build": "docs/test_build.py::test_it_builds_without_a_warning",
    r"nox -s export( -- .*)?|scd-suite export .*":
        "studies/test_export.py::test_the_command_exports_and_checks_a_run",
    r"nox -s evaluate -- --help": "studies/test_evaluate.py::test_help_is_one_screen",
    r"(nox -s evaluate --|scd-suite evaluate) .*":
        "studies/test_evaluate.py::test_the_page_has_three_networks_with_intervals",
    r"(nox -s maps --|scd-suite maps) .*": "studies/test_maps.py::test_latest_a_runs_folder_and_an_exported_backbone",
    r".* tracker=(csv|tensorboard)":
        "studies/execution/test_tracker.py::test_a_study_with_a_tracker_has_the_curves_of_its_runs",
    r"scd-suite --help": "test_package.py::test_the_help_of_the_suite_is_one_small_screen",
    r'python -m pip install ("\.\[docs\]"|\.)|scd-suite study multicrop':
        "test_package.py::test_a_study_runs_from_a_wheel_outside_a_clone",
    r"uv build --wheel|pip wheel --no-deps \.":
        "test_package.py::test_a_wheel_has_one_top_level_package_with_the_code_and_its_configuration",
}  # fmt: skip


class Command(NamedTuple):
    """A command as it stands on a page; ``needs`` says whether its line names what it needs."""

    text: str
    page: str
    needs: bool


def commands_of(text: str, page: str = "") -> list[Command]:
    """The commands of a page, in their order."""
    found, language = [], None
    for line in text.splitlines():
        if line.startswith("```"):
            language = None if language is not None else line.strip("`").strip()
        elif language == "sh" and line.strip():
            found.append(Command(re.split(r"\s+#", line)[0].strip(), page, bool(NEEDS.search(line))))
        elif language is None:
            spans = [span for span in re.findall(r"`([^`]+)`", line) if BEGINNING.match(span) and "…" not in span]
            found += [Command(span, page, bool(NEEDS.search(line))) for span in spans]
    return found


def run_by(command: Command) -> str:
    """The test of another file that runs a command; "" for none."""
    return next((test for pattern, test in TESTED.items() if re.fullmatch(pattern, command.text)), "")


def words_of(command: Command) -> list[str]:
    """Study and words of a command that is planned here; [] for another one."""
    found = STUDY.fullmatch(command.text)
    name = (found[1] or found[2]).replace("-", "_") if found else ""
    return [name, *shlex.split(found[3])] if name in study_names() else []


COMMANDS = [
    command
    for path in PAGES
    for command in commands_of(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
]
OPEN = [command for command in COMMANDS if not command.needs]
PLANNED = list(dict.fromkeys(each.text for each in OPEN if words_of(each) and not run_by(each)))


def test_every_command_is_run_or_says_what_it_needs():
    unknown = [f"{each.page}: {each.text}" for each in OPEN if not run_by(each) and not words_of(each)]
    assert len(COMMANDS) > 40 and not unknown


@pytest.mark.parametrize("test", sorted(set(TESTED.values())))
def test_the_test_of_a_command_exists(test):
    name, _, function = test.partition("::")
    text = (ROOT / "tests" / name).read_text(encoding="utf-8")
    assert f"\ndef {function}(" in text


def test_every_pattern_is_of_a_command_that_is_shown():
    shown = [command.text for command in OPEN]
    assert not [pattern for pattern in TESTED if not any(re.fullmatch(pattern, text) for text in shown)]


def test_every_session_that_is_shown_exists():
    listing = subprocess.run(
        [sys.executable, "-m", "nox", "--nocolor", "--list"], capture_output=True, text=True, cwd=ROOT
    )
    sessions = set(re.findall(r"^[*-] (\S+) -> ", listing.stdout, re.MULTILINE)) | {"study-map-depth"}
    shown = {session for each in COMMANDS for session in re.findall(r"nox -s ([\w-]+)", each.text)}
    assert shown <= sessions and len(shown) > 20


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of class folders, as ``data=PATH`` takes it."""
    folder = tmp_path_factory.mktemp("images")
    for split, count in (("train", 8), ("test", 4)):
        for number, name in enumerate(("dark", "light")):
            (folder / split / name).mkdir(parents=True)
            for image in range(count):
                noise = np.random.default_rng([number, image, count]).integers(0, 50, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(noise + np.uint8(200 * number)).save(folder / split / name / f"{image}.png")
    return folder


@pytest.mark.parametrize("text", PLANNED)
def test_a_study_is_planned_with_the_words_that_are_shown(text, images, tmp_path, capsys):
    name, *words = words_of(Command(text, "", False))
    words = [word.replace("=PATH", f"={images}").replace("=FOLDER", f"={images}") for word in words]
    keys = {word.partition("=")[0] for word in words}
    study = load_study(name)
    contrast = study.claims[0].contrasts[0] if study.claims else study.contrasts[0] if study.contrasts else None
    words += ["tier=smoke"] if "tier" not in keys else []
    words += ["seeds=1"] if "seeds" not in keys else []
    words += [f"arms={contrast.control}"] if contrast and "arms" not in keys else []
    words += [] if "--dry-run" in words else ["--dry-run"]
    code = main([name, *words, "--store", str(tmp_path / "runs"), "--out", str(tmp_path / "reports")])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "different runs" in said.out
    assert not list(tmp_path.glob("runs/*/[!.]*")) and not (tmp_path / "reports").exists()


def test_a_command_that_no_test_runs_is_found():
    text = (
        "Text `nox -s status` and `nox -s …`.\n\n```sh\nnox -s nothing   # a comment\nnox -s x   # needs: GPU\n\n```\n"
    )
    found = commands_of(text + "```python\nnox -s code\n```\n| `nox -s y` | on one GPU (needs: GPU) |\n")
    assert [(each.text, each.needs) for each in found] == [
        ("nox -s status", False), ("nox -s nothing", False), ("nox -s x", True), ("nox -s y", True),
    ]  # fmt: skip
    assert [bool(run_by(each) or words_of(each)) for each in found if not each.needs] == [True, False]
    assert words_of(Command('nox -s study-multicrop -- "a=[b,c]" d=e', "", False)) == ["multicrop", "a=[b,c]", "d=e"]
