"""Files that cannot be read, or must not be: each ends in one line that says what to do."""

import hashlib
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from scd.checkpoints.reading import read_checkpoint
from scd.errors import DataError


class Pickled:
    """An object of a class of its own."""


def weights():
    return {"conv1.weight": torch.arange(24.0).view(2, 3, 2, 2), "bn1.num_batches_tracked": torch.tensor(3)}


def reason(path):
    with pytest.raises(DataError) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorchs_two_formats_are_read(zipped, tmp_path):
    path = tmp_path / "weights.bin"
    torch.save({"state_dict": weights(), "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    contents = read_checkpoint(path)
    assert torch.equal(contents.tables["state_dict"]["conv1.weight"], weights()["conv1.weight"])
    assert contents.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert contents.others == ("epoch",)


def test_safetensors_are_known_by_their_content(tmp_path):
    save_file(weights(), tmp_path / "weights.bin")
    assert set(read_checkpoint(tmp_path / "weights.bin").tables[""]) == set(weights())


def test_optimisers_are_no_weights(tmp_path):
    moments = {"state": {0: {"exp_avg": torch.ones(2)}}, "named": {"conv1.weight": torch.ones(2)}}
    torch.save({"model": weights(), "optimizer": moments, "optimizer_states": [moments]}, tmp_path / "w.pth")
    assert list(read_checkpoint(tmp_path / "w.pth").tables) == ["model"]


def test_a_pickled_object_is_not_read(tmp_path):
    torch.save({"state_dict": weights(), "model": Pickled()}, tmp_path / "w.pth")
    text = reason(tmp_path / "w.pth")
    assert "pickled object" in text and "Pickled" in text and "model.state_dict()" in text


def test_a_pickled_network_is_not_read(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    assert "pickled object (torch.nn.modules.linear.Linear), which could run code" in reason(tmp_path / "w.pth")


def test_nothing_in_a_file_is_run(tmp_path):
    class Runs:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    torch.save({"w": Runs()}, tmp_path / "w.pth")
    assert "exec), which could run code and is not read" in reason(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_says_so(kind, share, tmp_path):
    path = tmp_path / f"w.{'safetensors' if kind == 'safetensors' else 'pth'}"
    content = {"w": torch.randn(1000)}
    save_file(content, path) if kind == "safetensors" else torch.save(
        content, path, _use_new_zipfile_serialization=kind == "zip"
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "truncated or damaged; copy or download it again" in reason(path)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"Salted__" + bytes(90), "encrypted (openssl); decrypt it first"),
        (b"age-encryption.org/v1\n" + bytes(90), "encrypted (age); decrypt it first"),
        (b"-----BEGIN PGP MESSAGE-----\n" + bytes(90), "decrypt it first"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x1f\x8b\x08" + bytes(90), "compressed (gzip); unpack it first"),
        (b"", "empty"),
        (b"not weights at all, but a text file", "no file of weights"),
    ],
)
def test_other_files_are_named(start, words, tmp_path):
    assert words in reason(written(tmp_path / "w.pth", start))


def test_an_encrypted_archive_is_named(tmp_path):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag of encryption, in the entry and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted (a zip archive with a password)" in reason(written(path, bytes(content)))


def test_other_archives_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("readme.txt", "x")
    assert "zip archive and no file of PyTorch; unpack it first" in reason(tmp_path / "w.pth")


def test_a_program_is_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name in ("w/data.pkl", "w/code/__torch__.py", "w/constants.pkl"):
            archive.writestr(name, "x")
    assert "TorchScript program" in reason(tmp_path / "w.pt")


@pytest.mark.parametrize(("content", "words"), [({"epoch": 3}, "only the entries epoch"), ([torch.ones(2)], "a list"), ({}, "empty mapping")])  # fmt: skip  # noqa: E501
def test_a_file_without_named_tensors(content, words, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    assert words in reason(tmp_path / "w.pth")


def test_paths_that_are_no_files(tmp_path):
    assert "does not exist" in reason(tmp_path / "nothing.pth")
    assert "is a folder; give the file of weights in it" in reason(tmp_path)


def test_an_address_is_no_file():
    text = "checkpoint: 'https:/example.org/a.pth' is an address; download the file, and give its path"
    assert reason("https://example.org/a.pth") == text


def test_a_plain_pickle_is_named_and_not_run(tmp_path):
    text = reason(written(tmp_path / "w.pkl", pickle.dumps({"conv1.weight": np.ones(3)})))
    assert "it is a plain pickle, which could run code and is not read; load it where you trust it and save" in text
