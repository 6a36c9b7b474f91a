"""The command that draws maps of one's own pictures, on real runs of the smoke tier; and each error by its text."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from trained_runs import MOCO, SCD, VIT, train

from studies.maps import main
from studies.suite.planning.identity import ROOT

MODES = ("RGB", "RGBA", "L", "P", "CMYK", "I;16")
NAMES = ["bild.jpg", *(f"{mode.replace(';', '')}.{'jpg' if mode == 'CMYK' else 'png'}" for mode in MODES)]


def picture(width=45, height=30):
    """A bright rectangle on a dark ground."""
    values = np.full((height, width, 3), (30, 60, 40), np.uint8)
    values[height // 4 : height // 2, width // 2 : width - 6] = (230, 200, 40)
    return Image.fromarray(values)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with a picture of each mode, and one that is turned by its EXIF orientation."""
    folder = tmp_path_factory.mktemp("photos")
    for mode, name in zip(MODES, NAMES[1:], strict=True):
        if mode == "I;16":
            Image.fromarray(np.asarray(picture().convert("L")).astype(np.uint16) * 257).save(folder / name)
        else:
            picture().convert(mode).save(folder / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(folder / NAMES[0], exif=exif)  # 45 x 30 as stored, 30 x 45 upright
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with trained runs: SCD of two seeds, MoCo, and a ViT; and their ids."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, {"vit": train(folder, VIT), "moco": train(folder, MOCO), "scd": train(folder, SCD)}


@pytest.fixture
def run(store, tmp_path, capsys):
    """A function that gives the exit code, what was printed, and the errors; the output goes to ``out``."""

    def give(*words, store=store[0]):
        options = ["--store", str(store), "--out", str(tmp_path / "out"), "--reports", str(tmp_path / "none")]
        code = main([*map(str, words), *options])
        said = capsys.readouterr()
        return code, said.out, said.err

    return give


def one(photos):
    """A picture to draw where it does not matter which."""
    return photos / "L.png"


def lines_of(text):
    """The errors, without the progress bar."""
    return [line for line in re.split(r"[\r\n]", text) if "steps/s" not in line and "s/ steps" not in line and line]


# ---------------------------------------------------------------- what is drawn


def test_pictures_of_every_mode_and_orientation_are_drawn(run, photos, store, tmp_path):
    code, said, errors = run(photos)
    assert code == 0 and said == f"{tmp_path / 'out' / 'index.html'}\n"
    assert "drawing: 100%" in errors and lines_of(errors)[-1] == "7 pictures, 1 network"
    pngs = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pngs == sorted(name.rpartition(".")[0] + ".png" for name in NAMES)
    sheet = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert sheet.count("<article") == 7 and "Not drawn" not in sheet
    turned = sheet.split("<article")[1 + sorted(NAMES).index("bild.jpg")].split("</article>")[0]
    assert "30 x 45 px, upright" in turned and "resized to 16 x 24 px (shorter side 16 px), not cropped" in turned
    for words in (
        "SCD (SaliencyMLP) around MoCo", f"run {store[1]['scd']}", "trained on shapes, seed 0, 5 steps (1 epoch)",
        "supervision: none", "TokenCut, SCD", "Felzenszwalb", "Selective search", "RBD",
    ):  # fmt: skip
        assert words in turned, words
    assert re.search(r"4 x 6 positions, values 0\.\d\d to 0\.\d\d", turned)


def test_a_run_by_its_id_and_one_with_attention(run, photos, store, tmp_path):
    ids = store[1]
    code, _, errors = run(one(photos), f"run={ids['vit']}", f"run={ids['moco'][:10]}")
    assert code == 0 and lines_of(errors)[-1] == "1 picture, 2 networks"
    sheet = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert sheet.count("Attention, MoCo</strong>") == 1 and sheet.count("TokenCut, MoCo</strong>") == 2
    assert "class token to patches" in sheet and "the method&#39;s own map" not in sheet
    assert f"run {ids['vit']}" in sheet and f"run {ids['moco']}" in sheet and f"run {ids['scd']}" not in sheet


def test_latest_a_runs_folder_and_an_exported_backbone(run, photos, store, tmp_path):
    folder, ids = store
    scd = folder / "pretraining" / ids["scd"]
    code, _, errors = run(one(photos), "run=LATEST", f"run={scd}", f"run={scd / 'backbone.safetensors'}")
    assert code == 0 and lines_of(errors)[-1] == "1 picture, 2 networks"  # LATEST and the folder are the same run
    sheet = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "exported resnet_tiny" in sheet and "backbone.safetensors, names of suite" in sheet
    assert sheet.count("own map<") == 1


def test_where_no_run_has_a_map_the_newest_run_is_cut(run, photos, store, tmp_path):
    folder, ids = store
    (tmp_path / "runs" / "pretraining").mkdir(parents=True)
    shutil.copytree(folder / "pretraining" / ids["moco"], tmp_path / "runs" / "pretraining" / ids["moco"])
    code, _, errors = run(one(photos), store=tmp_path / "runs")
    assert code == 0
    expected = (
        f"in the store '{tmp_path / 'runs'}' no finished run has a map of its own; TokenCut is that of the newest run: "
        "make a run with python -m studies mechanism tier=smoke, then give this command again"
    )
    assert expected in lines_of(errors)
    sheet = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "TokenCut, MoCo" in sheet and "python -m studies mechanism tier=smoke" in sheet and "RBD" in sheet


def test_without_any_run_the_annotators_are_drawn(run, photos, tmp_path):
    code, _, errors = run(one(photos), store=tmp_path / "nowhere")
    assert code == 0 and not (tmp_path / "nowhere").exists()
    assert (
        "no run is finished; TokenCut needs the features of a trained backbone: make a run with python -m studies"
        in errors
    )
    sheet = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "RBD" in sheet and "TokenCut," not in sheet
    assert (tmp_path / "out" / "L.png").is_file()


# ---------------------------------------------------------------- what goes wrong


def test_a_file_that_is_no_picture_is_named_and_the_others_are_drawn(run, photos, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(one(photos), folder / "good.png")
    (folder / "bad.png").write_text("no picture")
    (folder / "notes.txt").write_text("text")
    code, _, errors = run(folder, store=tmp_path / "nowhere")
    assert code == 1 and (tmp_path / "out" / "good.png").is_file() and not (tmp_path / "out" / "bad.png").exists()
    line = f"'{folder / 'bad.png'}': the image cannot be decoded (not an image, or of an unknown format)"
    assert f"error: {line}" in lines_of(errors) and lines_of(errors)[-1].endswith("; not drawn: 1, see above")
    assert any(each.startswith("note: Files that are no images") and "notes.txt" in each for each in lines_of(errors))
    sheet = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Not drawn" in sheet and "bad.png&#39;: the image cannot be decoded" in sheet
    code, said, errors = run(folder / "bad.png", store=tmp_path / "nowhere")
    assert (code, said) == (1, "") and lines_of(errors)[-1] == "nothing was drawn: see above"


def test_a_run_that_does_not_fit_is_named_and_the_others_are_drawn(run, photos, store, tmp_path):
    folder, ids = store
    shutil.copytree(folder / "pretraining" / ids["scd"], tmp_path / "broken")
    (tmp_path / "broken" / "method.safetensors").write_bytes(b"no weights")
    code, _, errors = run(one(photos), f"run={tmp_path / 'broken'}", f"run={ids['scd']}")
    line = "error: run broken: its method.safetensors cannot be read"
    assert code == 1 and any(each.startswith(line) for each in lines_of(errors))
    assert lines_of(errors)[-1] == "1 picture, 1 network; not drawn: 1, see above"
    code, said, errors = run(one(photos), f"run={tmp_path / 'broken'}")
    assert (code, said) == (2, "") and lines_of(errors)[-1].startswith(line)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["{tmp}/none.jpg"],
            "error: there is no picture or folder '{tmp}/none.jpg'; give the path of a picture, or of",
        ),
        (["{tmp}/empty"], "error: the folder '{tmp}/empty' has no pictures; put .jpg, .png or .tif files into it"),
        (["run=LATEST"], "error: name a picture or a folder of pictures: python -m studies.maps PICTURE_OR_FOLDER"),
        (["{one}", "tier=smoke"], "error: unknown setting 'tier=smoke'; run=ID chooses runs, everything else is a"),
        (["{one}", "run="], "error: run= names no run; give run=LATEST, run=STUDY, run=ID or run=PATH"),
        (
            ["{one}", "run=0123456789abcdef"],
            "error: run=0123456789abcdef is no finished run of the store '{store}', no",
        ),
        (["{one}", "run=dino_vit"], "error: run=dino_vit: no page of this study in '{tmp}/none' names a finished run"),
        (
            ["{one}", "run={tmp}/empty"],
            "error: run={tmp}/empty is no folder of a finished run; give one of runs/pretra",
        ),
        (["{one}", "run={one}"], "error: '{one}' is no exported backbone: its name must end in .safetensors or .pth"),
        (["{one}", "--side=-1"], "error: --side=-1: give a number of pixels, or 0 for the pictures' own size"),
    ],
)
def test_wrong_words_end_in_one_line(words, expected, run, photos, store, tmp_path):
    (tmp_path / "empty").mkdir()
    places = {"tmp": tmp_path, "one": one(photos), "store": store[0]}
    code, said, errors = run(*(word.format(**places) for word in words))
    assert (code, said) == (2, "")
    (line,) = lines_of(errors)
    assert line.startswith(expected.format(**places))
    assert not (tmp_path / "out").exists()


def test_pictures_are_never_overwritten(photos, store, tmp_path, capsys):
    shutil.copy(one(photos), tmp_path / "L.png")
    before = (tmp_path / "L.png").read_bytes()
    assert main([str(tmp_path / "L.png"), "--out", str(tmp_path), "--store", str(store[0])]) == 2
    assert "is the folder of the pictures, which might be overwritten; choose another one" in capsys.readouterr().err
    assert (tmp_path / "L.png").read_bytes() == before


def test_results_in_the_folder_of_pictures_are_no_pictures(photos, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(one(photos), folder)
    words = [str(folder), "--out", str(folder / "maps"), "--store", str(tmp_path / "nowhere")]
    for _ in range(2):
        assert main(words) == 0
        assert capsys.readouterr().err.splitlines()[-1] == "1 picture, 0 networks"


def test_help_fits_on_one_screen():
    done = subprocess.run([sys.executable, "-m", "studies.maps", "--help"], capture_output=True, text=True, cwd=ROOT,
                          env={"PATH": "", "COLUMNS": "80"})  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) <= 25 and max(map(len, lines)) <= 80
    for word in ("PICTURE_OR_FOLDER", "run=LATEST", "run=ID", "--out", "--store", "exit code"):
        assert word in done.stdout
