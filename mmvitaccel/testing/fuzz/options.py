"""Mutated ``--cfg-options``."""

from __future__ import annotations

import argparse
import contextlib
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmvitaccel.fit.check import check_inputs
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.arguments import add_config_arguments
from mmvitaccel.testing.fuzz.trial import MARKER

CONFIG = """
epochs = 3
scale = (64, 64)
default_scope = 'mmdet'
model = dict(type='RetinaNet', backbone=dict(type='ResNet', depth=18, out_indices=(2, 3),
             init_cfg=dict(type='Pretrained', checkpoint='weights.pth')),
             bbox_head=dict(type='RetinaHead', num_classes=2))
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=scale)]
data = dict(type='CocoDataset', data_root='{root}', ann_file='own.json', pipeline=pipeline,
            metainfo=dict(classes=('a', 'b')), data_prefix=dict(img='img'))
train_dataloader = dict(batch_size=2, num_workers=0, dataset=data)
val_dataloader = dict(batch_size=1, dataset=dict(type='RepeatDataset', times=2, dataset=data))
val_evaluator = [dict(type='CocoMetric', ann_file='{root}/own.json', metric='bbox')]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs)
val_cfg = dict(type='ValLoop')
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=epochs, milestones=[1, 2])]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
auto_scale_lr = dict(enable=False, base_batch_size=16)
resume = False
"""
_NEW = (
    "custom_hooks.0.type", "visualizer.type", "a", "model", "work_dir", "load_from", "", ".",
    "tta_model.x", "env_cfg.mp_cfg.mp_start_method", "custom_imports.imports", "_base_",
    "__class__", "model.__class__", "model._cfg_dict",
    "train_dataloader.dataset.0", "filename", "pretty_text",
    "model.backbone.init_cfg.checkpoint", "model.pop", "epochs.x", "scale.0", "scale.1", "_delete_",
    "model._delete_", "model.backbone._delete_", "val_evaluator.-1.type", "val_evaluator.9",
)  # fmt: skip


class Options:
    """Options with existing and unknown keys of a config, and unusual values.

    Args:
        folder: Folder for the config.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config.py"
        self.path.write_text(CONFIG.replace("{root}", str(folder)))
        (folder / "own.json").write_text('{"images": [], "annotations": [], "categories": []}')
        (folder / "weights.pth").write_bytes(b"")
        (folder / "img").mkdir(exist_ok=True)
        self.keys = [*_keys(Config.fromfile(self.path).to_dict()), *_NEW]
        self.values = [*_VALUES, *_code(folder)]

    def make(self, rng: random.Random) -> list[str]:
        """Return one to three ``key=value`` pairs, some of them damaged."""
        pairs = [f"{rng.choice(self.keys)}={self._value(rng)}" for _ in range(rng.randint(1, 3))]
        return [_damage(pair, rng) if rng.random() < 0.3 else pair for pair in pairs]

    def read(self, given: list[str]) -> None:
        """Load the config with these options, and check it."""
        parser = argparse.ArgumentParser()
        add_config_arguments(parser)
        with contextlib.suppress(SystemExit):  # argparse reports the mistake itself
            args = parser.parse_args([str(self.path), "--cfg-options", *given])
            cfg = load_config(args.config, args.cfg_options)
            # Without `building`, which would turn any error into a sentence.
            check_inputs.__wrapped__(cfg, "train", "val")

    def _value(self, rng: random.Random) -> str:
        value = rng.choice(self.values)
        shape = rng.choice(
            ("{}", "{}", "{}", "[{}]", "({},)", "{},{}", "[[{}],{}]", "'{}'", "{{{}")
        )
        return shape.replace("{}", value)


def _keys(value: Any, path: str = "") -> Iterator[str]:
    """Yield every dotted key of a config."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, inner in items:
        yield f"{path}{key}"
        if isinstance(inner, (Mapping, list, tuple)):
            yield from _keys(inner, f"{path}{key}.")


_VALUES = (
    "", "1", "0", "-1", "1.5", "nan", "inf", "1e999", "9" * 5000, "None", "True", "a", "a.b", "=",
    "==", ",", "[", "]", "(", ")", "[]", "()", "{}", "{'a':1}", "dict(type='X')", "[(1,2),[3]]",
    "[" * 2000 + "]" * 2000, "1," * 3000, "{{fileBasename}}", "{{$HOME:}}", "{{_base_.model}}",
    "\u0661", "\0", "\ud800", "'", '"', "\\", "\n", "%s", "{0}", "$(touch x)", "/", "..", "~",
    "https://x", "s3://x", "mmdet.X", "os.system", "builtins.eval", "torch.nn.Linear", "0x10",
    "1_000", "1j", "lambda: 1", "...", "a" * 20000, "CocoDataset", "ResNet", "Pretrained", "1,2,3",
)  # fmt: skip


def _code(folder: Path) -> list[str]:
    """Return values that create the marker file if they are evaluated."""
    mark = folder / MARKER
    return [
        f"__import__('os').system('touch {mark}')",
        f"open('{mark}','w')",
        f"$(touch {mark})",
        f"{{{{__import__('os').system('touch {mark}')}}}}",
        f"'+open('{mark}','w').name+'",
        f"0\nopen('{mark}','w')",
    ]


def _damage(pair: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(pair))
        new = rng.choice(
            ("", "=", ".", "[", "]", "(", ")", ",", "'", "\\", " ", "\n", "-", "\u2028")
        )
        pair = pair[:at] + new + pair[at + rng.randint(0, 2) :]
    return pair
