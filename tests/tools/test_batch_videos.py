"""tools/batch_videos.py: over Ray Data in a process of its own, taken up again, its mistakes."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.batch.batch_data import write_broken, write_files, write_video

ROOT = Path(__file__).parents[2]
needs_ray = pytest.mark.extras("serve", "ray", "pyarrow")

# A transform that ends the process at the third frame of a video that is 24 pixels wide, and one
# that notes which addresses are listened to while a video is played.
WITNESS = """
import os, signal
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Witness:
    def __init__(self, file):
        self.file = file

    def __call__(self, results):
        if results['img'].shape[1] == 24 and results['img_id'] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        with open(self.file, 'w') as file:
            file.write('\\n'.join(listening()))
        return results


def listening():
    sockets = {}
    for table in ('tcp', 'tcp6'):
        for line in open(f'/proc/net/{table}').read().splitlines()[1:]:
            fields = line.split()
            if fields[3] == '0A':
                sockets[f'socket:[{fields[9]}]'] = fields[1].partition(':')[0]
    for process in filter(str.isdecimal, os.listdir('/proc')):
        try:
            name = open(f'/proc/{process}/cmdline').read().replace('\\0', ' ').strip()
            session = os.environ['RAY_SESSION_OF_TEST'] in open(f'/proc/{process}/environ').read()
            files = f'/proc/{process}/fd'
            held = [os.readlink(f'{files}/{number}') for number in os.listdir(files)]
        except OSError:
            continue
        if session:
            yield from (f'{sockets[link]} {name}' for link in held if link in sockets)
"""
# 127.0.0.1 as the kernel writes it, also in the form of IPv6
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path)


def summary(out):
    with (out / "summary.csv").open() as file:
        return {row["video"]: row for row in csv.DictReader(file)}


@needs_ray
def test_videos_over_ray(files, tmp_path, run_tool, capsys):
    config, weights = files
    (tmp_path / "witness.py").write_text(WITNESS)
    sockets = tmp_path / "sockets.txt"
    with config.open("a") as file:
        file.write("custom_imports = dict(imports=['witness'])\n")
        step = f"dict(type='Witness', file='{sockets}')"
        file.write(f"test_dataloader['dataset']['pipeline'].insert(1, {step})\n")
    for number in range(2):
        write_video(tmp_path / "videos" / f"{number}.mp4", seed=number)
    write_video(tmp_path / "videos" / "killer.mp4", size=(40, 24))
    write_broken(tmp_path / "videos" / "broken")
    names = ("0.mp4", "1.mp4", "killer.mp4", "broken")
    (tmp_path / "list.txt").write_text("\n".join(f"videos/{name}" for name in names))
    arguments = [tmp_path / "list.txt", config, weights, "--out", tmp_path / "found", "--k", 6]
    arguments = [*arguments[:-2], "--workers", 1, "--threads", 1]
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        RAY_SESSION_OF_TEST=str(tmp_path),
        # Ray's workers give way to every other process, which on a busy machine is for good
        RAY_worker_niceness="0",
    )
    command = [sys.executable, ROOT / "tools" / "batch_videos.py", *arguments]
    done = subprocess.run(
        [*map(str, command)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 3, done.stderr
    assert "2 of 4 videos are in" in done.stdout
    assert "failed: videos/broken: " in done.stderr and "3.png (2 bytes)" in done.stderr
    assert "failed: videos/killer.mp4: its worker was killed twice" in done.stderr
    assert "core_worker" not in done.stderr and "RAY_BACKEND" not in done.stderr
    assert "videos/0.mp4: 6 frames" in done.stdout
    assert all("multiply-adds" in line for line in done.stdout.splitlines() if " frames, " in line)
    found = summary(tmp_path / "found")
    assert [name for name in found if found[name]["error"]] == [
        "videos/broken",
        "videos/killer.mp4",
    ]
    assert [found[f"videos/{n}.mp4"]["frames"] for n in range(2)] == ["6", "6"]
    assert not (tmp_path / "found" / "videos" / "broken.jsonl").exists()

    heard = sockets.read_text().splitlines()
    assert len(heard) > 3  # of the workers, their node and its head
    assert [line for line in heard if line.partition(" ")[0] not in LOOPBACK] == []

    # Without the videos that fail nothing is left to do, and no Ray is started
    (tmp_path / "list.txt").write_text("\n".join(f"videos/{name}" for name in names[:2]))
    made = (tmp_path / "found" / "videos" / "0.mp4.jsonl").stat().st_mtime_ns
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        run_tool("batch_videos", *arguments)
    assert "2 of 2 videos are in" in capsys.readouterr().out
    assert (tmp_path / "found" / "videos" / "0.mp4.jsonl").stat().st_mtime_ns == made
    assert list(summary(tmp_path / "found")) == ["videos/0.mp4", "videos/1.mp4"]


@needs_ray
@pytest.mark.parametrize(("broken", "status"), [(False, 2), (True, 3)])
def test_status_of_a_run_in_which_no_video_has_a_result(
    files, tmp_path, run_tool, capsys, monkeypatch, broken, status
):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # As above
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "list.txt").write_text("empty.mp4\nbroken\n" if broken else "empty.mp4\n")
    write_broken(tmp_path / "broken")  # whose first three frames are computed
    with pytest.raises(SystemExit) as ended:
        run_tool("batch_videos", tmp_path / "list.txt", *files, "--out", tmp_path / "found")
    assert ended.value.code == status
    said = capsys.readouterr()
    assert f"0 of {1 + broken} videos are in" in said.out
    assert "failed: empty.mp4: " in said.err and ("failed: broken: " in said.err) is broken
    assert "started" not in (tmp_path / "found" / "summary.csv").read_text()


@needs_ray
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "fast"], "--budget: 'fast' is not a valid budget"),
        (["--bounds", "9", "3"], "--bounds 9 3: give two values"),
        (["--workers", "0"], "--workers 0: give 1 or more"),
        (["--out", "config.py/out"], "cannot be written there"),
        (["--prefix", "teacher."], "teacher."),
        (["--address", "nowhere"], "Ray does not answer at nowhere: "),
    ],
)
def test_what_cannot_start_ends_in_a_sentence(
    files,
    tmp_path,
    run_tool,
    capsys,
    arguments,
    message,
):
    write_video(tmp_path / "videos" / "a.mp4")
    with pytest.raises(SystemExit, match="2"):
        run_tool("batch_videos", tmp_path / "videos", *files, "--out", "out", *arguments)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@needs_ray
def test_a_ray_data_that_cannot_be_imported(files, run_tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray.data", None)
    write_video(tmp_path / "videos" / "a.mp4")
    with pytest.raises(SystemExit, match="2"):
        run_tool("batch_videos", tmp_path / "videos", *files, "--out", "out")
    assert "error: Ray Data cannot be imported (import of ray.data" in capsys.readouterr().err


def test_without_ray_a_sentence(files, run_tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mmvitaccel.extras.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        run_tool("batch_videos", tmp_path, *files, "--out", "out")
    assert "pip install 'mmvitaccel[serve]'" in capsys.readouterr().err
