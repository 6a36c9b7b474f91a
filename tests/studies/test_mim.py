"""The study of masked image modelling: one ViT, two budgets, claims by each protocol, and the check of MAE."""

import numpy
import pytest
from synthetic_results import settings_of, study_results

from scd.errors import UsageError
from scd.evaluation.metric import SHARE, Metric
from studies import mim
from studies.mim import AXES, CLAIMS, PUBLISHED, STUDY
from studies.suite.pages import figures, map_figures
from studies.suite.pages.publish import publish

METRICS = {name: Metric(text, SHARE, "higher", f"what {name} is") for name, text in AXES.items()}
MAE = ("mae", "flops")
FINE_TUNED = {"finetune_top1", "labels10_top1", "labels1_top1"}
LEVELS = {"random": 0.2, "mae_25": 0.3, "mae": 0.4, "dino": 0.43, "scd": 0.44, "scd_moco": 0.42}
COST = {"mae": 1e6, "mae_25": 2e6, "dino": 7.9e6, "scd": 8e6, "scd_moco": 3e6}  # training FLOPs of an image


def results_with(values, tmp_path=None, seeds=5, words=()):
    """Results in which an arm's number by a protocol is ``values(arm, metric)`` and a little more by seed."""
    settings = settings_of("mim", tmp_path, seeds, words=words)

    def numbers(arm, seed):
        draws = numpy.random.default_rng([seed, *arm.encode()]).normal(0, 0.0005, len(AXES))
        return {metric: values(arm, metric) + 0.01 * seed + luck for metric, luck in zip(AXES, draws, strict=True)}

    results = study_results(STUDY, {}, settings, numbers)
    runs, is_long = results.runs, (results.runs["budget"] == "flops") & results.runs["arm"].isin(["mae"])
    epochs = is_long.map({True: 16.0, False: 2.0})
    cost = runs["arm"].map(COST)
    own = (runs["budget"] == "epochs") & ~runs["arm"].isin(mim.IN_BOTH)
    runs = runs.assign(epochs=epochs, images_seen=100 * epochs, total_flops=100 * epochs * cost, seconds_pretrain=7.0)
    runs = runs.assign(**{metric: runs[metric].mask(own | (runs["arm"] == "mae_25")) for metric in FINE_TUNED})
    return results.with_runs(runs, METRICS)


def usual(arm, metric):
    """MAE above random weights, with 75 % masked above 25 %, and behind but for fine-tuning with all labels."""
    return 0.5 if (arm, metric) == ("mae", "finetune_top1") else LEVELS[arm]


def page(values, tmp_path, **options):
    return publish(STUDY, results_with(values, tmp_path, **options), tmp_path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The page of the usual results, for tests that read different parts of it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (figures, map_figures):
            patch.setattr(module, "save", lambda figure, path: figures.plt.close(figure))
        return page(usual, tmp_path_factory.mktemp("reports"))


def answers(text):
    return {line.split("*")[1]: line for line in text.split("<details>")[0].splitlines() if line.startswith("- *")}


def section(text, title):
    found = text.split(f"<b>{title}</b>")[1].split("</details>")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines() if line[:1] == "|"]


# -------------------------------------------------------------------- plan


@pytest.fixture(scope="module")
def configs():
    """Configurations by tier, arm and budget."""
    found = {}
    for tier in ("cpu", "paper"):
        settings = settings_of("mim", seeds=1, words=(f"tier={tier}", "arms=all"))
        for spec in mim.plan(settings):
            found[tier, spec.labels["arm"], spec.labels["budget"]] = spec.config
    return found


@pytest.mark.parametrize("tier", ["cpu", "paper"])
def test_every_arm_has_one_vit_and_equal_epochs(configs, tier):
    own = {"weight_init", "fixed_patches", "drop_path_rate"}  # how it starts, and DINO's drop path on the tier paper
    shapes = {
        arm: {key: value for key, value in config["backbone"].items() if key not in own}
        for (of, arm, _), config in configs.items()
        if of == tier
    }
    assert len(shapes) == 7 and all(shape == shapes["dino"] for shape in shapes.values())
    budgets = [configs[tier, arm, "epochs"]["training"]["budget"] for arm in shapes if arm != "random"]
    assert all(budget == {"unit": "epochs", "value": 2 if tier == "cpu" else 100} for budget in budgets)
    mae = configs[tier, "mae", "epochs"]
    assert mae["backbone"]["weight_init"] == "jax" and mae["backbone"]["drop_path_rate"] == 0
    assert mae["optimizer"]["betas"] == [0.9, 0.95] and mae["views"]["recipe"] == "single"


