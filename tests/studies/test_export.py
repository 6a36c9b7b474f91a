"""The command that exports the backbone of a run: the folder, its card, and one line for whatever is wrong."""

import json
import os
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from stored_runs import configuration, planned

from scd.nn.backbone import build_backbone
from scd.nn.vit import vit
from studies.export import main
from studies.suite.execution.store import Store
from studies.suite.planning.identity import ROOT

RESNET = {"_target_": "scd.nn.backbone.build_backbone", "name": "resnet18", "small_stem": True, "channels_last": True}
RECORD = {"supervision": "none", "steps": 10, "epochs": 1.0, "images_seen": 160, "total_flops": 3.1e8}
ENVIRONMENT = {
    "numerics": {"class": "abcd1234", "processor": "a processor", "threads": 1, "device": "cpu"},
    "git": {"commit": "c" * 40, "dirty": False},
    "libraries": {"torch": "2.15.0", "timm": None},
}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def run_folder(store, backbone, config, record=RECORD, environment=ENVIRONMENT, finish=True, **others):
    """A pretraining of a small plan with another backbone, written by the store's own writer without being trained."""
    whole = {**configuration(planned()[0]), "backbone": config, **others}
    with store.pretraining.claim("0" * 16) as folder:
        store.pretraining.begin("0" * 16, whole)
        state = {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}
        save_file(state, folder / "backbone.safetensors")
        if finish:
            store.pretraining.finish("0" * 16, record, environment)
    return folder


def add_evaluation(store, run, numbers, name="1" * 16, pretraining="0" * 16):
    (protocol,) = planned()[0].evaluations.values()
    config = configuration(planned()[0], protocol, pretraining)
    with store.evaluations.claim(name):
        store.evaluations.begin(name, config)
        store.evaluations.finish(name, {"protocol": "linear", "numbers": numbers, "seconds": 1.0}, ENVIRONMENT)


def backbone_of(config):
    torch.manual_seed(0)
    return build_backbone(**{key: value for key, value in config.items() if key != "_target_"})


