"""Workers that begin with nothing but their pickled work."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from multiprocessing.process import BaseProcess

import pytest

# The program itself is not imported in its workers: it comes with -c.
LOADING = """
import mmvitaccel
from mmdet.datasets import CocoDataset
from torch.utils.data import DataLoader

data = CocoDataset(
    data_root={root!r}, ann_file="boxes.json", data_prefix=dict(img="images"),
    metainfo=dict(classes=("bright", "dark")), pipeline=[dict(type="mmdet.LoadImageFromFile")],
    test_mode=True,
)
loader = DataLoader(
    data, num_workers=1, multiprocessing_context={start!r}, collate_fn=list, batch_size=5
)
(batch,) = loader
print([item["img"].shape for item in batch])
"""


class Stubborn(BaseProcess):
    def __reduce__(self):
        return str, ("written down its own way",)


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_a_loader_of_mmdet_works_with_workers_started_afresh(boxes, start):
    program = LOADING.format(root=str(boxes), start=start)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == str([(64, 64, 3)] * 5)


def test_what_a_process_writes_down_names_this_package_first():
    process = multiprocessing.Process(name="some name", target=print)
    # Only a process that is being started may be pickled with its key.
    process._config = {}
    written = pickle.dumps(process)
    assert written.index(b"mmvitaccel.compat.spawned") < written.index(b"some name")
    assert pickle.loads(written).name == "some name"
    assert pickle.loads(pickle.dumps(Stubborn())) == "written down its own way"
