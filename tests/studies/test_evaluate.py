"""The command that scores a checkpoint, from the file to the page."""

import csv
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from scd.errors import UsageError
from scd.nn.backbone import build_backbone
from scd.nn.vit import vit
from studies import evaluate
from studies.evaluate import main
from studies.program import EXIT_INTERRUPTED
from studies.suite.execution.scoring import cached_weights, is_supervised, prepare
from studies.suite.execution.store import Records
from studies.suite.planning.identity import ROOT
from studies.suite.planning.scoring import request

TINY = ["backbone=resnet_micro", "tier=smoke", "data.options.train=60", "data.options.probe=60", "data.options.test=40"]
FEW = [*TINY, "protocols=linear,knn,background,scenes,collapse", "data.probe_l2=[1.0,0.01]"]


def weights(path, seed, prefix="module.encoder_q."):
    """A file like MoCo's, of the smallest backbone."""
    torch.manual_seed(seed)
    state = build_backbone("resnet_tiny", widths=(8, 16), strides=(1, 2)).state_dict()
    further = {"module.encoder_k.fc.weight": torch.ones(2), "module.queue": torch.ones(2)}
    torch.save({"state_dict": {prefix + name: value for name, value in state.items()} | further, "epoch": 5}, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {name: weights(folder / f"{name}.pth.tar", seed) for seed, name in enumerate(("mine", "labels"), start=1)}


@pytest.fixture(scope="module")
def written(files, tmp_path_factory):
    """A store and a folder of pages after one call."""
    folder = tmp_path_factory.mktemp("evaluated")
    places = ["--store", str(folder / "runs"), "--out", str(folder / "reports")]
    words = [f"checkpoint={files['mine']}", f"supervised={files['labels']}", *FEW, "seeds=2", "name=mine"]
    assert main([*words, *places]) == 0
    return folder, words, places


def page_of(folder):
    (page,) = (folder / "reports").glob("evaluate-mine*.md")
    return page


def rows_of(folder):
    (path,) = (folder / "reports" / "records").glob("evaluate-mine*.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_has_three_networks_with_intervals(written):
    text = page_of(written[0]).read_text()
    first_screen = text[: text.index("<details>")]
    assert "**Linear top-1 is " in first_screen and "random weights" in first_screen
    header = next(line for line in first_screen.splitlines() if line.startswith("| number"))
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        "number", "checkpoint", "supervised weights", "random weights", "checkpoint − supervised weights",
        "checkpoint − random weights",
    ]  # fmt: skip
    assert "**What cannot be said.** This is one network from one training." in first_screen
    assert "only tests the wiring" in first_screen


def test_the_page_says_what_was_read(written):
    text = page_of(written[0]).read_text()
    assert "MoCo v1 or v2" in text and "`state_dict: module.encoder_q.`" in text
    assert "- **Not used:** `module.encoder_k.fc.weight`, `module.queue`" in text
    assert "`scenes` (needs objects with masks, or masks of class ids)" in text
    assert str(written[0]) not in text  # no folder of this machine


def test_records_have_every_number_of_every_network(written):
    rows = rows_of(written[0])
    by_network = {name: {row["metric"]: row for row in rows if row["network"] == name}
                  for name in ("checkpoint", "supervised", "random")}  # fmt: skip
    assert by_network["checkpoint"].keys() == by_network["random"].keys() == by_network["supervised"].keys()
    assert {"linear_top1", "knn_top1", "mixed_rand_top1", "bg_gap", "feature_std"} <= by_network["checkpoint"].keys()
    for metric, row in by_network["random"].items():
        if row["low"]:
            own = by_network["checkpoint"][metric]
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
            assert float(row["checkpoint_minus"]) == pytest.approx(float(own["value"]) - float(row["value"]))
            assert float(row["minus_low"]) <= float(row["checkpoint_minus"]) <= float(row["minus_high"])
    seeds = [float(by_network["checkpoint"]["linear_top1"][f"seed_{seed}"]) for seed in (0, 1)]
    assert float(by_network["checkpoint"]["linear_top1"]["value"]) == pytest.approx(sum(seeds) / 2)


def test_a_second_call_evaluates_nothing_and_writes_the_same_page(written, monkeypatch):
    folder, words, places = written
    before = page_of(folder).read_text()
    finished = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("done")}
    monkeypatch.setattr("studies.suite.execution.scoring.build_protocol", None)  # nothing may be evaluated again
    assert main([*words, *places]) == 0
    assert page_of(folder).read_text() == before
    assert finished == {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("done")}


