"""Counts against formulas written out by hand."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmvitaccel.core.macs.counter import (
    MacsCounter,
    count_macs,
    is_counting,
    register_macs_formula,
)


class Attention(nn.Module):
    """Fused self-attention with a mask or without, and with fewer keys than queries."""

    def __init__(self, dim: int, heads: int, keys: int | None = None, masked: bool = False) -> None:
        super().__init__()
        self.heads, self.keys, self.masked = heads, keys, masked
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        k, v = k[:, :, : self.keys], v[:, :, : self.keys]
        mask = torch.zeros(b, 1, 1, k.shape[2]) if self.masked else None
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(y.transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SmallViT(nn.Module):
    def __init__(self, dim: int = 32, heads: int = 4, depth: int = 2, patch: int = 4) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.Sequential(*[Block(dim, heads) for _ in range(depth)])
        self.head = nn.Linear(dim, 10)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        return self.head(self.blocks(x)[:, 0])


def vit_macs(batch: int, img: int, dim: int, depth: int, patch: int) -> dict[str, int]:
    n0 = (img // patch) ** 2
    n = n0 + 1
    block = n * dim * 3 * dim + 2 * n * n * dim + n * dim * dim + 2 * n * dim * 4 * dim
    return {
        "patch_embed": batch * n0 * 3 * patch**2 * dim,
        "blocks": batch * depth * block,
        "head": batch * dim * 10,
    }


CONVOLUTIONS = [
    (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 11), 2 * 11 * 6 * 4 * 3),
    (nn.Conv2d(3, 8, 3, stride=2, padding=1), (2, 3, 9, 12), 2 * 5 * 6 * 8 * 3 * 9),
    (nn.Conv2d(8, 12, 5, groups=4), (1, 8, 9, 9), 5 * 5 * 12 * 2 * 25),
    (nn.Conv2d(6, 6, 3, groups=6, dilation=2), (1, 6, 9, 9), 5 * 5 * 6 * 9),
    (nn.Conv3d(3, 4, (2, 3, 3), stride=(2, 1, 1)), (1, 3, 4, 5, 6), 2 * 3 * 4 * 4 * 3 * 18),
    (nn.ConvTranspose2d(5, 7, 2, stride=2), (2, 5, 4, 6), 2 * 4 * 6 * 5 * 7 * 4),
    (nn.ConvTranspose2d(6, 9, 3, groups=3), (1, 6, 4, 4), 4 * 4 * 6 * 3 * 9),
]


@pytest.mark.parametrize(("module", "shape", "expected"), CONVOLUTIONS)
def test_convolutions(module, shape, expected):
    assert count_macs(module, torch.randn(shape)).total == expected


def test_linear_counts_every_position_and_no_bias():
    report = count_macs(nn.Linear(5, 7), torch.randn(2, 3, 5))
    assert (report.total, report.params) == (2 * 3 * 5 * 7, 5 * 7 + 7)


def test_products_of_every_kind():
    a, b, square, vector = (torch.randn(s) for s in [(4, 3, 5), (4, 5, 6), (5, 5), (5,)])
    cases = {
        "bmm": (lambda: torch.bmm(a, b), 4 * 3 * 5 * 6),
        "matmul": (lambda: a @ b, 4 * 3 * 5 * 6),
        "einsum": (lambda: torch.einsum("bnc,bcm->bnm", a, b), 4 * 3 * 5 * 6),
        "baddbmm": (lambda: torch.baddbmm(torch.zeros(4, 3, 6), a, b), 4 * 3 * 5 * 6),
        "addmm_": (lambda: torch.zeros(5, 5).addmm_(square, square), 125),
        "mv": (lambda: square @ vector, 25),
        "dot": (lambda: vector @ vector, 5),
        "elementwise": (lambda: (a * a).sum().exp(), 0),
        "nothing": (lambda: torch.zeros(0, 5) @ square, 0),
    }
    for name, (run, expected) in cases.items():
        with MacsCounter() as counter:
            run()
        report = counter.report()
        assert (report.total, report.uncounted) == (expected, {}), name


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("keys", [None, 3])
@pytest.mark.parametrize("guard", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_attention(masked, keys, guard):
    b, n, c = 2, 7, 16
    module, counter = Attention(c, 4, keys=keys, masked=masked), MacsCounter()
    with guard(), counter:
        module(torch.randn(b, n, c))
    assert counter.report().total == b * (n * c * 3 * c + 2 * n * (keys or n) * c + n * c * c)
    assert counter.report().uncounted == {}


def test_values_of_another_width_than_keys():
    q, k, v = torch.randn(2, 4, 7, 8), torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 6)
    with torch.no_grad(), MacsCounter() as counter:
        F.scaled_dot_product_attention(q, k, v)
    assert counter.report().total == 2 * 4 * 7 * 5 * (8 + 6)


@pytest.mark.parametrize("batch_first", [False, True])
def test_multihead_attention_with_and_without_its_inference_path(batch_first):
    module = nn.MultiheadAttention(16, 4, batch_first=batch_first)
    x = torch.randn(2, 7, 16) if batch_first else torch.randn(7, 2, 16)
    assert count_macs(module, x, x, x).total == 2 * (4 * 7 * 16 * 16 + 2 * 7 * 7 * 16)


def test_encoder_layer_with_its_inference_path():
    layer = nn.TransformerEncoderLayer(16, 4, dim_feedforward=24, batch_first=True)
    expected = 2 * (4 * 7 * 16 * 16 + 2 * 7 * 7 * 16 + 2 * 7 * 16 * 24)
    assert count_macs(layer, torch.randn(2, 7, 16)).total == expected


def test_backward_pass_is_counted():
    q, k, v = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    with MacsCounter() as counter:
        F.scaled_dot_product_attention(q, k, v).sum().backward()
    # Forward 2 products; backward 4, and a kernel that keeps no weights forms the scores again.
    product = 2 * 5 * 5 * 4
    assert counter.report().total in (6 * product, 7 * product)
    assert counter.report().uncounted == {}


def test_torch_own_counter_agrees_where_it_can_count():
    class Convolutions(nn.Sequential):
        pass

    model = Convolutions(
        nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 2, 2), nn.Flatten(), nn.Linear(1600, 5)
    )
    x = torch.randn(2, 3, 12, 12)
    with torch.no_grad(), FlopCounterMode(display=False) as torch_counter:
        model(x)
    assert 2 * count_macs(model, x).total == torch_counter.get_total_flops()


def test_views_of_parameters_under_no_grad():
    class Queries(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries = nn.Parameter(torch.randn(5, 8))
            self.fc = nn.Linear(4, 2)

        def forward(self):
            left, _ = torch.split(self.queries, 4, dim=1)
            return self.fc(left.unsqueeze(0).expand(2, -1, -1))

    assert count_macs(Queries()).total == 2 * 5 * 4 * 2


def test_vit_as_a_whole_and_by_module():
    report = count_macs(SmallViT(), torch.randn(2, 3, 16, 16))
    expected = vit_macs(batch=2, img=16, dim=32, depth=2, patch=4)
    assert report.parts() == expected
    assert report.total == sum(expected.values()) == sum(report.by_operator.values())
    n, c = 17, 32
    assert report.by_module["blocks.1"] == expected["blocks"] // 2
    assert report.by_module["blocks.0.attn"] == 2 * (4 * n * c * c + 2 * n * n * c)
    assert report.by_module["blocks.0.mlp.2"] == 2 * n * c * 4 * c
    assert "blocks.0.norm1" not in report.by_module
    products = {key: macs for key, macs in report.detail.items() if key[0].endswith("attn")}
    assert sum(products.values()) == 2 * 2 * 2 * n * n * c
    assert sum(report.detail.values()) == report.total
    assert report.params == sum(p.numel() for p in SmallViT().parameters())


class SharedAndDirect(nn.Module):
    """One layer used twice, a part called through ``forward``, outputs that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.neck = nn.ModuleDict({"shared": nn.Linear(4, 4)})
        self.head = nn.Sequential(OrderedDict(out=nn.Linear(4, 3)))
        self.alias = self.neck["shared"]

    def forward(self, x):
        x = self.neck["shared"](self.alias(x))
        return {"scores": [self.head.forward(x)], "own": x @ x.T}


