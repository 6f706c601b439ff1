"""Every argument of every registered type and public name refuses what has no meaning for it.

The types are those of the registries and of ``mmvitaccel.__all__``, so that a new one is tried by
itself; one with required arguments needs values in ``GOOD``.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import Registry
from torch import nn

import mmvitaccel
from mmvitaccel import registry
from mmvitaccel.core.eventful.gates.importance import LastObjects
from mmvitaccel.core.eventful.gates.policy import TopK
from mmvitaccel.core.eventful.modes.exact import ExactAttention
from mmvitaccel.core.eventful.modes.running_sums import Guard
from mmvitaccel.core.eventful.options import EventfulOptions
from mmvitaccel.core.tome.matchings import MATCHINGS
from mmvitaccel.testing.models import timm_model, vitdet, vivit

pytestmark = pytest.mark.filterwarnings("ignore")

VITDET = dict(
    img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=3, window_size=2,
    window_block_indexes=(0,), pretrain_img_size=32,
)  # fmt: skip
VIVIT = dict(
    img_size=16, num_frames=2, tubelet_size=(1, 8, 8), embed_dim=12, num_heads=2,
    spatial_depth=1, temporal_depth=1,
)  # fmt: skip
STAGES = dict(embed_dims=(16, 24, 32), depths=(1, 1, 1), num_heads=(2, 3, 2), kernels=(5, 3, 3))
BACKBONE = dict(type="mmvitaccel.ViTDet", **VITDET)


class Frames:
    """A data set of four frames of one video."""

    def __len__(self) -> int:
        return 4

    def get_data_info(self, index: int) -> dict[str, int]:
        return dict(video_id=0, frame_id=index)


class Chosen:
    """A matching, for the function that registers one."""

    match = staticmethod(lambda given: None)


def cocovid() -> str:
    path = Path(mkdtemp()) / "vid.json"
    image = dict(id=1, file_name="a.jpg", height=4, width=4, video_id=1, frame_id=0)
    path.write_text(json.dumps(dict(images=[image], categories=[dict(id=1, name="car")])))
    return str(path)


def epic() -> str:
    from mmvitaccel.datasets.epic_kitchens import COLUMNS

    path = Path(mkdtemp()) / "epic.csv"
    row = ("a_0", "a", "a_1", "00:00:01.0", "00:00:02.0", "1", "9", "3", "4")
    path.write_text(f"{','.join(COLUMNS)}\n{','.join(row)}\n")
    return str(path)


#: What each takes as it is meant: required arguments, and small sizes.
GOOD: dict[str, Callable[[], dict[str, Any]]] = {
    "BFloat16OptimWrapper": lambda: dict(optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters())),
    "BoxTTAModel": lambda: dict(module=nn.Identity()),
    "Budget": lambda: dict(
        handle=mmvitaccel.apply_eventful(vitdet(**VITDET), TopK(4)), milliseconds=9.0, k=(1, 8)
    ),
    "BudgetHook": lambda: dict(k=(2, 8), milliseconds=9.0),
    "BudgetScheduleHook": lambda: dict(schedule=[3]),
    "CascadeRoIHead": lambda: dict(
        num_stages=1,
        stage_loss_weights=[1.0],
        bbox_roi_extractor=dict(
            type="mmdet.SingleRoIExtractor",
            out_channels=4,
            featmap_strides=[4],
            roi_layer=dict(type="RoIAlign", output_size=7),
        ),
        bbox_head=dict(
            type="mmdet.Shared2FCBBoxHead", in_channels=4, fc_out_channels=4, num_classes=2
        ),
    ),
    "ClipSampler": lambda: dict(dataset=Frames()),
    "CompiledEfficientViT": lambda: dict(model=mmvitaccel.EfficientViT(STAGES)),
    "EfficientViT": lambda: dict(arch=STAGES),
    "EfficientViTFPN": lambda: dict(in_channels=[4, 6], out_channels=4, num_outs=3),
    "EfficientViTPooling": lambda: dict(in_channels=4),
    "EpicKitchens": lambda: dict(ann_file=epic(), pipeline=[], data_prefix=dict(video="a")),
    "Eventful": lambda: dict(policy=dict(type="TopK", k=4), backbone=BACKBONE),
    "EventfulHook": lambda: dict(policy=dict(type="TopK", k=4)),
    "EventfulNeck": lambda: dict(neck=dict(type="mmvitaccel.SimpleFPN", in_channels=8)),
    "Every": lambda: dict(frames=3),
    "ImageNetVID": lambda: dict(ann_file=cocovid(), lazy_init=True),
    "LN2d": lambda: dict(num_channels=4),
    "RLT": lambda: dict(backbone=dict(type="mmvitaccel.ViViT", **VIVIT)),
    "RandomBudgetHook": lambda: dict(k=(2, 8)),
    "RandomTokens": lambda: dict(k=4),
    "SharedTopK": lambda: dict(k=4),
    "SimpleFPN": lambda: dict(in_channels=8, out_channels=4),
    "SpatialFeatures": lambda: dict(ann_file="index.json", lazy_init=True),
    "TIMMBackbone": lambda: dict(model_name="vit_tiny_patch16_224"),
    "ToMe": lambda: dict(backbone=BACKBONE),
    "TopFraction": lambda: dict(fraction=0.5),
    "TopK": lambda: dict(k=4),
    "VIDMetric": lambda: dict(ann_file=cocovid()),
    "VerbNounHead": lambda: dict(in_channels=4),
    "ViTDet": lambda: VITDET,
    "ViViT": lambda: VIVIT,
    "VideoSampler": lambda: dict(dataset=Frames()),
    "Weighted": lambda: dict(base=TopK(4), importance=[LastObjects()]),
    "apply_eventful": lambda: dict(model=vitdet(**VITDET), policy=TopK(4)),
    "apply_eventful_neck": lambda: dict(model=mmvitaccel.SimpleFPN(8, 4)),
    "apply_rlt": lambda: dict(model=vivit(**VIVIT)),
    "apply_tome": lambda: dict(model=timm_model("vit_tiny_patch16_224", depth=1)),
    "mmvitaccel.core.eventful.gates.policy.Threshold": lambda: dict(threshold=0.5),
    "register_matching": lambda: dict(cls=Chosen),
}

#: Arguments that a class hands on to mmengine's data set, which would misread them.
OF_MMENGINE = {
    "ann_file": "str | None",
    "metainfo": "Mapping | None",
    "data_root": "str | None",
    "data_prefix": "dict",
    "filter_cfg": "dict | None",
    "indices": "int | Sequence[int] | None",
    "serialize_data": "bool",
    "test_mode": "bool",
    "lazy_init": "bool",
    "max_refetch": "int",
}
HANDED_ON = {
    "EpicKitchens": {
        name: kinds
        for name, kinds in OF_MMENGINE.items()
        if name not in ("ann_file", "data_prefix")
    },
    "ImageNetVID": OF_MMENGINE,
    "SpatialFeatures": OF_MMENGINE,
}

NAN, INF = float("nan"), float("inf")
#: One or two values of each kind; an argument takes kinds by its annotation.
KINDS: dict[str, tuple[Any, ...]] = {
    "none": (None,),
    "bool": (True,),
    "text": ("1", "False", "(1, 2)"),
    "whole": (8,),
    "fraction": (8.5,),
    "list": ([], [1, "2"], [None]),
    "mapping": ({}, {"x": 1}),
    "object": (object(), object),
}
TAKES = {
    "None": "none",
    "bool": "bool",
    "int": "whole",
    "float": "whole fraction",
    "str": "text",
    "dict": "mapping",
    "Mapping": "mapping",
    "Policies": "mapping",
    "Schedule": "whole fraction",
    "Any": " ".join(KINDS),
}
#: Values that have a meaning where others of their kind have none, by type ("" for all) and name.
MEANT: dict[tuple[str, str], tuple[Any, ...]] = {
    ("ReceivedAttention", "block"): (-5,),  # counted from the last
    ("ClipSampler", "seed"): (-5,),
    ("VideoSampler", "seed"): (-5,),
    ("Threshold", "threshold"): (INF,),  # nothing passes
    ("OnChange", "above"): (INF,),  # nothing is a cut
    ("ExactAttention", "dense_share"): (INF,),
    ("RLT", "threshold"): (INF,),  # all patches repeat
    ("RLTHook", "threshold"): (INF,),
    ("apply_rlt", "threshold"): (INF,),
    ("ViTDet", "window_block_indexes"): ([],),  # all blocks are global
    ("", "init_cfg"): ([],),  # mmengine's: no way of initialisation
    ("Budget", "clock"): (object,),  # can be called
    ("BudgetScheduleHook", "schedule"): (object,),
    **{(name, "indices"): (-5,) for name in HANDED_ON},  # the last five
    ("EpicKitchens", "pipeline"): ([], [1, "2"], [None]),  # mmengine builds its entries
    ("VIDMetric", "backend_args"): ({}, {"x": 1}),  # mmengine's
}


def types_of_the_package() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for own in vars(registry).values():
        if isinstance(own, Registry) and own.scope == registry.SCOPE:
            own.import_from_location()
            found.update((_name(cls), cls) for cls in own.module_dict.values())
    public = [getattr(mmvitaccel, name) for name in mmvitaccel.__all__]
    others = [ExactAttention, Guard, EventfulOptions, *MATCHINGS.values()]
    found.update((_name(cls), cls) for cls in [*public, *others] if callable(cls))
    return dict(sorted(found.items()))


def _name(cls: Any) -> str:
    two = cls.__name__ == "Threshold"  # a policy and a matching have this name
    return f"{cls.__module__}.{cls.__name__}" if two else cls.__name__


def own_arguments(cls: Any) -> dict[str, inspect.Parameter]:
    """Those of a constructor or function that this package writes; others' are handed on."""
    written = cls.__init__ if inspect.isclass(cls) else cls
    if not getattr(written, "__module__", "").startswith("mmvitaccel"):
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    handed_on = {
        name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kinds)
        for name, kinds in HANDED_ON.get(cls.__name__, {}).items()
    }
    own = {n: p for n, p in inspect.signature(cls).parameters.items() if p.kind in named}
    return own | handed_on


