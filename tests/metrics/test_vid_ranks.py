"""Two processes and one give the same mAP50, through mmengine's Runner."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

# A stand-in detector finds each frame's objects displaced by noise that depends on the frame
# alone, so that any difference comes from how frames are shared out and gathered.
RUN = """
import json, os, sys
import torch
import torch.distributed as dist
torch.set_num_threads(1)
import mmvitaccel
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from mmvitaccel.runner.distributed import leave_processes

rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[4]
if world_size > 1:
    address = f"tcp://127.0.0.1:{sys.argv[3]}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
seen = []

class Displaced(BaseModel):
    def forward(self, inputs, data_samples=None, mode="tensor"):
        for sample in data_samples:
            seen.append((sample.video_id, sample.frame_id))
            generator = torch.Generator().manual_seed(sample.img_id)
            truth = sample.gt_instances
            noise = 2 * torch.randn(truth.bboxes.shape, generator=generator)
            scores = torch.rand(len(truth), generator=generator)
            sample.pred_instances = InstanceData(
                bboxes=truth.bboxes + noise, labels=truth.labels, scores=scores
            )
        return data_samples

meta_keys = ("img_id", "ori_shape", "img_shape", "video_id", "frame_id", "video_length")
results = {}
for name in ("several", "single"):
    seen.clear()
    ann_file = f"{folder}/{name}.json"
    runner = Runner(
        model=Displaced(),
        work_dir=f"{folder}/work{world_size}",
        experiment_name=name,
        default_scope="mmdet",
        test_dataloader=dict(
            batch_size=1,
            num_workers=0,
            sampler=dict(type="mmvitaccel.VideoSampler"),
            dataset=dict(
                type="mmvitaccel.ImageNetVID",
                ann_file=ann_file,
                data_prefix=dict(img=folder),
                metainfo=dict(classes=("cat", "dog")),
                test_mode=True,
                pipeline=[
                    dict(type="LoadImageFromFile"),
                    dict(type="LoadAnnotations", with_bbox=True, box_type=None),
                    dict(type="PackDetInputs", meta_keys=meta_keys),
                ],
            ),
        ),
        test_cfg=dict(),
        test_evaluator=dict(
            type="mmvitaccel.VIDMetric", ann_file=ann_file, collect_dir=f"{folder}/parts",
            by_motion=True,
        ),
    )
    results[name] = {"figures": runner.test(), "seen": list(seen)}
with open(f"{folder}/rank{rank}of{world_size}.json", "w") as file:
    json.dump(results, file)
del runner
leave_processes()  # as the tools do: gloo's threads must not outlive Python
"""


def run(folder, world_size) -> list[dict]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, str(rank), str(world_size), str(port), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * world_size, "\n".join(outputs)
    return [
        json.loads((folder / f"rank{rank}of{world_size}.json").read_text())
        for rank in range(world_size)
    ]


def test_two_processes_and_one_give_the_same_map50(write_cocovid):
    write_cocovid(lengths=(4, 7, 3), shuffle=0, name="several.json")
    folder = write_cocovid(lengths=(5,), name="single.json").parent
    (alone,) = run(folder, 1)
    two = run(folder, 2)
    for name, lengths, shares in (("several", (4, 7, 3), [7, 7]), ("single", (5,), [5, 0])):
        assert 0 < alone[name]["figures"]["vid/mAP50"] < 100
        # As text, since the figure of a speed that no object has is NaN
        assert [str(rank[name]["figures"]) for rank in two] == [str(alone[name]["figures"])] * 2
        assert "vid/mAP50_fast" in alone[name]["figures"]
        assert [len(rank[name]["seen"]) for rank in two] == shares
        frames = [[v, f] for v, n in enumerate(lengths, 1) for f in range(n)]
        assert alone[name]["seen"] == frames
        assert sorted(two[0][name]["seen"] + two[1][name]["seen"]) == frames
