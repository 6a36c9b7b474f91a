"""The study of detection: one recipe for every arm, its claims and controls, and what it says of systems and papers."""

import numpy
import pytest
from synthetic_results import settings_of, study_results

from scd.errors import DataError
from studies import detection, scene_coco
from studies.detection import ARMS, CLAIMED, CLAIMS, STUDY
from studies.suite.pages.publish import publish
from studies.suite.planning.study import merge
from studies.systems.detection_numbers import FURTHER, OF_DETECTION, REFERENCES, reported
from studies.systems.system import Quoted
from studies.systems.table import SYSTEMS

DEFAULT = [arm.name for arm in ARMS if arm.default]


def detectors_of(spec):
    """The protocols of a run that fine-tune a detector."""
    return [each for each in spec.config["evaluation"]["protocols"] if each["_target_"].endswith("Detection")]


def page_of(results, tmp_path):
    return publish(STUDY, results, tmp_path).read_text(encoding="utf-8")


def rows_of(text):
    """The rows of the first table of a text, without its heading and rule."""
    block = next(part for part in text.split("\n\n") if part.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]


def section_of(text, heading):
    return text.split(f"<b>{heading}</b>")[1].split("</details>")[0]


# -------------------------------------------------------------------- plan


def test_every_default_arm_seed_by_seed_with_one_recipe():
    specs = detection.plan(settings_of("detection", seeds=2))
    assert [(s.labels["seed"], s.labels["arm"]) for s in specs] == [(seed, name) for seed in (0, 1) for name in DEFAULT]
    (recipe,) = detectors_of(specs[0])
    assert all(detectors_of(spec) == [recipe] for spec in specs)
    assert recipe["masks"] is True and recipe["data"]["objects"] == [2, 6] and recipe["data"]["rho_train"] == 0.8
    assert {s.labels["arm"] for s in specs if s.config["training"]["budget"]["value"] == 0} == {"random"}
    for spec in specs:
        objects = [1, 1] if spec.labels["arm"] == "supervised" else [2, 6]
        assert spec.config["data"]["options"]["objects"] == objects and spec.labels["budget"] == "epochs"


def test_all_systems_are_arms_and_none_is_a_copy():
    names = [spec.labels["arm"] for spec in detection.plan(settings_of("detection", seeds=1, words=("arms=all",)))]
    systems = [arm for system in SYSTEMS for arm in system.arms]
    assert {arm.name for arm in systems} <= set(names) and len(set(names)) == len(names)
    by_name = {arm.name: arm for arm in ARMS}
    assert all(by_name[arm.name].overrides == arm.overrides for arm in systems)


def test_trainings_are_those_of_the_study_on_scenes():
    def trainings(study, **labels):
        specs = study.plan(settings_of(study.STUDY.name, seeds=1, words=("arms=all",)))
        chosen = [s for s in specs if all(s.labels.get(key) == value for key, value in labels.items())]
        return {s.labels["arm"]: {k: v for k, v in s.config.items() if k != "evaluation"} for s in chosen}

    own = trainings(detection)
    theirs = trainings(scene_coco, images="scenes") | {
        "supervised": trainings(scene_coco, images="object-centric images")["supervised"]
    }
    shared = [arm for arm in theirs if arm in own]
    assert {"random", "moco", "scd", "oracle", "slotcon", "densecl", "lewel", "supervised"} <= set(shared)
    assert all(own[arm] == theirs[arm] for arm in shared)


def test_the_first_stage_of_a_system_is_its_hosts_run():
    specs = {s.labels["arm"]: s for s in detection.plan(settings_of("detection", seeds=1, words=("arms=all",)))}
    staged = {arm: spec for arm, spec in specs.items() if spec.inputs}
    assert {"orl", "contracam_crop", "contracam_mixup"} <= set(staged) and "orl_one_stage" not in staged
    for arm, spec in staged.items():
        (stage,) = spec.inputs.values()
        assert stage.config == specs[detection.related.HOST_OF[arm].host].config