def test_the_command_exports_and_checks_a_run(store, capsys):
    folder = run_folder(store, backbone_of(RESNET), RESNET)
    add_evaluation(store, folder.name, {"linear_top1": 0.5, "n_test": 40})
    add_evaluation(store, folder.name, {"linear_top1": 0.1}, "2" * 16, pretraining="f" * 16)  # of another run
    add_evaluation(store, folder.name, {"linear_top1": 0.2}, "3" * 16)
    (store.evaluations.folder("3" * 16) / "record.json").write_text('{"numbers": {"linear_top1": 0.9}}')  # damaged
    assert main([str(folder)]) == 0
    out = folder / "exported" / "torchvision"
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: resnet18 under the names of torchvision; features differ by ")
    assert said.endswith("README.md has 2 numbers of 1 evaluations\n")
    assert {path.name for path in out.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert "layer4.1.bn2.running_var" in load_file(out / "model.safetensors")
    if os.name == "posix":
        assert all(path.stat().st_mode & 0o777 == 0o644 for path in out.iterdir())
    card = ModelCard.load(out / "README.md")
    facts = card.data.scd_suite
    assert facts["run"] == folder.name and facts["commit"] == "c" * 40 and facts["method"] == "MoCo"
    assert facts["numerics"] == "abcd1234 (processor a processor, device cpu, threads 1)"
    assert facts["budget"].endswith("10 steps, 1 epochs, 160 source images, 3.1e+08 FLOPs (2 per multiply-add)")
    assert [(each.metric_type, each.metric_value) for each in card.data.eval_results] == [("linear_top1", 0.5)]
    assert "n_test" in card.text and card.data.license == "mit" and "embedded generator `Shapes`" in card.text


def test_the_command_takes_any_backbone(store, tmp_path, capsys):
    options = {"name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 8, "depth": 1}
    started = {"_target_": "scd.nn.vit.vit", "weights": "timm/cannot-be-downloaded", **options}
    folder = run_folder(store, vit(**options), started)  # its own weights take the place of the initial ones
    out = tmp_path / "mine"
    assert main([str(folder), "--naming", "timm", "--out", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["architecture"] == "vit_tiny_patch16_224"
    assert "- **Initial weights:** timm/cannot-be-downloaded" in (out / "README.md").read_text()


def test_a_patch_that_does_not_divide_the_usual_check_image(store, tmp_path):
    """The check had images of 64 px, which a ViT with patches of 14 px does not take."""
    options = {"name": "vit_tiny_patch16_224", "img_size": 28, "patch_size": 14, "depth": 1}
    whole = configuration(planned()[0])
    evaluation = {**whole["evaluation"], "size": 28}
    folder = run_folder(store, vit(**options), {"_target_": "scd.nn.vit.vit", **options}, evaluation=evaluation)
    assert main([str(folder), "--naming", "timm", "--out", str(tmp_path / "mine")]) == 0


def test_an_earlier_export_is_replaced_and_other_files_are_not(store, tmp_path, capsys):
    folder, out = run_folder(store, backbone_of({**RESNET, "small_stem": False}), {**RESNET, "small_stem": False}), ""
    out = tmp_path / "mine"
    assert main([str(folder), "--naming", "detectron2", "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"README.md", "model.pth", "model.safetensors"}
    assert "names and shapes fit" in capsys.readouterr().out
    assert main([str(folder), "--naming", "torchvision", "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    (out / "notes.txt").write_text("mine")
    assert main([str(folder), "--out", str(out)]) == 2
    assert "holds other files (README.md, config.json, model.safetensors)" in capsys.readouterr().err
    project = tmp_path / "project"
    project.mkdir()
    (project / "README.md").write_text("# my project")
    assert main([str(folder), "--out", str(project)]) == 2
    assert (project / "README.md").read_text() == "# my project"


def test_the_licence_of_ones_own_images_is_given_by_the_user(store, tmp_path):
    data = configuration(planned()[0])["data"]
    own = {**data, "title": "mine", "options": {"_target_": "scd.data.sources.path.PathSource"}}
    folder = run_folder(store, backbone_of(RESNET), RESNET, data=own)
    for words, licence in (([], None), (["--licence", "CC BY 4.0"], "CC BY 4.0")):
        assert main([str(folder), "--out", str(tmp_path / "mine"), *words]) == 0
        card = ModelCard.load(tmp_path / "mine" / "README.md")
        assert card.data.scd_suite["licence_of_the_images"] == licence and card.data.license == "unknown"


def test_a_run_without_its_store_has_a_card_without_numbers(store, tmp_path, capsys):
    folder = run_folder(store, backbone_of(RESNET), RESNET, environment={})
    moved = folder.rename(tmp_path / "0123")
    assert main([str(moved)]) == 0
    text = (moved / "exported" / "torchvision" / "README.md").read_text()
    assert "No finished evaluation of this run is stored." in text and "The numerics class of the machine." in text


def test_the_command_names_what_is_wrong_in_one_line(store, tmp_path, capsys):
    def said(*words):
        assert main([str(word) for word in words]) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1 and text.startswith("error: ")
        return text

    assert "there is no folder" in said(tmp_path / "none")
    assert "is not a run: its config.json cannot be read" in said(tmp_path)
    tiny = {"_target_": "scd.nn.backbone.build_backbone", "name": "resnet_tiny", "widths": [8, 8, 8]}
    folder = run_folder(store, build_backbone("resnet_tiny"), tiny, finish=False)
    assert "run 0000000000000000 has not finished" in said(folder)
    store.pretraining.fail(folder.name, "the loss is not finite")
    assert "run 0000000000000000 failed: the loss is not finite" in said(folder)
    folder = run_folder(store, build_backbone("resnet_tiny"), tiny)
    assert "backbone.safetensors is not the backbone of its config.json" in said(folder, "--naming", "suite")
    (folder / "backbone.safetensors").unlink()
    assert "cannot be read as weights" in said(folder, "--naming", "suite")
    (folder / "record.json").write_text("{}")
    assert "is damaged: its record does not match its checksum" in said(folder)
    add_evaluation(store, folder.name, {"linear_top1": 0.5})
    assert "is no pretraining: its config.json has no 'backbone'" in said(store.evaluations.folder("1" * 16))


def test_a_folder_that_cannot_be_written_is_named_in_one_line(store, tmp_path, capsys):
    folder = run_folder(store, backbone_of(RESNET), RESNET)

    def said(*words):
        assert main([str(folder), *(str(word) for word in words)]) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    assert "there is no folder" in said("--out", tmp_path / "missing" / "weights")
    assert "'weights.safetensors' is the name of a file" in said("--out", tmp_path / "weights.safetensors")
    (tmp_path / "file").write_text("")
    assert "it is a file" in said("--out", tmp_path / "file")
    (folder / "exported").write_text("in the place of the folder")
    assert "cannot be written: Not a directory" in said()
    assert "7x7 convolution" in said("--naming", "detectron2", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".writing*"))


def test_export_is_in_no_identity():
    """A change of the export makes no stored run stale; what ``studies.evaluate`` scores is no run."""
    code = (
        "from pathlib import Path; from studies.suite.planning import identity as i;"
        "files = [p for part in ('scd', 'baselines') for p in Path(part).rglob('*.py') if p.parts[:2] not in "
        "(('scd', 'export'), ('scd', 'checkpoints')) and p.stem != '__init__'];"
        "roots = [*i.PRETRAINING, *i.EVALUATION, *i.MEASUREMENT, *('.'.join(p.with_suffix('').parts) for p in files)];"
        "print(len(roots), [name for name in i.reachable(roots) if name.startswith('scd.export')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    count, found = done.stdout.strip().split(" ", 1)
    assert int(count) > 100 and found == "[]"
