"""What counts as an image in a folder, and what is counted and not read."""

import os
import re

import pytest
from PIL import Image

from scd.data.sources.folder_scan import first_names, scan, with_several_pages
from scd.errors import DataError, UsageError


def touch(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_images_are_known_by_their_ending_in_any_capitals(tmp_path):
    for name in ("b.JPG", "a.Jpeg", "c.png", "d.TIFF", "e.webp", "f.bmp"):
        touch(tmp_path / name)
    for name in ("metadata.csv", "Thumbs.db", "paper.pdf", "set.h5", "clip.mpg", "png", "README"):
        touch(tmp_path / name)
    found = scan(tmp_path)
    assert names(found.images, tmp_path) == ["a.Jpeg", "b.JPG", "c.png", "d.TIFF", "e.webp", "f.bmp"]
    assert len(found.others) == 7
    (note,) = found.notes(tmp_path)
    assert note == (
        "Files that are no images, not read (7: 2 no ending, 1 .db, 1 .mpg): 'README', 'Thumbs.db', 'clip.mpg', ...."
    )


def test_hidden_names_are_not_looked_into(tmp_path):
    for name in (".DS_Store", ".ipynb_checkpoints/a.png", "cat/._a.png", "__MACOSX/cat/._a.png", "@eaDir/a.png"):
        touch(tmp_path / name)
    touch(tmp_path / "cat" / "a.png")
    found = scan(tmp_path)
    assert names(found.images, tmp_path) == ["cat/a.png"] and found.others == []
    assert names(found.hidden, tmp_path) == [".DS_Store", ".ipynb_checkpoints", "@eaDir", "__MACOSX", "cat/._a.png"]


def test_links_are_followed_once(tmp_path):
    """F9: class folders that are symbolic links were left out."""
    touch(tmp_path / "far" / "dog" / "1.png")
    touch(tmp_path / "set" / "cat" / "1.png")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "far" / "dog")
    (tmp_path / "set" / "cat" / "2.png").symlink_to(tmp_path / "far" / "dog" / "1.png")
    (tmp_path / "set" / "cat" / "loop").symlink_to(tmp_path / "set")
    assert names(scan(tmp_path / "set").images, tmp_path / "set") == ["cat/1.png", "cat/2.png", "dog/1.png"]


@pytest.mark.parametrize("name", ["dog", "1.png"])
def test_a_link_that_leads_nowhere_is_an_error(tmp_path, name):
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=rf"'.*{name}' is a link to '.*nowhere', which does not exist"):
        scan(tmp_path)


def test_folders_are_left_out_by_their_real_path(tmp_path):
    touch(tmp_path / "set" / "reports" / "a.png")
    touch(tmp_path / "set" / "b.png")
    found = scan(tmp_path / "set", [tmp_path / "set" / ".." / "set" / "reports"])
    assert names(found.images, tmp_path / "set") == ["b.png"]
    assert found.notes(tmp_path / "set") == ["Folders left out (1): 'reports'."]


def test_folders_without_images_are_counted(tmp_path):
    for name in ("cat/1.png", "bird/notes.txt", "fish/.keep"):
        touch(tmp_path / name)
    (tmp_path / "ape" / "old").mkdir(parents=True)
    assert names(scan(tmp_path).empty, tmp_path) == ["ape/old", "ape", "bird", "fish"]


def test_a_directory_with_the_name_of_an_image_is_a_directory(tmp_path):
    touch(tmp_path / "x.jpg" / "1.png")
    assert names(scan(tmp_path).images, tmp_path) == ["x.jpg/1.png"]


