"""Mutated checkpoints in every supported format."""

from __future__ import annotations

import io
import os
import pickle
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from mmvitaccel.conversion.catalogue import LAYOUTS
from mmvitaccel.conversion.convert import convert_file
from mmvitaccel.fit.check import check_start
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.testing.fuzz.mutate import ODD_VALUES, mutate_bytes, mutate_value
from mmvitaccel.testing.fuzz.trial import MARKER, sentence_of

_TINY = dict(embed_dims=(16, 24, 32), depths=(1, 1, 1), num_heads=(2, 3, 2), kernels=(5, 3, 3))
# Names by which the layouts are recognised.
_FOREIGN = (
    "blocks1.0.x", "patch_embed.0.c.weight", "backbone.net.blocks.0.attn.qkv.weight", "cls_token",
    "backbone.net.patch_embed.proj.weight", "backbone.net.pos_embed", "pos_embed", "neck.fpn1.0.w",
    "blocks.0.attn.qkv.weight", "backbone.blocks.0.attn.qkv.weight", "spatial_model.class_token",
    "temporal_model.class_token", "backbone.stem.conv1.weight", "backbone.temp_embd", "pixel_mean",
    "bbox_head.retina_cls.weight", "roi_head.mask_head.conv.weight", "patch_embed.proj.weight",
    "backbone.position_encoding.encoding", "module.weight", "_orig_mod.weight", "head.weight",
)  # fmt: skip


class _Call:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


class Checkpoints:
    """Mutated weights in torch's zip and legacy formats, plain pickles and safetensors.

    Args:
        folder: Folder for the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = nn.ModuleDict({"backbone": EfficientViT(arch=_TINY), "x": nn.Linear(3, 2)})
        self.weights = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.cfg = Config(dict(model=dict(type="X"), resume=True, train_dataloader={}))
        self.contents = _contents(self.weights)
        self.whole = [write(c) for c in self.contents for write in _WRITERS]
        self.payloads = [write(c) for c in _payloads(folder) for write in _WRITERS[:3]]

    def make(self, rng: random.Random) -> Path:
        """Write a checkpoint with changed bytes, with changed values, or with calls in a pickle."""
        way = rng.random()
        if way < 0.4:
            data = mutate_bytes(rng.choice(self.whole), self.whole, rng)
        elif way < 0.85:
            content = mutate_value(rng.choice(self.contents), [*_odd_tensors(), *ODD_VALUES], rng)
            data = _write_any(content, rng)
        else:
            data = rng.choice(self.payloads)
            data = mutate_bytes(data, self.payloads, rng) if rng.random() < 0.6 else data
        path = self.folder / f"fuzzed.{rng.choice(('pth', 'pkl', 'pyth', 'safetensors'))}"
        path.write_bytes(data)
        return path

    def read(self, given: Path) -> None:
        """Check it against a model, load it as a backbone, and convert it."""
        errors = []
        for use in (self._check, self._pretrain, self._convert):
            try:
                use(given)
            except Exception as error:
                errors.append(error)
        worst = next((e for e in errors if not _is_sentence(e)), None)
        if worst or errors:
            raise worst or errors[0]

    def _check(self, path: Path) -> None:
        meta = check_checkpoint(self.model, str(path))
        # Without `building`, which would turn any error into a sentence.
        check_start.__wrapped__(self.cfg, str(path), meta, True, "train")

    def _pretrain(self, path: Path) -> None:
        self.model["backbone"].load_pretrained(str(path))

    def _convert(self, path: Path) -> None:
        size = path.stat().st_size
        layout = ("", *(layout.name for layout in LAYOUTS))[size % (len(LAYOUTS) + 1)]
        convert_file(path, self.folder / "converted.pth", layout)


def _is_sentence(error: BaseException) -> bool:
    return sentence_of(error) is not None


def _contents(weights: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Return contents as training scripts save them."""
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    meta = dict(
        epoch=1, iter=5, cfg="train_dataloader = dict(batch_size=2)", mmengine_version="0.10.7",
        dataset_meta=dict(classes=("a", "b")), mmdet_version="3.3.0",
    )  # fmt: skip
    foreign = {name: torch.ones(2, 3) for name in _FOREIGN}
    arrays = {name: value.numpy() for name, value in foreign.items()}
    hub = dict(history={"loss": history}, scalars={"a": np.float64(1.0)})
    return [
        dict(state_dict=dict(weights), meta=meta, message_hub=hub, optimizer={"state": {}}),
        dict(model=arrays, __author__="d2", matching_heuristics=True),
        dict(model_state=foreign, epoch=3, cfg="a: 1"),
        dict(foreign),
        dict(state_dict=foreign, ema_state_dict=foreign, meta=dict(CLASSES=("a",), conversion={})),
    ]


def _payloads(folder: Path) -> list[Any]:
    """Return objects that execute code if they are unpickled without a check."""
    mark = f"open({str(folder / MARKER)!r}, 'w').close()"
    calls = [
        _Call(os.system, f"touch {folder / MARKER}"),
        _Call(exec, mark),
        _Call(eval, mark),
        _Call(open, str(folder / MARKER), "w"),
        _Call(Path.touch, folder / MARKER),
        _Call(np.save, str(folder / MARKER), 1),
        _Call(getattr, _Call(__import__, "os"), "system"),
        _Call(torch.load, str(folder / "fuzzed.pth")),
    ]
    inside = [dict(state_dict={"x.weight": call, "a.b": torch.ones(1)}) for call in calls]
    return [*calls, *inside, dict(meta=calls[0], state_dict={}), [calls[1]]]


def _odd_tensors() -> list[Any]:
    one = torch.ones(2, 3)
    return [
        one, one[0], torch.tensor(1.0), torch.ones(0, 3), torch.ones(1, 1, 1, 1, 1, 1),
        one.half(), one.bfloat16(), one.int(), one.bool(), one.to(torch.complex64), one * np.nan,
        torch.ones(1).expand(1 << 20), one.to_sparse(), nn.Parameter(one), one.numpy(),
        np.array(["a"]), np.float32(2), torch.ones(2, 3, device="meta"), torch.Size([1]),
        torch.ones(8, 3, 3, 3), torch.ones(1, 197, 768)[:, :2], torch.float16, set(), (1, 2),
    ]  # fmt: skip


def _torch_zip(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _torch_old(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def _pickle(content: Any) -> bytes:
    return pickle.dumps(content, protocol=2)


def _safetensors(content: Any) -> bytes:
    held = next((v for v in content.values() if isinstance(v, dict)), content)
    tensors = {str(k): v.contiguous().clone() for k, v in held.items() if isinstance(v, Tensor)}
    return save_safetensors(tensors or {"a": torch.ones(1)})


_WRITERS = (_torch_zip, _torch_old, _pickle, _safetensors)


def _write_any(content: Any, rng: random.Random) -> bytes:
    """Write with a random writer; what it cannot write is written as text."""
    try:
        return rng.choice(_WRITERS)(content)
    except Exception:
        return repr(content)[:10000].encode(errors="replace")