def test_moco_has_dinos_recipe_without_its_local_views(configs):
    dino, moco = configs["cpu", "dino", "epochs"], configs["cpu", "scd_moco", "epochs"]
    assert all(moco[part] == dino[part] for part in ("optimizer", "schedule", "training"))
    assert dino["views"]["extra"]["count"] == 4 and moco["views"]["extra"]["count"] == 0
    assert moco["wrapper"] == dino["wrapper"] or moco["wrapper"]["_target_"] == "scd.scd.SCD"


def test_equal_flops_are_those_of_scd_dino_with_its_local_views(configs):
    for arm in ("moco", "scd_moco", "mae", "mae_25"):
        budget = configs["cpu", arm, "flops"]["training"]["budget"]
        assert budget["unit"] == "flops" and budget["of"] == {"unit": "epochs", "value": 2}
        scd = configs["cpu", "scd", "epochs"]
        assert budget["reference"] == {key: scd[key] for key in ("views", "backbone", "method", "wrapper")}
        assert budget["reference"]["wrapper"]["_target_"] == "scd.scd.SCD"
    for arm in mim.IN_BOTH:
        assert configs["cpu", arm, "flops"]["training"] == configs["cpu", arm, "epochs"]["training"]
    assert configs["cpu", "random", "flops"]["training"]["budget"]["value"] == 0


def test_the_two_arms_of_mae_differ_in_the_ratio_alone(configs):
    one, other = (configs["cpu", arm, "epochs"] for arm in ("mae", "mae_25"))
    assert (one["method"]["mask_ratio"], other["method"]["mask_ratio"]) == (0.75, 0.25)
    assert {**one["method"], "mask_ratio": 0.25} == other["method"]
    assert all(one[part] == other[part] for part in one if part not in ("method", "evaluation"))


def test_networks_are_fine_tuned_in_the_budgets_that_are_asked_for(configs):
    def fine_tuned(arm, budget):
        protocols = configs["cpu", arm, budget]["evaluation"]["protocols"]
        return [each["name"] for each in protocols if each["name"].startswith("finetune")]

    assert fine_tuned("mae", "flops") == ["finetune", "finetune_10", "finetune_1"]
    assert fine_tuned("random", "flops") and not fine_tuned("mae", "epochs") and not fine_tuned("mae_25", "flops")
    both = settings_of("mim", seeds=1, axes={"finetuned": ["epochs", "flops"], "budgets": ["epochs"]})
    specs = {spec.labels["arm"]: spec for spec in mim.plan(both)}
    assert {spec.labels["budget"] for spec in specs.values()} == {"epochs"} and "moco" not in specs
    assert "finetune" in [each["name"] for each in specs["mae"].config["evaluation"]["protocols"]]


def test_the_numbers_of_the_claims_are_those_that_the_protocols_give():
    from studies.suite.analysis.results import metrics_of

    specs = mim.plan(settings_of("mim", seeds=1))
    (protocols,) = (s.config["evaluation"]["protocols"] for s in specs if (s.labels["arm"], s.labels["budget"]) == MAE)
    assert set(AXES) <= set(metrics_of(protocols))
    assert set(PUBLISHED) == set(AXES)


def test_a_gpu_chooses_the_rate_of_fine_tuning_and_trains_for_the_recipes_epochs():
    epochs, flops = mim.plan(settings_of("mim", seeds=1, words=("tier=gpu", "arms=mae")))
    assert epochs.config["training"]["budget"]["value"] == 200
    rates = {each["name"]: each.get("lr") for each in flops.config["evaluation"]["protocols"]}
    assert rates["finetune"] == rates["finetune_1"] == [0.003, 0.01, 0.03]


def test_an_unknown_budget_names_the_valid_ones():
    with pytest.raises(UsageError, match=r"axes.budgets.*'step'.*epochs, flops"):
        mim.plan(settings_of("mim", seeds=1, axes={"budgets": ["step"]}))


# -------------------------------------------------------------------- page


def test_each_protocol_has_its_own_answer(text):
    found = answers(text)
    assert len(found) == len(CLAIMS) == 2 * len(AXES) + 1
    for name in ("SCD-DINO", "SCD-MoCo on the ViT"):
        assert f"**Supported:** at equal training FLOPs {name} is better than MAE" in found[f"Linear probing: {name}?"]
        assert "**Contradicted:**" in found[f"Fine-tuning with all labels: {name}?"]
        assert "**Supported:**" in found[f"Segmenting scenes: {name}?"]
    assert "**Supported:**" in found["Does the MAE of this page behave as published?"]
    assert "**On MAE.**" not in text


