from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from mmvitaccel.conversion import convert
from mmvitaccel.errors import UserError
from mmvitaccel.whole_files import check_folder, whole_file

Usage = namedtuple("Usage", "total used free")


def test_a_file_has_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.pth"
    with whole_file(path) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    with pytest.raises(KeyError), whole_file(path) as file:
        file.write(b"sec")
        raise KeyError
    assert path.read_bytes() == b"first"
    assert [p.name for p in path.parent.iterdir()] == ["a.pth"]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from mmvitaccel.conversion import convert

os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)
convert.write(Path(sys.argv[1]), {"a": torch.ones(1000)}, {})
"""


def test_a_conversion_that_is_killed_leaves_what_was_there(tmp_path):
    path = tmp_path / "converted.pth"
    path.write_bytes(b"before")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"before"
    assert path.with_name("converted.pth.part").stat().st_size > 4000
    convert.write(path, {"a": torch.ones(1000)}, {})
    assert torch.load(path, weights_only=True)["state_dict"]["a"].sum() == 1000
    assert [p.name for p in tmp_path.iterdir()] == ["converted.pth"]


def test_what_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"file/a.pth: it could not be written \(.*\); make room"),
        whole_file(tmp_path / "file" / "a.pth"),
    ):
        pass

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with (
        pytest.raises(UserError, match=r"a.pth: it could not be written \(No space left"),
        whole_file(tmp_path / "a.pth") as file,
    ):
        file.write(b"some")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_looked_at_before_work_and_left_as_it_was(tmp_path, monkeypatch):
    check_folder(tmp_path / "new" / "deeper", 1000, "a checkpoint")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/x: a checkpoint cannot be .*file is a file"):
        check_folder(tmp_path / "file" / "x", 1, "a checkpoint")
    if Path("/proc").is_dir():
        with pytest.raises(UserError, match=r"/proc/x: a checkpoint cannot be written there"):
            check_folder("/proc/x", 1, "a checkpoint")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 3 * 2**20))
    with pytest.raises(UserError, match=r"a checkpoint takes 4\.0 MB and the disk has 3\.0 MB"):
        check_folder(tmp_path, 4 * 2**20, "a checkpoint")
    check_folder(tmp_path, 3 * 2**20, "a checkpoint")