def test_what_is_missing_alone_is_evaluated(written, tmp_path, capsys):
    folder, words, places = written
    more = [word.replace("linear,knn", "knn,linear_shift") for word in words]
    assert main([*more, *places, "--dry-run"]) == 0
    out, error = capsys.readouterr()
    assert error == ""  # nothing is said of the embedded images
    assert "knn: finished of checkpoint, supervised weights, random weights" in out
    assert "linear_shift: to be evaluated" in out and "scenes: left out" in out
    assert "12 evaluations of 3 networks, 3 missing" in out
    assert "images: shapes (60 train, 60 probe, 40 test) at 16 px; probe seeds: 2" in out
    assert main([f"checkpoint={words[0].partition('=')[2]}", *TINY, "--dry-run", "--store", str(tmp_path)]) == 0
    assert not list(tmp_path.rglob("record.json"))


def test_an_evaluation_is_known_by_content_protocol_and_data(files, tmp_path):
    def ids(path, *words):
        scoring = prepare(
            request([f"checkpoint={path}", *TINY, "protocols=knn", "supervised=none", *words]), check=False
        )
        return [scoring.id(network, scoring.protocols[0]) for network in scoring.networks]

    own, random = ids(files["mine"])
    copy = tmp_path / "elsewhere.pt"
    copy.write_bytes(files["mine"].read_bytes())
    assert ids(copy, "name=other") == [own, random]
    assert ids(files["labels"])[0] != own and ids(files["labels"])[1] == random
    for words in (["seeds=1"], ["size=20"], ["data.options.rho_train=0.5"], ["evaluation.test_limit=30"]):
        assert not {own, random} & set(ids(files["mine"], *words))


def test_files_with_a_hydra_configuration_are_read(files, tmp_path):
    """solo-learn's Lightning files hold one."""
    content = torch.load(files["mine"], weights_only=True)
    content["hyper_parameters"] = OmegaConf.create({"method": "byol", "sizes": [1, {"a": None}]})
    torch.save(content, tmp_path / "solo.ckpt")
    words = [f"checkpoint={tmp_path / 'solo.ckpt'}", f"supervised={files['labels']}", *TINY, "protocols=knn"]
    scoring = prepare(request(words), check=False)
    assert [network.name for network in scoring.networks] == ["checkpoint", "supervised", "random"]


def test_without_supervised_weights_the_page_says_how_to_give_them(files):
    scoring = prepare(request([f"checkpoint={files['mine']}", *TINY, "protocols=knn"]), check=False)
    assert [network.name for network in scoring.networks] == ["checkpoint", "random"]
    assert "`supervised=FILE` adds them (nothing is downloaded unasked)" in scoring.remarks[0]


def test_supervised_weights_are_taken_from_a_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert cached_weights({"name": "resnet18"}) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"x")
    path, source = cached_weights({"_target_": "x", "name": "resnet18", "channels_last": True})
    assert path.name == "resnet18-f37072fd.pth" and "torchvision" in source
    assert cached_weights({"name": "resnet18", "small_stem": True}) is None


