"""The method and the study that the README shows work as they stand there."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pandas
import pytest
import torch
from omegaconf import OmegaConf

from scd.data.views import View
from scd.nn.backbone import build_backbone
from studies.suite.planning.settings import resolve_settings
from studies.suite.planning.study import Standing

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def example(section: str, language: str) -> str:
    """The first code block of a language under a heading of the README."""
    body = README.split(f"## {section}\n", 1)[1]
    return re.search(rf"```{language}\n(.*?)```", body, re.DOTALL).group(1)


def load(name: str, text: str, folder: Path) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("section", ["Add a method", "Add a study"])
def test_examples_are_short(section):
    assert len(example(section, "python").splitlines()) < 40


def test_the_method_of_the_readme_trains(tmp_path):
    module = load("simsiam", example("Add a method", "python"), tmp_path)
    config = OmegaConf.create(example("Add a method", "yaml"))
    assert config["_target_"] == "baselines.simsiam.SimSiam"
    config["sizes"] = {"dim": 16, "hidden": 32}
    torch.manual_seed(0)
    method = module.SimSiam(build_backbone("resnet_tiny", widths=(8, 16), strides=(1, 2)), config.dim, config.hidden)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    base = torch.randn(8, 3, 16, 16)
    losses = []
    for i in range(8):
        views = {}
        for name in ("v1", "v2"):
            images = base + 0.3 * torch.randn(base.shape, generator=torch.Generator().manual_seed(i))
            views[name] = View(name, "global", images, torch.zeros(8, 4), torch.zeros(8, dtype=torch.bool))
        loss = method(views)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step((i + 1) / 8)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for online, target in zip(method.backbone.parameters(), method.target_backbone.parameters(), strict=True):
        assert torch.equal(online, target)


def test_the_study_of_the_readme_plans_its_runs_and_writes_its_page(tmp_path):
    study = load("map_depth", example("Add a study", "python"), tmp_path).STUDY
    settings = resolve_settings(study.name, ["tier=smoke", "seeds=2"], tmp_path / "runs", tmp_path / "reports")
    plan = study.plan(settings)
    assert [(spec.labels["arm"], spec.labels["seed"]) for spec in plan] == [
        ("linear", 0), ("mlp", 0), ("linear", 1), ("mlp", 1),
    ]  # fmt: skip
    assert [spec.config["wrapper"]["saliency"]["depth"] for spec in plan[:2]] == [1, 2]
    assert len({spec.id for spec in plan}) == 4
    page = study.render(settings, pandas.DataFrame(), Standing(planned=4, done=0, plan=tuple(plan)))
    text = page.read_text()
    assert text.startswith("# Does the saliency head need a hidden layer?")
    assert "R5-a" in text and "SCD, linear map" in text
    assert (page.parent / "README.md").exists()
