"""A steady frame reads nothing from its device, and is the same work every time.

There is no GPU here: a CPU takes a device's path, and a dispatch mode refuses what would wait.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmvitaccel import (
    LastObjects,
    OnChange,
    ReceivedAttention,
    RunningObjects,
    TopFraction,
    TopK,
    Weighted,
    apply_eventful,
    apply_eventful_neck,
)
from mmvitaccel.core.eventful.gates import host_reads
from mmvitaccel.core.eventful.maps import rows, steps, top_up
from mmvitaccel.core.eventful.modes import global_attention, running_sums, windowed_attention
from mmvitaccel.core.kernels import operators
from mmvitaccel.models.vitdet.simple_fpn import SimpleFPN
from mmvitaccel.testing import maps
from mmvitaccel.testing.models import timm_model, vitdet

READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "item", "unique", "masked_select")
SMALL = dict(
    img_size=128, embed_dim=32, depth=3, num_heads=2, window_size=4, window_block_indexes=(0, 2)
)


class Work(TorchDispatchMode):
    """Notes the operators of a frame, their shapes and their numbers; refuses reads."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().partition("::")[2].partition(".")[0]
        if name in READS or any(is_mask(index) for index in indices(name, args)):
            raise AssertionError(f"{name} waits for the device")
        self.done.append((func.name(), *described((args, kwargs or {}))))
        return func(*args, **(kwargs or {}))


def indices(name, args):
    return args[1] if name in ("index", "index_put", "index_put_") else ()


def is_mask(index):
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def described(value):
    if isinstance(value, torch.Tensor):
        return [(tuple(value.shape), value.dtype)]
    if isinstance(value, (list, tuple)):
        return [part for item in value for part in described(item)]
    if isinstance(value, dict):
        return described(list(value.items()))
    return [str(value)]


@pytest.fixture
def device(monkeypatch):
    """A device that is not to be waited for; what it finds arrives when a test says so."""
    arrived = []

    def arriving(condition):
        place = len(arrived)
        arrived.append(False)
        return lambda: bool(condition) if arrived[place] else None

    for module in (
        host_reads, rows, steps, top_up, global_attention, running_sums, windowed_attention,
    ):  # fmt: skip
        monkeypatch.setattr(module, "reading_is_free", lambda device: False)
    monkeypatch.setattr(host_reads, "arriving", arriving)
    monkeypatch.setattr(operators, "kernels", lambda: None)
    return lambda: arrived.__setitem__(slice(None), [True] * len(arrived))


def frames_of(run, make, count=5):
    """The work of each of the frames after the second."""
    work = []
    with torch.no_grad():
        for number in range(count):
            x = make(number)
            with Work() as frame:
                run(x)
            work.append(frame.done)
    return work[2:]


def images(number, batch=1, size=128):
    torch.manual_seed(number)
    return torch.randn(batch, 3, size, size)


@pytest.mark.parametrize("policy", [TopK(9), TopFraction(0.2)], ids=repr)
@pytest.mark.parametrize("attention", ["exact", "tokenwise", "delta"])
def test_vitdet(attention, policy, device):
    torch.manual_seed(0)
    model = vitdet(**SMALL).eval()
    apply_eventful(model, policy, attention=attention)
    first, *others = frames_of(model, images)
    assert len(first) > 100 and all(frame == first for frame in others)


@pytest.mark.parametrize("options", [dict(kv_pool_size=2), dict(buffer_dtype="bfloat16")], ids=str)
def test_vitdet_with_options(options, device):
    torch.manual_seed(0)
    model = vitdet(**SMALL).eval()
    apply_eventful(model, TopK(9), **options)
    first, *others = frames_of(model, images)
    assert all(frame == first for frame in others)


def test_timm_and_a_batch_of_streams(device):
    torch.manual_seed(0)
    model = timm_model("vit_tiny_patch16_224", img_size=64, depth=2).eval()
    handle = apply_eventful(model, TopK(5))

    def run(x):
        with handle.stream(["a", "b"]):
            model(x)

    first, *others = frames_of(run, lambda number: images(number, 2, 64))
    assert all(frame == first for frame in others)


