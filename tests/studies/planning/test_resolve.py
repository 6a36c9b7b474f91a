"""Plans: budgets in steps, equal FLOPs, runs that are shared, protocols that the data allow."""

import pytest

from scd.data.images import memory_bytes
from scd.data.sources.coco import Coco
from scd.data.sources.parquet import Parquet
from scd.errors import DataError, UsageError
from studies.suite.planning.assembly import open_data
from studies.suite.planning.command_line import load_study, resolve_settings, study_names
from studies.suite.planning.protocols import build_protocol, evaluation_data
from studies.suite.planning.resolve import Resolver, preview, resolve, sets_in_memory, unique, with_classes
from studies.suite.planning.study import Arm

MOCO = Arm("moco", "MoCo", {}, "", "")
SCD = Arm("scd", "SCD", {"wrapper": "scd"}, "", "")
MORE_VIEWS = Arm("views", "", {"views": {"extra": {"kind": "random", "count": 2}}}, "", "")


@pytest.fixture(scope="module")
def settings():
    return resolve_settings("multicrop", ["tier=smoke", "sizes.generated_train=80", "sizes.generated_test=40"])


def test_equal_flops_are_at_most_the_references_and_within_one_step(settings):
    reference, arm = resolve(
        [settings.spec(MOCO, 0), settings.spec(MORE_VIEWS, 0, "flops", reference=MOCO)], check=False
    )
    assert reference.steps == 80 // 16
    assert arm.spec.flops_per_step > 1.5 * reference.spec.flops_per_step
    assert 0 <= reference.flops - arm.flops < arm.spec.flops_per_step


def test_too_few_images_for_equal_flops_say_so():
    """The refusal named two numbers of FLOPs, and neither the images nor what to change."""
    few = resolve_settings("multicrop", ["tier=smoke", "sizes.generated_train=16", "sizes.generated_test=40"])
    text = (
        r"equal FLOPs pay for no step of '.*': the budget is that of 1 step\(s\) of the reference, and one step costs "
        r"as much as \d\.\d+ of them; '.*' has too few training images \(1 batch\(es\) of 16\): give more images, a "
        r"lower training.batch_size or a higher training.budget.value, or leave out equal FLOPs with axes.budgets="
    )
    with pytest.raises(UsageError, match=text):
        resolve([few.spec(MORE_VIEWS, 0, "flops", reference=MOCO)], check=False)
    assert resolve([few.spec(MOCO, 0, "flops", reference=MOCO)], check=False)[0].steps == 1


def test_the_reference_in_flops_is_the_same_run_as_in_epochs(settings):
    both = resolve([settings.spec(MOCO, 0), settings.spec(MOCO, 0, "flops", reference=MOCO)], check=False)
    assert both[0].spec.id == both[1].spec.id
    assert both[0].spec.labels["budget"] != both[1].spec.labels["budget"]
    assert len(unique(both)) == 1


def test_seeds_come_one_after_the_other(settings):
    specs = [settings.spec(arm, seed) for arm in (MOCO, SCD) for seed in (0, 1)]
    ordered = [item.spec.labels["seed"] for item in unique(resolve(specs, check=False)).values()]
    assert ordered == [0, 0, 1, 1]


def test_a_batch_larger_than_the_set_is_an_error(settings):
    spec = settings.spec(MOCO, 0, overrides={"training": {"batch_size": 128}})
    with pytest.raises(UsageError, match="training.batch_size=128 is more than the 80 training images of 'shapes'"):
        resolve([spec], check=False)


def test_runs_of_one_pretraining_are_one_run_with_the_protocols_of_all(settings):
    spec = settings.spec(MOCO, 0)
    knn, linear = (settings.protocol(name) for name in ("knn", "linear"))
    specs = [spec.with_protocols([knn]), spec.with_protocols([linear, knn])]
    (only,) = unique(resolve(specs, check=False)).values()
    assert [protocol["name"] for protocol in only.spec.evaluations.values()] == ["knn", "linear"]