def test_arms_without_labels_or_masks_to_learn_from_are_left_out_or_refused(monkeypatch):
    settings = settings_of("detection", seeds=1)
    unlabelled = detection.Images({}, None, None, None)
    assert [arm.name for arm in detection.arms_of(settings, unlabelled)] == [a for a in DEFAULT if a != "supervised"]
    with pytest.raises(DataError, match="'supervised' learns from labels, and its training images have none"):
        detection.arms_of(settings_of("detection", seeds=1, words=("arms=supervised,moco",)), unlabelled)
    monkeypatch.setattr(detection, "has_masks", lambda settings: False)
    assert [a.name for a in detection.arms_of(settings, unlabelled)] == [
        name for name in DEFAULT if name not in ("supervised", "oracle")
    ]
    with pytest.raises(DataError, match="'oracle' learns from masks, and its training images have none"):
        detection.arms_of(settings_of("detection", seeds=1, words=("arms=oracle,moco",)), unlabelled)


def test_the_paper_tier_has_the_recipes_of_the_papers():
    presets = settings_of("detection", seeds=1).presets["protocol"]
    places = ("images", "annotations", "test_images", "test_annotations")
    data = ("data=coco", *(f"data.locations.{place}=nowhere" for place in places), "arms=moco", "axes.voc=VOCdevkit")
    paper = settings_of("detection", seeds=1, words=("tier=paper", *data))
    coco, voc = detectors_of(detection.plan(paper)[0])
    assert coco == {"name": "detection_coco_1x", **presets["detection_coco_1x"], "data": None}
    assert voc == {
        "name": "detection on VOC07+12", **presets["detection_voc07_12"], "prefix": "voc_",
        "data": {"_target_": "scd.data.sources.voc.Voc", "root": "VOCdevkit"},
    }  # fmt: skip
    assert (coco["steps"], coco["masks"], voc["steps"], voc["masks"]) == (90000, True, 24000, False)
    own = settings_of(
        "detection", seeds=1, words=("tier=paper", "data=voc", "data.locations.root=nowhere", "arms=moco")
    )
    assert [each["name"] for each in detectors_of(detection.plan(own)[0])] == ["detection_voc07_12"]


def test_a_setting_of_the_detector_holds_for_every_arm():
    settings = settings_of("detection", seeds=1, words=("axes.detection.steps=7", "arms=supervised,scd,soco"))
    assert [detectors_of(spec)[0]["steps"] for spec in detection.plan(settings)] == [7, 7, 7]


# -------------------------------------------------------------------- claims


def test_claims_are_about_scd_and_its_hosts_the_systems_and_their_hosts():
    pairs = [(claim.contrasts[0].treatment, claim.contrasts[0].control) for claim in CLAIMS]
    assert pairs == [
        ("scd", "moco"),
        *((each.host.scd, each.name) for each in CLAIMED),
        *((each.name, each.host.host) for each in CLAIMED),
    ]  # fmt: skip
    for claim, (treatment, _) in zip(CLAIMS, pairs, strict=True):
        host = {"scd": "moco", "scd_byol": "byol"}.get(treatment) or detection.related.HOST_OF[treatment].host
        controls = [("supervised", "random"), (host, "random")]
        controls += [("oracle", "moco")] if treatment == "scd" and claim.contrasts[0].control == "moco" else []
        assert [(each.treatment, each.control) for each in claim.controls] == controls
        assert {each.metric for each in (*claim.contrasts, *claim.controls)} == {"det_ap"}
        assert claim.contrasts[0].sesoi == 0.01


def test_claims_about_systems_belong_to_the_questions_that_name_them():
    questions = {claim.contrasts[0].control: claim.question for claim in CLAIMS}
    assert questions["slotcon"] == "R1-b, R1-d: SlotCon?" and questions["pointcl"] == "R1-b, R1-d: PointCL?"
    systems = {system.name: system for system in SYSTEMS}
    assert detection.asked(systems["detcon"]) == ["R1-b", "R1-d"]  # it stands for Odin
    assert detection.asked(systems["croc"]) == ["R1-b"] and detection.asked(systems["dilo"]) == []


