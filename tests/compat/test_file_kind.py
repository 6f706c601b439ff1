"""Files that are mistaken for checkpoints, and pickles of arrays that are more than that."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from mmvitaccel.compat.checkpoint import safe_load

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"


def tar() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return held.getvalue()


def zipped(name: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(name, "text")
    return held.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (POINTER, "but a Git LFS pointer; run 'git lfs pull'"),
        (b"\n <HTML><body>", r"but a web page, it begins with b'<HTML><body>'; .*download again"),
        (gzip.compress(b"weights"), "but a gzip archive; unpack it"),
        (tar(), "but a tar archive; unpack it"),
        (
            zipped("epoch_1.pth"),
            r"but a zip archive of 'epoch_1\.pth'; unpack it and give",
        ),
        (zipped("folder/weights.pth"), r"but a zip archive of '(folder/)?weights\.pth'; unpack it"),
        (b"epoch 3 loss 0.1", r"it begins with b'epoch 3 loss 0\.1?"),
    ],
    # Named here, since an archive's bytes hold the time and workers must agree on names
    ids=["lfs", "html", "gzip", "tar", "zip", "folder-zip", "text"],
)
def test_the_kind_is_said_in_one_sentence(content: bytes, sentence: str, tmp_path: Path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"weights\.pth: .*{sentence}") as error:
        safe_load(path)
    assert "\n" not in str(error.value)


def test_a_pickle_of_arrays_is_read_and_may_hold_nothing_else(tmp_path: Path):
    path = tmp_path / "weights.pkl"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path.write_bytes(pickle.dumps({"model": OrderedDict(w=array), "__author__": "x"}, protocol=2))
    np.testing.assert_array_equal(safe_load(path)["model"]["w"], array)
    for value, name in ((torch.ones(2), r"torch\._utils\._rebuild"), (Path("x"), "pathlib")):
        path.write_bytes(pickle.dumps({"model": {"w": value}}))
        with pytest.raises(ValueError, match=rf"refused, because the file asks for {name}"):
            safe_load(path)
