"""What is noted of files that list the images of splits: in the folder of the images, below it, and beside it."""

import pytest
from PIL import Image

from scd.data.sources.image_folder import ImageFolder
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.name_notes import notes_on_names


def notes_of(folder) -> list[str]:
    return [note for note in notes_on_names(EvaluationData(ImageFolder(folder), 8)) if "may list the images" in note]


def write(folder, names):
    for place, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (9 * place, 0, 0)).save(folder / name)


@pytest.mark.parametrize(
    ("root", "lists", "noted"),
    [
        ("", ["train_test_split.txt"], True),
        ("", ["list_eval_partition.csv", "setid.mat"], True),
        ("images", ["meta/train.txt", "meta/test.txt"], True),
        ("images", ["trainval.txt"], True),
        ("", ["README.txt", "classes.txt", "training.py"], False),
        ("images", ["labels/train1.txt", "labels/val1.txt", "labels/test1.txt"], True),
        ("", ["Testing_01.txt", "Training_01.txt"], True),
        ("", ["Splits/0.csv", "ImageSets/Main/cat_val.txt", "lists/fold3.lst"], True),
        ("", ["ucfTrainTestlist/classes_test.txt"], True),
        ("birds", ["birds_train.txt"], True),
        ("birds", ["train.txt"], False),  # beside a folder that may be one of many
        ("birds", ["flowers_train.txt", "splits/0.txt"], False),
        ("", ["train_log.csv", "val_results.txt", "requirements-dev.txt", "labels/classes.txt"], False),
    ],
)
def test_lists_of_splits_are_noted(tmp_path, root, lists, noted):
    write(tmp_path / root, [f"{kind}/{k}.png" for kind in "ab" for k in range(8)])
    for name in lists:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a/0.png\n")
    found = notes_of(tmp_path / root)
    assert len(found) == noted
    if noted:
        assert f"are not read ({len(lists)}): " in found[0]
        assert found[0].endswith("chosen by a hash of their names; for another split, give folders train and test.")


@pytest.mark.parametrize(
    ("name", "text", "noted"),
    [
        ("metadata.csv", "img_id,img_filename,y,split,place\n1,a/0.png,1,0,1\n", True),
        ("meta.tsv", "path\tfold\na/0.png\t3\n", True),
        ("data.csv", '"file";"is_training_img"\n"a/0.png";"1"\n', True),
        ("data.csv", "file,Data Split\r\na/0.png,train\r\n", True),
        ("data.csv", "\ufeffset,file\ntrain,a/0.png\n", True),
        ("data.jsonl", '{"file_name": "a/0.png", "partition": "val"}\n', True),
        ("data.csv", "file,label,width\na/0.png,split,8\n", False),
        ("data.csv", "file,test_result,offset\na/0.png,1,2\n", False),
        ("data.jsonl", '["split"]\n', False),
        ("data.jsonl", "split\n", False),
        ("data.csv", "", False),
    ],
)
def test_tables_with_a_column_of_splits_are_noted(tmp_path, name, text, noted):
    """Of Waterbirds' metadata.csv nothing was said but that it is no image."""
    write(tmp_path, [f"{kind}/{k}.png" for kind in "ab" for k in range(8)])
    (tmp_path / name).write_text(text)
    assert [f"not read (1): '{name}'." in note for note in notes_of(tmp_path)] == [True] * noted


def test_a_list_beside_the_folder_is_noted_if_it_names_the_folder(tmp_path):
    write(tmp_path / "birds", [f"{kind}/{k}.png" for kind in "ab" for k in range(8)])
    (tmp_path / "train.txt").write_text("1 flowers/a/0.png\n")
    assert notes_of(tmp_path / "birds") == []
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "0.txt").write_text("1 birds/a/0.png\n")
    (note,) = notes_of(tmp_path / "birds")
    assert "are not read (1): '0.txt'." in note


def test_lists_beside_folders_of_splits_need_no_note(tmp_path):
    write(tmp_path, [f"{split}/{kind}/{k}.png" for split in ("train", "test") for kind in "ab" for k in range(4)])
    (tmp_path / "train.txt").write_text("a/0.png\n")
    assert notes_of(tmp_path) == []