@cache
def good(name: str) -> dict[str, Any]:
    return GOOD.get(name, dict)()


def wrong_values(annotation: str) -> Iterator[Any]:
    """What has no meaning for an argument, by what its annotation says."""
    outer = re.sub(r"\[.*?\]+", "", annotation)
    tokens = [token.strip().rpartition(".")[2] for token in outer.split("|")]
    taken = {kind for token in tokens for kind in TAKES.get(token, "").split()}
    for kind, values in KINDS.items():
        for value in values:
            if kind not in taken:
                yield value
    if taken & {"whole", "fraction"}:
        yield from (NAN, INF, -5)


def is_meant(owner: str, name: str, value: Any) -> bool:
    meant = (*MEANT.get((owner, name), ()), *MEANT.get(("", name), ()))
    return any(value is each or value == each for each in meant)


def refusal(call: Callable[..., Any], arguments: dict[str, Any], name: str) -> str | None:
    """What is wrong with how a wrong value is refused; None if nothing is."""
    try:
        call(**arguments)
    except (TypeError, ValueError) as error:
        said = str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    else:
        return "accepted"
    owner, _, rest = said.partition(":")
    of_it = owner.lower() in f"{call.__name__} {call.__name__.replace('_', '')}".lower()
    return None if of_it and re.search(rf"\b{name}\b", rest) else said