def test_another_seed_of_the_probe_is_another_run_on_the_same_pretraining(settings):
    specs = [settings.spec(MOCO, 0, overrides={"seed_of": {"probe": seed}}) for seed in (None, 7)]
    first, second = unique(resolve(specs, check=False)).values()
    assert first.spec.id == second.spec.id and not set(first.spec.evaluations) & set(second.spec.evaluations)


def test_protocols_whose_input_the_data_lack_are_left_out():
    scenes = resolve_settings(
        "multicrop",
        ["tier=smoke", "data=scenes", "sizes.generated_train=40", "sizes.generated_test=20",
         "evaluation.protocols=[knn,collapse]"],
    )  # fmt: skip
    (planned,) = resolve([scenes.spec(MOCO, 0)])
    assert [protocol["name"] for protocol in planned.spec.evaluations.values()] == ["collapse"]


def test_a_supervised_method_takes_its_classes_from_the_data(settings):
    assert with_classes({"_target_": "a.A", "classes": "from_data"}, 7, "x")["classes"] == 7
    assert with_classes({"_target_": "a.A", "classes": 3}, 7, "x")["classes"] == 3
    with pytest.raises(DataError, match="'a.A' learns from labels, and 'x' has none"):
        with_classes({"_target_": "a.A", "classes": "from_data"}, None, "x")
    (planned,) = resolve([settings.spec(Arm("s", "", {"method": "supervised"}, "", ""), 0)], check=False)
    assert planned.spec.config["method"]["classes"] == 4


# ---------------------------------------------------------------- sizes


def folder_of_images(folder):
    """Parquet files of tiny images with labels."""
    Parquet.example(folder)
    return folder


def test_images_that_do_not_fit_into_memory_are_found_when_the_plan_is_made(tmp_path, monkeypatch):
    """D2: tier=paper data=imagenet planned 18 GiB of evaluation images above the limit of 16, and a dry run passed."""
    monkeypatch.setattr("scd.data.images.largest_bytes", lambda: 5_000)
    folder = folder_of_images(tmp_path)
    own = resolve_settings("multicrop", ["tier=smoke", f"data={folder}", "training.batch_size=4"])
    with pytest.raises(UsageError, match="needs .* GiB, more than half of this machine's memory; set a limit"):
        resolve([own.spec(MOCO, 0)], check=False)
    streamed = ["data.stream=true", "evaluation.train_limit=2", "evaluation.test_limit=2", "data.size=16"]
    own = resolve_settings("multicrop", ["tier=smoke", f"data={folder}", "training.batch_size=4", *streamed])
    assert resolve([own.spec(MOCO, 0)], check=False)


def test_the_papers_limit_of_evaluation_images_fits_a_machine_of_32_gib():
    paper = resolve_settings("multicrop", ["tier=paper", "data=imagenet"]).base
    assert memory_bytes(paper["evaluation"]["train_limit"], paper["data"]["size"], False) < 16 * 2**30


@pytest.mark.parametrize("stream", ["true", "false"])
def test_steps_are_counted_by_the_limit_of_training_images_streamed_or_not(tmp_path, stream):
    """D3: streaming ignored train_limit, while the plan counted by it."""
    folder = folder_of_images(tmp_path)
    words = ["tier=smoke", f"data={folder}", "training.batch_size=4", "data.train_limit=8", f"data.stream={stream}"]
    own = resolve_settings("multicrop", words)
    (planned,) = resolve([own.spec(MOCO, 0)], check=False)
    assert planned.steps == 2


# ---------------------------------------------------------------- plans that are only shown

DECLARED = {"train": 1_281_167, "test": 50_000, "classes": 1000, "masks": False}


