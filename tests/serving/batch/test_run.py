"""Videos on a worker of Ray Data: when an outcome is told."""

from __future__ import annotations

import pytest

from mmvitaccel.serving.batch import BatchSettings, find_videos, run_batch
from tests.serving.batch.batch_data import write_files, write_video

# A step of the pipeline that holds a video of 24 pixels until a file is there, but not forever.
WAITS = """
import time
from pathlib import Path
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class WaitForOutcome:
    def __init__(self, folder):
        self.told, self.seen = Path(folder, 'told'), Path(folder, 'seen')

    def __call__(self, results):
        if results['img'].shape[1] == 24 and not self.seen.exists():
            end = time.monotonic() + 60
            while not self.told.exists() and time.monotonic() < end:
                time.sleep(0.05)
            self.seen.write_text(str(self.told.exists()))
        return results
"""


@pytest.mark.extras("serve", "ray", "pyarrow")
def test_an_outcome_is_told_while_the_next_video_is_played(tmp_path, monkeypatch):
    config, weights = write_files(tmp_path)
    (tmp_path / "wait_for_outcome.py").write_text(WAITS)
    with config.open("a") as file:
        file.write("custom_imports = dict(imports=['wait_for_outcome'])\n")
        step = f"dict(type='WaitForOutcome', folder='{tmp_path}')"
        file.write(f"test_dataloader['dataset']['pipeline'].insert(1, {step})\n")
    write_video(tmp_path / "videos" / "0.mp4")
    write_video(tmp_path / "videos" / "1.mp4", size=(40, 24))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    # Ray's workers give way to every other process, which on a busy machine is for good
    monkeypatch.setenv("RAY_worker_niceness", "0")
    outcomes = run_batch(
        find_videos(tmp_path / "videos"),
        BatchSettings(str(config), str(weights)),
        tmp_path / "found",
        workers=1,
        threads=1,
        done=lambda outcome: (tmp_path / "told").touch(),
    )
    assert [(each.video, each.frames) for each in outcomes] == [("0.mp4", 6), ("1.mp4", 6)]
    assert (tmp_path / "seen").read_text() == "True"