def test_without_the_effect_of_masking_what_speaks_for_mae_says_so(tmp_path, no_figures):
    text = page(lambda arm, metric: 0.41 if arm == "mae_25" else usual(arm, metric), tmp_path)
    found = answers(text)
    assert "**Contradicted:**" in found["Fine-tuning with all labels: SCD-DINO?"]
    assert (
        "Its positive control fails here (MAE vs. MAE, 25 % masked: " in found["Fine-tuning with all labels: SCD-DINO?"]
    )
    assert "**Supported:**" in found["Linear probing: SCD-DINO?"]  # by the suite's rule; the page says what it is worth
    assert "**Supported:**" not in found["Does the MAE of this page behave as published?"]
    assert "**On MAE.** This page has not shown that its MAE behaves as published" in text


def test_a_protocol_that_does_not_see_training_is_uninformative(tmp_path, no_figures):
    def values(arm, metric):
        return 0.5 if metric == "labels1_top1" else usual(arm, metric)

    found = answers(page(values, tmp_path))
    assert "**Uninformative:**" in found["Fine-tuning with 1 % of the labels: SCD-DINO?"]
    assert "DINO vs. random weights" in found["Fine-tuning with 1 % of the labels: SCD-DINO?"]
    assert "**Supported:**" in found["Fine-tuning with 10 % of the labels: SCD-DINO?"]


def test_the_first_table_has_a_row_for_each_protocol_and_equal_epochs_follow(text):
    first = [line for line in text.split("<details>")[0].splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in first[2:]] == list(AXES.values())
    assert "SCD-DINO − MAE" in first[0] and "MAE − random weights" in first[0] and "| MoCo" not in first[0]
    rows = section(text, "The same at equal epochs")
    assert [row[0] for row in rows[2:]] == [AXES[name] for name in AXES if name not in FINE_TUNED]


def test_what_the_separation_adds_to_its_host_is_said(text):
    assert "SCD-DINO minus MAE is 4." in text and "DINO alone gives " in text and "SCD adds 1." in text
    assert "MoCo on the ViT alone" not in text  # it is not run by default


def test_the_cost_is_that_of_an_image(text):
    assert "MAE is the cheaper, by a factor of 8.0: training on an image takes 1 MFLOP, and 8 MFLOP with" in text
    assert "for the FLOPs of SCD-DINO's 2 epochs MAE trains 16." in text
    rows = section(text, "Cost of the training")
    assert [row[1] for row in rows[2:]] == 2 * ["DINO", "SCD-DINO", "SCD-MoCo on the ViT", "MAE", "MAE, 25 % masked"]
    relative = [row[-1] for row in rows[2:]]
    assert relative[:5] == ["7.90", "8.00", "3.00", "1.00", "2.00"] and relative[6:9] == ["1.00", "0.38", "1.00"]


def test_costs_that_are_not_recorded_are_not_stated():
    results = results_with(usual)
    bare = results.with_runs(results.runs.drop(columns=["images_seen"]))
    assert mim.cost_sentence(bare) == ""
    alone = results.with_runs(results.runs[results.runs["arm"] != "scd"])
    assert mim.cost_sentence(alone) == ""


def test_published_directions_stand_beside_those_of_the_page(text):
    rows = section(text, "Published numbers, quoted")
    verdict = {row[0]: (row[3], row[-1]) for row in rows[2:]}
    assert verdict["linear probing"] == ("DINO or MoCo", "yes")
    assert verdict["fine-tuning with all labels"] == ("MAE", "yes")
    assert verdict["segmenting scenes"] == ("MAE", "no") and verdict["kNN"] == ("–", "–")
    assert (
        "DINO minus MAE has the published direction in linear probing and fine-tuning with all labels and fine-tuning "
        "with 1 % of the labels, and has the reverse of the published direction in segmenting scenes." in text
    )


def test_nothing_is_said_of_a_direction_that_is_not_resolved():
    results = results_with(lambda arm, metric: 0.4, seeds=5)
    same = results.with_runs(results.runs.assign(**{metric: 0.4 for metric in AXES}))
    assert mim.direction_sentence(same, mim.AT_FLOPS) == ""
    assert mim.direction(same, "dino", "linear_top1", mim.AT_FLOPS) not in ("yes", "no")


def test_one_budget_and_no_finished_run_make_a_page(tmp_path, no_figures):
    settings = settings_of("mim", tmp_path, 5, axes={"budgets": ["epochs"]})
    results = study_results(STUDY, {}, settings)
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert "no contrast has a pair of seeds yet" in answers(text)["Linear probing: SCD-DINO?"]
    nothing = results.with_runs(results.runs.assign(status="missing"))
    assert "no seed has finished" in publish(STUDY, nothing, tmp_path).read_text(encoding="utf-8")