def test_a_plan_on_data_that_are_not_here_is_shown_from_declared_sizes():
    paper = resolve_settings("multicrop", ["tier=paper", "data=imagenet", "evaluation.protocols=[knn]"])
    assert paper.declared == DECLARED
    tiny = {"backbone": {"_target_": "scd.nn.backbone.build_backbone", "name": "resnet_tiny"}, "views": {"size": 32}}
    specs = [paper.spec(arm, 0, overrides=tiny) for arm in (MOCO, Arm("s", "", {"method": "supervised"}, "", ""))]
    planned, notes = preview(specs, paper.declared)
    assert planned[0].steps == 200 * (1_281_167 // 256) and planned[1].spec.config["method"]["classes"] == 1000
    assert planned[0].memory.total > planned[0].memory.activations > 0 and planned[0].memory.images == 0
    (note,) = notes
    assert note.startswith("'imagenet' is not here, its sizes are those that are declared: cannot get")
    with pytest.raises(DataError, match="cannot get 'ILSVRC/imagenet-1k' from the hub"):
        preview(specs, {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("{}", "is not COCO's instances format"),
        (None, "is not here, its sizes are those that are"),
    ],
)
def test_a_plan_on_faulty_data_is_refused_as_the_run_is(tmp_path, text, reason):
    """A file that could not be read was taken for one that is not here, and the plan was shown."""
    Coco.example(tmp_path)
    file = tmp_path / "train.json"
    file.unlink() if text is None else file.write_text(text)
    places = {"images": "train", "annotations": "train.json", "test_images": "test", "test_annotations": "test.json"}
    words = [f"data.locations.{key}={tmp_path / place}" for key, place in places.items()]
    own = resolve_settings("scene_coco", ["tier=smoke", "data=coco", *words])
    assert own.declared
    spec = own.spec(MOCO, 0)
    if text is None:
        _, (note, *_) = preview([spec], own.declared)
        assert reason in note
        return
    messages = []
    for plan in (lambda: preview([spec], own.declared), lambda: resolve([spec])):
        with pytest.raises(DataError, match=reason) as found:
            plan()
        messages.append(str(found.value))
    assert messages[0] == messages[1]


def test_sets_that_do_not_fit_are_noted_when_a_plan_is_shown_and_refused_when_it_runs(monkeypatch):
    """D2, and the same for embedded images, which the plan did not look at."""
    monkeypatch.setattr("scd.data.images.largest_bytes", lambda: 80 * 24 * 24 * 4 - 1)  # one byte less than the images
    own = resolve_settings("multicrop", ["tier=smoke", "sizes.generated_train=80", "sizes.generated_test=40"])
    planned, notes = preview([own.spec(MOCO, 0)], {})
    assert len(planned) == 1 and notes == [
        "this plan cannot run here: 'shapes' train at 24 px needs 0.0 GiB, more than half of this machine's memory; "
        "set a limit (data.train_limit, evaluation.train_limit, ...) or train with data.stream=true"
    ]
    with pytest.raises(UsageError, match="'shapes' train at 24 px needs"):
        resolve([own.spec(MOCO, 0)], check=False)


def test_a_streaming_protocol_holds_no_images_and_has_its_own_limit_of_training_images():
    """The paper tier's limit of 50,000 images for probes also limited detection, which streams."""
    words = ["tier=smoke", "data.stream=true", "evaluation.train_limit=10", "sizes.generated_train=80"]
    own = resolve_settings("multicrop", words)
    knn, detection = own.protocol("knn"), {**own.protocol("detection"), "stream": True, "train_limit": None}
    config = own.spec(MOCO, 0).with_protocols([detection]).config
    opened = Resolver(check=False).open(own.spec(MOCO, 0))
    assert sets_in_memory(config, opened) == {}
    both = own.spec(MOCO, 0).with_protocols([detection, knn]).config
    assert sets_in_memory(both, opened)["'shapes' train at 24 px"] == 10 * 24 * 24 * 4
    data = evaluation_data(config, open_data(config["data"], {}))
    assert build_protocol(detection).own_data(data).train_limit is None
    assert build_protocol(knn).own_data(data).train_limit == 10


@pytest.mark.parametrize("name", study_names())
def test_every_study_plans_at_the_paper_tier(name):
    """Every backbone and method is complete; cost-profile's ResNet-101 had lost its class."""
    specs = load_study(name).plan(resolve_settings(name, ["tier=paper", "seeds=1"]))
    configs = [config for spec in specs for config in spec.config.get("arms", {"arm": spec.config}).values()]
    assert configs and all("_target_" in config[part] for config in configs for part in ("backbone", "method"))