def test_names_that_are_not_utf8(tmp_path):
    """One of an image or a folder is an error; one of another file is printed with its bytes."""
    touch(tmp_path / os.fsdecode(b"n\xf6tes.txt"))
    (note,) = scan(tmp_path).notes(tmp_path)
    assert r"'n\udcf6tes.txt'" in note
    touch(tmp_path / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(DataError, match=r"holds the name b'caf\\xe9.png', which is not UTF-8"):
        scan(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "cat").mkdir(mode=0)
    with pytest.raises(DataError, match="'.*cat' cannot be read: Permission denied"):
        scan(tmp_path)


def test_names_with_line_ends_stay_in_one_line(tmp_path):
    path = touch(tmp_path / "a\nb.txt")
    assert first_names([path], tmp_path) == "'a b.txt'"


def test_every_format_that_counts_can_be_decoded(tmp_path):
    for ending in ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm"):
        Image.new("RGB", (4, 4), (9, 99, 9)).save(tmp_path / f"x.{ending}")
    found = scan(tmp_path).images
    assert len(found) == 7 and all(Image.open(path).convert("RGB").size == (4, 4) for path in found)


# ---------------------------------------------------------------- folders left out


def test_a_relative_name_starts_at_the_folder_and_then_at_the_working_directory(tmp_path, monkeypatch):
    """A name inside the folder was looked for in the working directory, and left out nothing."""
    root = tmp_path / "work" / "set"
    for name in ("broken/a.png", "cat/old/b.png", "cat/c.png", "set/d.png"):
        touch(root / name)
    touch(tmp_path / "work" / "broken" / "other.png")
    monkeypatch.chdir(tmp_path / "work")
    for folder in (root, root.relative_to(tmp_path / "work")):
        found = scan(folder, ["broken", "set/cat/old", "set"])
        assert names(found.images, folder) == ["cat/c.png"]
        assert found.notes(folder) == ["Folders left out (3): 'broken', 'cat/old', 'set'."]


def test_a_link_in_the_folder_may_be_left_out(tmp_path):
    touch(tmp_path / "far" / "1.png")
    touch(tmp_path / "set" / "cat" / "1.png")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "far")
    assert names(scan(tmp_path / "set", ["dog"]).left_out, tmp_path / "set") == ["dog"]


@pytest.mark.parametrize("name", ["borken", "elsewhere", "../elsewhere", "cat/1.png", ".", "", "cat/..", "/", "{root}"])
def test_what_is_no_folder_of_the_folder_cannot_be_left_out(tmp_path, monkeypatch, name):
    """A typo left out nothing without a word."""
    root = tmp_path / "set"
    touch(root / "cat" / "1.png")
    touch(tmp_path / "elsewhere" / "1.png")
    monkeypatch.chdir(tmp_path)
    name = name.format(root=root)
    with pytest.raises(UsageError, match=re.escape(f"left_out: '{name}' is no folder of '{root}'; give one by its ")):
        scan(root, [name])


def test_a_folder_of_results_may_be_missing(tmp_path):
    """The suite gives the absolute paths of its store and reports, where they lie in the folder."""
    touch(tmp_path / "set" / "1.png")
    assert scan(tmp_path / "set", [tmp_path / "set" / "reports"]).notes(tmp_path / "set") == []


# ---------------------------------------------------------------- several pages


def frames(path, count):
    pages = [Image.new("RGB", (4, 4), (9 * number, 99, 9)) for number in range(count)]
    as_format = {".apng": "PNG"}.get(path.suffix.lower())
    pages[0].save(path, as_format, **({"save_all": True, "append_images": pages[1:]} if count > 1 else {}))
    return path


@pytest.mark.parametrize("ending", [".tif", ".tiff", ".TIF", ".gif", ".apng", ".webp"])
def test_files_of_several_pages_are_found(tmp_path, ending):
    one, two = (frames(tmp_path / f"{count}{ending}", count) for count in (1, 2))
    assert with_several_pages([one, two]) == [two]


def test_other_files_are_not_opened_for_pages(tmp_path):
    broken = [
        touch(tmp_path / name, content) for name, content in (("a.gif", b"GIF89a"), ("b.webp", b"RIFF0000WEBPVP8X"))
    ]
    assert with_several_pages([*broken, tmp_path / "missing.png", tmp_path / "missing.tif"]) == []
