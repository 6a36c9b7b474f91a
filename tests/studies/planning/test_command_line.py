"""From words to settings: composition, merging, and one clear line for every wrong word."""

import re

import pytest

from scd.errors import UsageError
from studies import __main__ as command_line
from studies.suite.planning.command_line import load_study, resolve_settings, study_names

# ---------------------------------------------------------------- wrong words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tier=cpuu"], r"unknown tier 'cpuu'; did you mean 'cpu'\? valid: cpu, gpu, paper, smoke"),
        (["data=shape"], r"unknown data 'shape'; did you mean 'shapes'\? valid: FOLDER, cifar10"),
        (["data=no/such/folder"], r"data: 'no/such/folder' does not exist; give a folder, or one of cifar10"),
        (["data=path"], r"data=path needs the folder itself: data=FOLDER"),
        (["data=parquet"], r"option 'data\.locations\.test' needs a value"),
        (["method=mocco"], r"unknown method 'mocco'; did you mean 'moco'\? valid: asym_siam, barlow_twins, byol, "),
        (["launcher=slrm"], r"unknown launcher 'slrm'; did you mean 'slurm'\? valid: local, slurm"),
        (["backbone=resnet"], r"unknown backbone 'resnet'; did you mean 'resnet50'\?.* valid: resnet18_small"),
        (["tiers=cpu"], r"unknown option 'tiers'; did you mean 'tier'\? valid: .*training"),
        (["training.batchsize=3"], r"'training\.batchsize'; did you mean 'training\.batch_size'\? valid: training"),
        (["seeds=x"], r"seeds=x: give how many \(seeds=5\) or which ones"),
        (["seeds=0"], r"seeds=0: give how many"),
        (["seeds=3,3"], r"seeds=3,3: .* each once"),
        (["minutes=0"], r"minutes=0: give a number above 0, for example minutes=20"),
        (["minutes=soon"], r"minutes=soon: give a number above 0"),
        (["minutes=nan"], r"minutes=nan: give a number above 0"),
        (["minutes=20", "seeds=3"], r"give seeds= or minutes=, not both: seeds= fixes the seeds, minutes= adds seeds"),
        (["multicrop2"], r"'multicrop2' is not of the form key=value; for example tier=cpu"),
        (["training.batch_size=[1"], r"cannot read 'training\.batch_size=\[1'"),
        (["launcher.workers.x=1"], r"option 'launcher\.workers' is a single value and has no 'x'"),
        (["evaluation.further=[]"], r"evaluation\.further is part of evaluation\.protocols now"),
    ],
)
def test_a_wrong_word_gets_one_line(words, message):
    with pytest.raises(UsageError, match=message) as raised:
        resolve_settings("multicrop", words)
    assert "\n" not in str(raised.value)