def test_reused_layers_and_direct_forward_calls():
    report = count_macs(SharedAndDirect(), torch.randn(5, 4))
    assert report.by_module == {
        "neck": 2 * 5 * 16,
        "neck.shared": 2 * 5 * 16,
        "head": 5 * 12,
        "head.out": 5 * 12,
    }
    assert report.total == 2 * 5 * 16 + 5 * 12 + 5 * 5 * 4


def test_skipped_work_is_not_counted():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x, k):
            return self.fc(x[:k])

    assert count_macs(Gated(), torch.randn(9, 4), 3).total == 3 * 16
    assert count_macs(Gated(), torch.randn(9, 4), k=0).total == 0


def test_each_block_starts_at_zero():
    model = nn.Linear(4, 4)
    counter = MacsCounter(model)
    totals = []
    for n in (1, 5, 2):
        with counter:
            model(torch.randn(n, 4))
        totals.append(counter.report().total)
    assert totals == [16, 80, 32]


def test_counters_may_be_nested():
    model = nn.Linear(4, 4)
    with MacsCounter() as outer:
        model(torch.randn(2, 4))
        with MacsCounter(model) as inner:
            model(torch.randn(3, 4))
    assert (outer.report().total, inner.report().total) == (5 * 16, 3 * 16)
    with inner, pytest.raises(RuntimeError, match="use a second one"), inner:
        pass


