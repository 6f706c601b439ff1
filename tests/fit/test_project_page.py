"""The example of the page on your own project, on small pictures."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "start" / "project.md"


def test_the_example_trains(run_tool, boxes, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (example,) = [block for block in blocks if block.startswith("_base_")]
    assert "retinanet_r50_fpn_1x_coco.py" in example
    config = tmp_path / "yours.py"
    config.write_text(example)
    options = ["model.bbox_head.num_classes=2", "default_hooks.logger.interval=1"]
    for split, scale in (("train", 2), ("val", 1), ("test", 1)):
        loader = f"{split}_dataloader"
        options += [
            f"{loader}.dataset.indices=4",
            f"{loader}.num_workers=0",
            f"{loader}.persistent_workers=False",
        ]
        options += [f"{loader}.dataset.data_root={boxes}", f"{loader}.dataset.ann_file=boxes.json"]
        options += [f"{loader}.dataset.data_prefix.img=images"]
        options += [f"{loader}.dataset.metainfo.classes=(bright,dark)"]
        options += [f"{loader}.dataset.pipeline.{scale}.scale=(64,64)"]
    options += [f"{s}_evaluator.ann_file={boxes}/boxes.json" for s in ("val", "test")]
    options += ["train_cfg.max_epochs=1", "param_scheduler=None"]
    run_tool("train", config, "--work-dir", "run", "--cfg-options", *options)
    assert (tmp_path / "run" / "epoch_1.pth").is_file()