def test_weights_of_another_normalisation_of_colours_are_not_taken_from_a_cache(tmp_path, monkeypatch):
    """timm's ViT-S, normalised by 0.5, was a reference that scored too low."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for model in ("deit_small_patch16_224.fb_in1k", "vit_small_patch16_224.augreg_in21k_ft_in1k"):
        snapshot = tmp_path / f"models--timm--{model}" / "snapshots" / "main"
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").write_bytes(b"x")
    path, source = cached_weights({"name": "timm/deit_small_patch16_224"})
    assert path.name == "model.safetensors" and "timm's deit_small_patch16_224.fb_in1k" in source
    assert cached_weights({"name": "vit_small_patch16_224"}) is None


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("a1_in1k", True), ("augreg_in21k_ft_in1k", True), ("lvd142m", False), ("dino", False), ("openai", False),
     ("laion2b_ft_in12k", False), ("clip_ft_in1k", False), ("mae", False), ("fb_ssl_yfcc100m_ft_in1k", False)],
)  # fmt: skip
def test_which_tags_are_supervised(tag, expected):
    assert is_supervised(tag) is expected


def test_the_same_file_is_no_comparison(files, capsys):
    words = [f"checkpoint={files['mine']}", f"supervised={files['mine']}", *FEW]
    assert main(words) == 2
    assert "the same network as checkpoint=" in capsys.readouterr().err


def test_a_failed_evaluation_is_reported_and_tried_again(files, tmp_path, monkeypatch, capsys):
    words = [f"checkpoint={files['mine']}", *TINY, "protocols=knn,collapse", "supervised=none",
             "--store", str(tmp_path / "runs"), "--out", str(tmp_path / "reports")]  # fmt: skip
    with monkeypatch.context() as patched:

        def broken(features):
            raise RuntimeError("no memory\nat all")

        patched.setattr("scd.evaluation.collapse.effective_rank", broken)
        assert main(words) == 1
    assert "checkpoint/collapse failed: RuntimeError: no memory" in capsys.readouterr().err
    (page,) = (tmp_path / "reports").glob("*.md")
    assert "Failed: checkpoint/collapse" in page.read_text()
    assert main(words) == 0
    assert "Failed" not in page.read_text()


# ---------------------------------------------------------------- bad input


def folder_of(path, images):
    for name, size in images.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if size:
            Image.effect_noise((size, size), 50).convert("RGB").save(path / name)
        else:
            (path / name).write_bytes(b"this is no image")
    return path


def pictures(*classes, count=6):
    return {
        f"{split}/{name}/{number}.png": 20 for split in ("train", "test") for name in classes for number in range(count)
    }


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({f"{number}.png": 20 for number in range(12)}, "one folder per class"),
        (pictures("only"), "one folder per class, two or more"),
        ({**pictures("one", "two"), "train/one/bad.png": 0}, "bad.png"),
    ],
    ids=["no classes", "one class", "no image"],
)
def test_images_that_cannot_be_scored_end_in_one_line(images, message, files, tmp_path, capsys):
    data = folder_of(tmp_path / "images", images)
    words = [f"checkpoint={files['mine']}", "backbone=resnet_micro", "tier=smoke", f"data={data}", "supervised=none"]
    assert main([*words, "--store", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not list(tmp_path.rglob("record.json")) and not (tmp_path / "out").exists()


def test_images_of_a_folder_are_described_before_they_are_scored_and_on_the_page(files, tmp_path, capsys):
    """Notes on names, labels, pixels and masks came before studies alone: here the same images had none."""
    data = folder_of(tmp_path / "images", {**pictures("one", "two"), "train/one/Thumbs.db": 0})
    for picture in (data / "train").rglob("*.png"):
        (picture.parent / f"{picture.stem}_flip.png").write_bytes(picture.read_bytes())
    words = [f"checkpoint={files['mine']}", "backbone=resnet_micro", "tier=smoke", f"data={data}", "supervised=none"]
    out = tmp_path / "out"
    words += ["protocols=knn", "--store", str(tmp_path / "runs"), "--out", str(out)]
    assert main([*words, "--dry-run"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "read as training: 24 images; 2 classes by the names of folders (images): 'one' 12, 'two' 12.",
        "read as test: 12 images; 2 classes by the names of folders (images): 'one' 6, 'two' 6.",
        "note: Files that are no images, not read (1: 1 .db): 'train/one/Thumbs.db'.",
    ]
    assert lines[-1] == "images were not decoded: notes on pixels, masks and labels come before the evaluation"
    assert main(words) == 0
    text, lines = next(out.glob("*.md")).read_text(encoding="utf-8"), capsys.readouterr().err.splitlines()
    for line in (
        "read as training: 24 images; 2 classes by the names of folders (images): 'one' 12, 'two' 12.",
        "note: Files that are no images, not read (1: 1 .db): 'train/one/Thumbs.db'.",
        "note: 12 of the 24 training images repeat an earlier one of them, "
        "which are trained on more often than others.",
    ):
        assert line in lines
        assert line.removeprefix("note: ").replace("read as", "Read as") in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dry-run"], "stopped"),
        ([], "stopped; finished evaluations are kept, and the same command continues from here"),
    ],
    ids=["dry run", "run"],
)
def test_ctrl_c_says_what_is_kept_where_something_was_evaluated(words, said, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "run", interrupted)
    assert main(["checkpoint=mine.pth", *words]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == f"\n{said}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["checkpoint=nowhere.pth", "backbone=resnet_micro"], "does not exist"),
        (["checkpoint={mine}", "backbone=resnet_tiny"], "choose another backbone="),
        (["checkpoint={mine}", "backbone=resnet_micro", "branch=momentum"], "choose backbone= or prefix="),
        (["checkpoint={mine}", "backbone=resnet_micro", "prefix=nothing."], "no name of 'mine.pth.tar' begins with it"),
        (["checkpoint={mine}", "backbone=resnet_micro", "supervised=nowhere.pth"], "does not exist"),
        (["checkpoint={mine}", "backbone=resnet_micro", "protocols=scenes"], "so none of protocols=scenes"),
    ],
)
def test_wrong_settings_end_before_anything_is_computed(words, message, files, tmp_path, capsys):
    words = [word.format(mine=files["mine"]) for word in words]
    assert main([*words, *TINY[1:], "--store", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not list(tmp_path.rglob("record.json")) and not (tmp_path / "out").exists()


def test_help_is_one_screen(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 45
    assert all(word in text for word in ("checkpoint=FILE", "supervised=FILE", "branch=NAME", "--dry-run"))


def test_the_command_is_imported_without_torch():
    code = "import sys, studies.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_records_are_apart_from_those_of_studies(written):
    folder = written[0]
    assert {path.name for path in (folder / "runs").iterdir()} == {"checkpoints"}
    assert len(list(Records(folder / "runs" / "checkpoints").finished())) == 12


def test_a_vit_of_another_side_is_said_or_refused(tmp_path):
    network = vit("vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=1, num_heads=3)
    torch.save(network.model.state_dict(), tmp_path / "v.pth")
    options = ["backbone.img_size=32", "backbone.embed_dim=24", "backbone.depth=1", "backbone.num_heads=3"]
    words = [
        f"checkpoint={tmp_path / 'v.pth'}",
        "backbone=vit_tiny_patch16_224",
        *options,
        "tier=smoke",
        "protocols=knn",
    ]
    assert not [text for text in prepare(request(words), check=False).remarks if "built for" in text]
    (said,) = [text for text in prepare(request([*words, "size=64"]), check=False).remarks if "built for" in text]
    assert said.startswith("The ViT was built for 32 px and sees 64 px: 16 patches in the place of 4,")
    with pytest.raises(UsageError, match="size=40: images of 40 px do not split into patches of 16 px; give size=32"):
        prepare(request([*words, "size=40"]), check=False)


def test_few_test_images_are_said(files):
    words = [f"checkpoint={files['mine']}", *TINY, "protocols=knn", "data.test_limit=8"]
    assert "There are 8 test images: intervals over so few" in " ".join(prepare(request(words), check=False).remarks)