def numbers(**gains):
    """AP of an arm: 0.3, of random weights 0.1, the arm's gain, and a little luck; that of masks is 0.05 lower."""

    def of(arm, seed):
        luck = numpy.random.default_rng([seed, *map(ord, arm)]).normal(0, 0.002)
        value = (0.1 if arm == "random" else 0.3) + gains.get(arm, 0.0) + luck
        boxes = {"det_ap": value, "det_ap50": value + 0.2, "det_ap75": value - 0.02}
        return {**boxes, **{name.replace("det", "seg"): found - 0.05 for name, found in boxes.items()}}

    return of


def test_claims_follow_from_records(tmp_path, no_figures):
    gains = {"scd": 0.05, "oracle": 0.1, "slotcon": 0.08, "scd_byol": 0.05, "pointcl": -0.02}
    results = study_results(STUDY, {}, settings_of("detection", tmp_path, 5), numbers(**gains))
    first = page_of(results, tmp_path).split("<details>")[0]
    lines = {line.split("*")[1]: line for line in first.splitlines() if line.startswith("- *")}
    assert len(lines) == len(CLAIMS)
    assert "**Supported:** SCD-MoCo is better than MoCo" in lines["Does SCD help on MoCo?"]
    assert "**Contradicted:** it does not hold that SCD-BYOL is better than SlotCon" in lines["R1-b, R1-d: SlotCon?"]
    assert "**Supported:** SlotCon is better than BYOL" in lines["Is SlotCon above its host?"]
    assert "**Contradicted:** it does not hold that PointCL is better" in lines["Is PointCL above its host?"]
    assert "supervised is better than random weights by" in first  # what the page could have seen


@pytest.mark.parametrize(
    ("gains", "failed"),
    [
        ({"supervised": -0.2, "oracle": 0.1}, "supervised vs. random weights"),
        ({"moco": -0.2, "scd": -0.2, "oracle": -0.1}, "MoCo vs. random weights"),
        ({}, "SCD-MoCo with the true mask vs. MoCo"),
    ],
)
def test_a_detector_that_does_not_tell_trained_from_random_weights_sees_no_equality(
    gains, failed, tmp_path, no_figures
):
    results = study_results(STUDY, {}, settings_of("detection", tmp_path, 5), numbers(**gains))
    first = page_of(results, tmp_path).split("<details>")[0]
    line = next(line for line in first.splitlines() if line.startswith("- *Does SCD help on MoCo?*"))
    assert "**Uninformative:**" in line and f"{failed}: " in line and "try " in line
    on_byol = next(line for line in first.splitlines() if line.startswith("- *Is SlotCon above its host?*"))
    assert ("**Uninformative:**" in on_byol) == ("supervised" in gains)  # the other host has learned something


# -------------------------------------------------------------------- page


@pytest.fixture
def page(tmp_path, no_figures):
    settings = settings_of("detection", tmp_path, 5)
    return page_of(study_results(STUDY, {}, settings, numbers(scd=0.02, slotcon=0.05)), tmp_path)


def test_the_first_table_has_boxes_masks_and_both_differences(page):
    rows = {row[0]: row[1:] for row in rows_of(page.split("<details>")[0])}
    labels = {arm.name: arm.label for arm in ARMS}
    assert list(rows) == [labels[name] for name in DEFAULT]
    assert rows["random weights"][0] == "–" and rows["random weights"][3:] == ["–", "–"]
    host, boxes, masks, over_host, over_arm = rows["SlotCon"]
    assert host == "BYOL" and float(boxes.split()[0]) == pytest.approx(float(masks.split()[0]) + 5, abs=0.11)
    assert over_host.startswith("+") and over_arm.startswith("−")
    assert rows["SCD-MoCo"][3].startswith("+") and rows["SCD-MoCo"][4] == "–"


def test_all_thresholds_and_the_gain_over_random_weights_are_shown(page):
    text = section_of(page, "AP of boxes and of masks")
    heading = next(line for line in text.splitlines() if line.startswith("|"))
    assert all(name in heading for name in ("det ap ", "det ap50", "det ap75", "seg ap ", "seg ap50", "seg ap75"))
    gains = text.split("What the training adds to the detector")[1]
    assert "difference from random weights" in gains and {row[0] for row in rows_of(gains)} == {
        arm.label for arm in ARMS if arm.default and arm.name != "random"
    }
    assert all(16 < float(row[1].split()[0]) < 28 for row in rows_of(gains))