def test_an_unknown_study_ends_with_code_2_and_no_traceback(capsys, tmp_path):
    assert command_line.main(["multicorp", "--store", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: unknown study 'multicorp'; did you mean 'multicrop'?")
    assert "Traceback" not in captured.err and captured.err.count("\n") == 1


def test_an_unknown_arm_ends_with_code_2(capsys, tmp_path):
    assert command_line.main(["multicrop", "arms=moco,scdd", "--store", str(tmp_path)]) == 2
    assert "unknown arm 'scdd'; did you mean 'scd'? valid:" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- right words


def test_seeds_are_a_number_or_a_list():
    assert resolve_settings("multicrop", ["seeds=3"]).seeds == (0, 1, 2)
    assert resolve_settings("multicrop", ["seeds=4,7"]).seeds == (4, 7)
    assert resolve_settings("multicrop", ["seeds=[5]"]).seeds == (5,)


def test_a_time_budget_may_use_the_seeds_of_the_last_reading_and_changes_no_run():
    last = load_study("mechanism").looks[-1]
    timed, plain = (resolve_settings("mechanism", [word]) for word in ("minutes=20", f"seeds={last}"))
    assert timed.minutes == 20 and plain.minutes is None
    assert timed.seeds == plain.seeds == tuple(range(last)) and timed.base == plain.base and timed.given == plain.given


def test_the_default_is_the_cpu_tier_on_embedded_images():
    settings = resolve_settings("multicrop", [])
    assert (settings.tier, settings.data, settings.page) == ("cpu", "shapes", "multicrop")
    assert settings.meaningful and len(settings.seeds) >= 3
    assert settings.base["backbone"]["name"] == "resnet_tiny"
    assert settings.base["training"]["accelerator"] == "cpu"


@pytest.mark.parametrize("tier", ["smoke", "cpu", "gpu", "paper"])
def test_every_tier_composes_with_every_method(tier):
    for method in ("moco", "moco_symmetric", "byol"):
        settings = resolve_settings("multicrop", [f"tier={tier}", f"method={method}"])
        assert settings.base["method"] == settings.presets["method"][method]
        batch, queue = settings.base["training"]["batch_size"], settings.presets["method"]["moco"]["queue_size"]
        assert queue % (2 * batch) == 0


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ([], "multicrop"),
        (["tier=smoke", "method=byol"], "multicrop-byol-smoke"),
        (["backbone=resnet50", "optimizer.lr=0.5"], "multicrop-backbone-resnet50-lr-0.5"),
        (["seeds=7", "evaluation.protocols=[knn]", "launcher.workers=1"], "multicrop"),
        (["minutes=20"], "multicrop"),
        (["arms=moco,scd"], "multicrop-arms-moco-scd"),
        (["arms=[moco, scd]", "axes.rho=[0.0, 0.8]"], "multicrop-arms-moco-scd-rho-0.0-0.8"),
    ],
)
def test_the_page_names_what_changes_its_runs(words, page):
    """D7: backbone=... optimizer.lr=0.5 used to overwrite the default page."""
    assert resolve_settings("multicrop", words).page == page


def test_long_or_unusual_changes_get_a_short_hash():
    words = ["views.scale=[0.1,1.0]", "presets.wrapper.scd.margin=2", "optimizer.weight_decay=0.0001"]
    pages = {resolve_settings("multicrop", [*words, f"sizes.dim={dim}"]).page for dim in (16, 32)}
    assert len(pages) == 2 and all(re.fullmatch(r"multicrop-[0-9a-f]{8}", page) for page in pages)


def test_a_folder_is_data_and_its_place_is_not_in_the_configuration(tmp_path):
    folder = tmp_path / "my, own = images"
    folder.mkdir()
    settings = resolve_settings("multicrop", [f"data={folder}", "data.options.columns.image=img"])
    assert settings.data == "my, own = images"
    assert settings.locations == {"path": str(folder)}
    assert settings.base["data"]["options"]["columns"]["image"] == "img"
    assert str(tmp_path) not in repr(settings.base)


def test_paths_of_parquet_files_may_hold_spaces():
    words = ["data=parquet", "data.locations.train=/a b/it's, one.parquet", "data.locations.test=/c.parquet"]
    assert resolve_settings("multicrop", words).locations == {
        "train": "/a b/it's, one.parquet",
        "test": "/c.parquet",
    }


def test_options_reach_the_run_and_references_follow():
    settings = resolve_settings("multicrop", ["sizes.dim=24", "presets.wrapper.scd.margin=2", "backbone=resnet50"])
    assert settings.base["method"]["dim"] == 24
    assert settings.presets["wrapper"]["scd"]["margin"] == 2
    assert settings.base["backbone"]["name"] == settings.given["backbone"]["name"] == "resnet50"
    assert "widths" not in settings.base["backbone"]


def test_every_study_can_be_listed():
    assert "multicrop" in study_names()
    listing = command_line.listing()
    for name in study_names():
        assert name in listing and load_study(name).question in listing


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 s"), (90, "2 min"), (1500, "25 min"), (3 * 3600, "3.0 h"), (4 * 86400, "4.0 days")]
)
def test_durations_in_words(seconds, words):
    assert command_line.in_words(seconds) == words