def test_a_thread_knows_whether_it_is_counted():
    assert not is_counting()
    with MacsCounter(), ThreadPoolExecutor() as pool:
        assert is_counting()
        with MacsCounter():
            assert is_counting()
        assert is_counting()
        assert not pool.submit(is_counting).result()
    with pytest.raises(ZeroDivisionError), MacsCounter():
        raise ZeroDivisionError
    assert not is_counting()


def test_report_before_counting():
    with pytest.raises(RuntimeError, match="nothing was counted yet"):
        MacsCounter().report()


def test_model_is_left_as_it_was():
    model = SmallViT()
    model.blocks[0].eval()
    model.head.eval()
    modes = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    count_macs(model, torch.randn(1, 3, 8, 8))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_hooks_go_also_after_an_error():
    hooks = nn.modules.module
    before = len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks)
    model = SmallViT().train()
    with pytest.raises(RuntimeError):
        count_macs(model, torch.randn(1, 5, 8, 8))
    assert model.training
    assert (len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks)) == before
    assert count_macs(model, torch.randn(1, 3, 16, 16)).total > 0


def test_own_operators_are_reported_until_they_have_a_formula():
    library = torch.library.Library("macs_test", "DEF")
    library.define("scaled(Tensor x, Tensor w) -> Tensor")
    library.impl("scaled", lambda x, w: x * w, "CompositeExplicitAutograd")
    run = torch.ops.macs_test.scaled

    class Own(nn.Module):
        def forward(self, x):
            return run(run(x, x), x)

    report = count_macs(Own(), torch.randn(3, 4))
    assert (report.total, report.uncounted) == (0, {"macs_test.scaled": 2})

    @register_macs_formula(run)
    def _(x_shape, w_shape, out_shape=None):
        return x_shape[0] * w_shape[1]

    report = count_macs(Own(), torch.randn(3, 4))
    assert (report.total, report.uncounted) == (2 * 12, {})
    assert report.by_operator == {"macs_test.scaled": 2 * 12}


def test_formula_for_something_that_is_no_operator():
    with pytest.raises(TypeError, match=r"is a str; give the operator as torch\.ops"):
        register_macs_formula("aten::mm")


def test_autocast_counts_the_same():
    model, x = SmallViT(), torch.randn(1, 3, 16, 16)
    plain = count_macs(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert count_macs(model, x).by_module == plain.by_module