def test_every_system_of_the_questions_is_said_to_be_an_arm_or_why_not(page):
    rows = {row[0]: row[1:] for row in rows_of(section_of(page, "The systems that the reviewers name"))}
    assert {"ORL", "SoCo", "SlotCon", "Odin", "PointCL", "DenseSiam", "CrOC", "COMUS"} <= set(rows)
    assert rows["SlotCon"][0] == "R1-b, R1-d" and rows["SlotCon"][2] == "yes"
    assert rows["DenseSiam"][2] == f"no, by `arms=all`: {detection.REASONS['densesiam']}"
    assert all(arm or why != "yes" for _, arm, why in rows.values())
    assert set(detection.REASONS) == {each.name for each in SYSTEMS if "R1-d" in each.questions and each not in CLAIMED}


def test_a_system_that_was_not_asked_for_is_told_from_one_that_needs_more_time():
    slotcon = next(each for each in SYSTEMS if each.name == "slotcon")
    assert detection.left_out(slotcon) == "no: it was not asked for"


def test_published_numbers_are_marked_as_quoted(page):
    rows = rows_of(section_of(page, "Published numbers, quoted"))
    assert [row[0] for row in rows][:2] == ["random weights", "supervised"] and all(all(row) for row in rows)
    labels = {row[0] for row in rows}
    wanted = {"ORL", "SoCo", "SlotCon", "Odin (reconstruction)", "PointCL", "DenseSiam", "DenseCL", "LEWEL-MoCo"}
    assert wanted <= labels
    assert "None of these numbers was measured here." in page
    assert next(row for row in rows if row[0].startswith("Odin"))[1] == "no number in the facts"


def test_what_is_measured_how_is_said(page):
    assert "**Supervised reference:** a classifier, trained on as many images of one object each" in page
    assert "**Background correlation:**" in page and "**Pairs:**" in page


def test_all_arms_have_the_backbone_of_the_page():
    specs = detection.plan(settings_of("detection", seeds=1, words=("arms=all",)))
    assert all(spec.config["backbone"] == specs[0].config["backbone"] for spec in specs)


# -------------------------------------------------------------------- published numbers


def test_numbers_of_detection_are_told_from_others():
    known = {quote.text: bool(OF_DETECTION.search(quote.text)) for system in SYSTEMS for quote in system.published}
    assert known["COCO, mask AP of a pre-trained ResNet-50 with the 1x schedule: 36.8"]
    assert not any(found for text, found in known.items() if "mIoU" in text or "top-1" in text or "linear mAP" in text)


def test_further_numbers_are_of_systems_and_none_is_given_twice():
    systems = {system.name: system for system in SYSTEMS}
    assert set(FURTHER) <= set(systems)
    quotes = [*(q for own in REFERENCES.values() for q in own), *(q for own in FURTHER.values() for q in own)]
    assert all(OF_DETECTION.search(text) and source for text, source in quotes)
    assert len({quote.text for quote in quotes}) == len(quotes)
    for name, own in FURTHER.items():
        assert not {quote.text for quote in own} & {quote.text for quote in systems[name].published}


def test_a_system_without_a_number_has_a_row_where_it_is_asked_for():
    odin = next(each for each in SYSTEMS if each.name == "odin")
    assert "Odin (reconstruction)" not in {row.label for row in reported([odin])}
    assert reported([odin], ["odin"])[-1].published == ()
    soco = next(each for each in SYSTEMS if each.name == "soco")
    assert all(isinstance(quote, Quoted) for quote in reported([soco])[-1].published)
    assert reported([soco])[-1].published[0] == soco.published[0]


def test_the_recipe_is_merged_from_the_preset_and_the_axis():
    settings = settings_of("detection", seeds=1)
    preset = settings.presets["protocol"]["detection"]
    (recipe,) = detectors_of(detection.plan(settings)[0])
    assert recipe == {"name": "detection", **merge(preset, {"masks": True, "data": recipe["data"]})}
