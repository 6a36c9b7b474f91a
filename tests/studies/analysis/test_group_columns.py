"""Which columns name groups of images, by their names, and which values count rows."""

import pytest

from studies.suite.analysis.group_columns import are_counted, begin_anew, is_group, is_of_images, is_place, is_sure


@pytest.mark.parametrize(
    "column",
    [
        "patientid", "PatientID", "Patient ID", "patient_no", "case", "original_filename", "wsi-id", "videoId", "PTID",
        "eid", "mrn", "StudyInstanceUID", "study_id", "observationID", "product_id", "mouse_id", "metadata.patient_id",
        "clinical.subject", "patient.id", "bookid", "doc_name", "episode_index", "recording_id", "images.video_id",
    ],
)  # fmt: skip
def test_names_of_groups(column):
    assert is_group(column) and is_sure(column)


@pytest.mark.parametrize("column", ["plant", "mouse", "product_name", "study", "camera_id", "plate", "owner", "source"])
def test_names_of_groups_or_of_kinds(column):
    assert is_group(column) and not is_sure(column)


@pytest.mark.parametrize(
    "column",
    [
        "scene_type", "videos", "caseload", "valid", "file_name", "source_width", "id", "12", "patient_age", "taxon_id",
        "species_id", "label_id", "category_id", "class_id", "license_id", "SOPInstanceUID", "patient.age",
        "product_category", "metadata", "study_date",
    ],
)  # fmt: skip
def test_other_names(column):
    assert not is_group(column) and not is_sure(column)


@pytest.mark.parametrize(
    "column", ["image_id", "ImageID", "imageid", "url", "filename", "uid", "id", "metadata.image_id"]
)
def test_names_of_images(column):
    assert is_of_images(column)


@pytest.mark.parametrize(
    "column", ["name", "index", "code", "number", "image_size", "license_id", "license.id", "class_id", "synset", ""]
)
def test_names_that_may_be_of_kinds(column):
    assert not is_of_images(column)


def test_places():
    assert is_place("Plate") and is_place("well_id") and not is_place("plate_well") and not is_place("plateau")


def test_numbers_that_count():
    assert are_counted(["case_1", "case_2", "case_9"]) and are_counted(["0.jpg", "1.jpg"])
    assert not are_counted(["case_1", "patient_2"]) and not are_counted(["1000", "8919"]) and not are_counted(["a"])
    assert begin_anew(["1", "2", "3"], ["1", "2"])
    assert not begin_anew(["1", "2"], ["1", "2"]) and not begin_anew(["1", "2", "3"], ["7", "8"])