def test_neck(device):
    torch.manual_seed(0)
    neck = SimpleFPN(16, 8).eval()
    apply_eventful_neck(neck, TopK(4))

    def run(number):
        torch.manual_seed(number)
        return torch.randn(1, 16, 8, 8)

    first, *others = frames_of(neck, run)
    assert all(frame == first for frame in others)


def test_a_neck_whose_gate_passes_what_clearly_changed(device):
    torch.manual_seed(0)
    detector = torch.nn.Module()
    detector.backbone, detector.neck = vitdet(**SMALL).eval(), SimpleFPN(32, 8).eval()
    apply_eventful(detector, TopK(4), parts=("backbone", "neck"))

    def run(x):
        detector.neck(detector.backbone(x))

    first, *others = frames_of(run, images)
    assert all(frame == first for frame in others)


@pytest.mark.parametrize("norm", [None, dict(type="GN", num_groups=4)], ids=["plain", "GroupNorm"])
def test_a_head_over_maps(norm, device):
    neck = maps.build(dict(type="mmvitaccel.SimpleFPN", in_channels=16, out_channels=8, num_outs=5))
    head = maps.retina(norm_cfg=norm)
    detector = torch.nn.ModuleDict(dict(neck=neck, bbox_head=head))
    detector.neck, detector.bbox_head = neck, head
    apply_eventful(detector, TopK(4), parts=("neck", "bbox_head"), group_norm="held")

    def run(x):
        head(neck(x))

    def make(number):
        return torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(number))

    first, *others = frames_of(run, make)
    assert all(frame == first for frame in others)


def test_objects_and_changes(device):
    """Every frame is another scene; what the device finds of that has not arrived."""
    torch.manual_seed(0)
    model = vitdet(**SMALL).eval()
    policy = Weighted(TopK(9), [LastObjects(), RunningObjects(), ReceivedAttention(1)])
    handle = apply_eventful(model, policy, refresh=OnChange())

    def run(x):
        model(x)
        handle.saw_objects(torch.tensor([[0.1, 0.2, 0.4, 0.6]]))

    first, *others = frames_of(run, images)
    assert all(frame == first for frame in others)


def test_a_change_is_noticed_once_it_arrives(device):
    torch.manual_seed(0)
    model = vitdet(**SMALL).eval()
    handle = apply_eventful(model, TopK(9), refresh=OnChange())

    def is_refreshed(x):
        with torch.no_grad():
            model(x)
        return handle.frames[0].refreshed

    scene = torch.nn.functional.interpolate(images(0, size=4), (128, 128))
    other = torch.nn.functional.interpolate(images(1, size=4), (128, 128))
    assert [is_refreshed(x) for x in (scene, scene, other)] == [False] * 3
    device()
    assert [is_refreshed(x) for x in (other, other)] == [True, False]


def test_a_read_that_is_put_back_is_found(device):
    model = vitdet(**SMALL).eval()

    class Reads(TopK):
        def select(self, error):
            assert error.max().item() >= 0
            return super().select(error)

    apply_eventful(model, Reads(9))
    with pytest.raises(AssertionError, match="_local_scalar_dense waits for the device"):
        frames_of(model, images)


def test_what_the_device_finds_is_noticed_once_it_arrives(device):
    torch.manual_seed(0)
    model = vitdet(**SMALL).eval()
    handle = apply_eventful(model, TopK(9))

    def is_first(x):
        with torch.no_grad():
            model(x)
        return handle.frames[0].first

    assert is_first(images(0)) and not is_first(images(1))
    assert not is_first(images(2) * torch.nan)
    assert not is_first(images(3))  # nothing has arrived
    device()
    assert is_first(images(4))
    device()
    assert not is_first(images(5))
    model.blocks[0].norm1.bias.data.add_(1.0)  # neither place nor version tells it
    assert not is_first(images(6))
    device()
    assert is_first(images(7))
    device()
    assert not is_first(images(8))