TYPES = types_of_the_package()


def test_every_constructor_is_written_here() -> None:
    """An inherited one would take what OpenMMLab misreads."""
    inherited = {
        name
        for name, cls in TYPES.items()
        if inspect.isclass(cls)
        and cls.__module__.startswith("mmvitaccel")  # other tests register classes too
        and not getattr(cls.__init__, "__module__", "mmvitaccel").startswith("mmvitaccel")
    }
    assert inherited == set()
    names = set(inspect.signature(BaseDataset.__init__).parameters) - {"self", "pipeline"}
    assert set(OF_MMENGINE) == names


def test_further_arguments_of_hooks_are_checked_when_they_are_made() -> None:
    for hook, name, apply in (
        (TYPES["ToMeHook"], "ToMeHook", mmvitaccel.apply_tome),
        (TYPES["EventfulHook"], "EventfulHook", mmvitaccel.apply_eventful),
    ):
        with pytest.raises(ValueError, match=r": there is no argument 'max_stream"):
            hook(**good(name), max_streamz=4)
        wrong = []
        for argument, parameter in inspect.signature(apply).parameters.items():
            if parameter.kind is not parameter.KEYWORD_ONLY or argument == "parts":
                continue
            for value in wrong_values(str(parameter.annotation)):
                if is_meant(name, argument, value):
                    continue
                said = refusal(hook, {**good(name), argument: value}, argument)
                if said is not None:
                    wrong.append(f"{name}({argument}={value!r}): {said[:150]}")
        assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", TYPES)
def test_values_without_a_meaning_are_refused_by_name(name: str) -> None:
    cls, wrong = TYPES[name], []
    for argument, parameter in own_arguments(cls).items():
        for value in wrong_values(str(parameter.annotation)):
            if is_meant(cls.__name__, argument, value):
                continue
            said = refusal(cls, {**good(name), argument: value}, argument)
            if said is not None:
                wrong.append(f"{argument}={value!r}: {said[:150]}")
    assert not wrong, "\n".join([name, *wrong])


@pytest.mark.parametrize("name", TYPES)
def test_numbers_of_numpy_and_lists_are_taken(name: str) -> None:
    as_numpy = {bool: np.bool_, int: np.int64, float: np.float32, tuple: list}
    cls, wrong = TYPES[name], []
    for argument, parameter in own_arguments(cls).items():
        value = good(name).get(argument, parameter.default)
        if type(value) not in as_numpy or (argument == "r" and cls.__name__ != "BudgetHook"):
            continue
        other = as_numpy[type(value)](value)
        try:
            cls(**{**GOOD.get(name, dict)(), argument: other})
        except Exception as error:
            wrong.append(f"{argument}={other!r}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join([name, *wrong])
