"""Each kernel beside a naive reference in double precision, by every instruction set that can run.

The references follow the definitions word by word: a loop or one product over all pairs, nothing in
blocks, no running maximum. Shapes are the smallest, the largest and those that fill no vector, and
some drawn with a seed.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import random

import pytest
import torch
from torch.nn import functional as F

from mmvitaccel.core.kernels import maps
from mmvitaccel.core.kernels.attend import attend, attend_merged, attend_windows
from mmvitaccel.core.kernels.errors import normed_errors, output_errors
from mmvitaccel.core.kernels.exchange import exchange_keys
from mmvitaccel.core.kernels.merge import match_tokens, merge_tokens
from mmvitaccel.core.kernels.roi_align import roi_align

pytestmark = pytest.mark.usefixtures("instructions")

SCALE, NAN, INF = 0.3, float("nan"), float("inf")
draw = random.Random(0)
DIMS = range(16, 129, 16)
# A result that was rounded at the end: half a unit in the last place of 8 bits.
ROUNDED = {torch.float32: {}, torch.bfloat16: dict(rtol=2**-8, atol=1e-5)}


def close(found, expected, **kwargs):
    """Alike to single precision; what is not a number stands in the same places."""
    kwargs = dict(rtol=1e-5, atol=1e-5) | kwargs
    torch.testing.assert_close(found.double(), expected.double(), equal_nan=True, **kwargs)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# attention: (batch, heads, rows, grid of the queries, grid of the keys, dim)
ATTENDED = [
    (1, 1, 0, (4, 4), (4, 4), 16),
    (1, 1, 1, (1, 1), (1, 1), 16),
    (2, 3, 35, (5, 7), (1, 1), 128),
    (1, 2, 17, (40, 30), (40, 30), 96),
    (1, 1, 257, (1, 600), (1, 600), 80),
    (3, 1, 9, (3, 3), (130, 1), 112),
    *(
        (
            draw.randint(1, 3), draw.randint(1, 3), draw.randint(1, 40),
            (draw.randint(7, 12), draw.randint(6, 9)),
            (draw.randint(1, 12), draw.randint(1, 35)), draw.choice(DIMS),
        )
        for _ in range(4)
    ),
]  # fmt: skip


def naive_logits(q, k, rows_h=None, rows_w=None, place=None):
    """scale q k + q R_h[y, y'] + q R_w[x, x'], of (heads, rows, D) and (heads, keys, D)."""
    q, k = q.double(), k.double()
    logits = SCALE * q @ k.transpose(1, 2)
    for j in range(k.shape[1] if rows_h is not None else 0):
        y, x = place // len(rows_w), place % len(rows_w)
        table = rows_h[y, j // rows_w.shape[1]] + rows_w[x, j % rows_w.shape[1]]
        logits[:, :, j] += (q * table.double()).sum(-1)
    return logits


def tables_of(grid, key_grid, dim):
    return [0.3 * torch.randn(grid[axis], key_grid[axis], dim) for axis in (0, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("case", ATTENDED)
def test_attend(case, positions, dtype):
    batch, heads, num_rows, grid, key_grid, dim = case
    q = torch.randn(batch, num_rows, heads, dim).transpose(1, 2).to(dtype)
    k, v = torch.randn(2, batch, key_grid[0] * key_grid[1], heads, dim).transpose(2, 3).to(dtype)
    place = torch.stack([torch.randperm(grid[0] * grid[1])[:num_rows] for _ in range(batch)])
    tables = tables_of(grid, key_grid, dim) if positions else [None, None]
    out, lse = attend(q, k, v, SCALE, *tables, place, torch.float32)
    for b in range(batch):
        logits = naive_logits(q[b], k[b], *tables, place[b])
        close(out[b], logits.softmax(-1) @ v[b].double())
        close(lse[b], logits.logsumexp(-1))
    own = attend(q, k, v, SCALE, *tables, place)[0]  # rounded once, at the end
    assert own.dtype == dtype and torch.equal(own, out.to(dtype))


@pytest.mark.parametrize("value", [NAN, INF, 1e4, -1e4])
def test_attend_to_numbers_of_any_size(value):
    q, k, v = torch.randn(3, 1, 1, 40, 32)
    q[0, 0, 3] *= value
    out, lse = attend(q, k, v, SCALE, None, None, None)
    logits = naive_logits(q[0], k[0])
    close(out[0], logits.softmax(-1) @ v[0].double(), rtol=1e-4)
    close(lse[0], logits.logsumexp(-1), rtol=1e-4)
    k[0, 0, 5, 0] = NAN  # every row reads it
    assert attend(q, k, v, SCALE, None, None, None)[0].isnan().all()


@pytest.mark.parametrize("dtypes", [(torch.float32,) * 2, (torch.bfloat16, torch.float32)])
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize(
    ("windows", "side", "dim"),
    [(1, (1, 1), 16), (3, (3, 5), 48), (2, (14, 14), 64), (1, (24, 24), 16)],
)
def test_attend_windows(windows, side, dim, positions, dtypes):
    batch, heads, size = 2, 2, side[0] * side[1]
    tokens = -(-windows * size // batch)
    qkv = torch.randn(batch, tokens + 1, 3, heads, dim).to(dtypes[0])
    slots = torch.arange(batch * (tokens + 1))
    slots = slots[slots % (tokens + 1) != tokens]
    slots = slots[torch.randperm(len(slots))][: windows * size].view(windows, size).clone()
    slots[:, size // 2 + 1 :] = tokens  # padding of the first image
    out = torch.full((batch, tokens + 1, heads * dim), 7.0, dtype=dtypes[1])
    tables = tables_of(side, side, dim) if positions else [None, None]
    attend_windows(qkv, slots, out, SCALE, *tables)
    expected = torch.full_like(out, 7.0).double().flatten(0, 1)
    for of_window in slots:
        q, k, v = qkv.flatten(0, 1)[of_window].permute(1, 2, 0, 3)  # 3 x (heads, T, D)
        made = naive_logits(q, k, *tables, torch.arange(size)).softmax(-1) @ v.double()
        real = of_window != tokens
        expected[of_window[real]] = made.transpose(0, 1).flatten(1)[real]
    close(out.flatten(0, 1), expected)
    own = out.bfloat16()
    attend_windows(qkv, slots, own, SCALE, *tables)
    assert torch.equal(own, out.bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("num_keys", "grid", "dim"),
    [(1, (1, 1), 16), (1, (3, 5), 32), (24, (6, 8), 48), (599, (20, 30), 16)],
)
def test_attend_merged(num_keys, grid, dim, bias, dtype):
    heads, tokens = 2, grid[0] * grid[1]
    q, k, v = torch.randn(3, 1, heads, num_keys, dim).to(dtype)
    terms = torch.randn(1, heads, num_keys, sum(grid))
    owner = torch.cat([torch.arange(num_keys), torch.randint(num_keys, (tokens - num_keys,))])
    owner, order = owner[torch.randperm(tokens)].sort()
    places = torch.stack([order // grid[1], grid[0] + order % grid[1]], -1).int()
    starts = F.pad(owner.bincount(minlength=num_keys).cumsum(0), (1, 0)).int()
    of_keys = torch.randn(1, num_keys) if bias else None
    out = attend_merged(q, k, v, SCALE, terms, places[None], starts[None], of_keys)
    logits = naive_logits(q[0], k[0])
    for key in range(num_keys):
        y, x = places[owner == key].long().unbind(-1)
        logits[:, :, key] += (terms[0][..., y] + terms[0][..., x]).double().mean(-1)
    logits = logits + (of_keys.double() if bias else 0.0)
    assert out.dtype == dtype
    close(out[0], logits.softmax(-1) @ v[0].double(), **ROUNDED[dtype])


MATCHED = [  # (batch, heads, tokens, dim, protected ones, merged ones)
    (1, 1, 2, 16, 0, 1),
    (1, 1, 3, 128, 1, 1),
    (2, 3, 37, 48, 5, 16),
    (1, 12, 300, 64, 2, 40),
    (3, 1, 66, 16, 1, 1),
    *(
        (draw.randint(1, 3), draw.randint(1, 4), 30, draw.choice(DIMS), p, draw.randint(1, 11))
        for p in (0, 3, 6, 7)
    ),
]


def naive_match(x, num_merged, num_prefix, normalized):
    """Of one image (heads, N, D): the tokens that stay, and (which, to which) of those that go."""
    x = x.double().mean(0)
    x = x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12) if normalized else x
    in_a, in_b = ([t for t in range(num_prefix, len(x)) if t % 2 == parity] for parity in (0, 1))
    edges = []
    for a in in_a:
        likeness = [float(x[a] @ x[b]) for b in in_b]
        # what is no number is above all
        ranks = [(value != value, value if value == value else 0.0) for value in likeness]
        edges.append((max(ranks), a, in_b[ranks.index(max(ranks))]))
    edges.sort(key=lambda edge: edge[0], reverse=True)  # equal ones stay in order
    going = [(a, b) for _, a, b in edges[:num_merged]]
    gone = {a for a, _ in going}
    kept = [*range(num_prefix), *(a for a in in_a if a not in gone), *in_b]
    return kept, going


def check_match(x, num_merged, num_prefix, normalized):
    found = match_tokens(x, num_merged, num_prefix, normalized)
    for image, kept, src, dst, owner in zip(x, *(t.tolist() for t in found)):
        expected, going = naive_match(image, num_merged, num_prefix, normalized)
        assert kept == expected
        assert [(a, kept[at]) for a, at in zip(src, dst)] == going
        goes = dict(going)
        assert [kept[at] for at in owner] == [goes.get(t, t) for t in range(image.shape[1])]


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("case", MATCHED)
def test_match_tokens(case, normalized):
    batch, heads, tokens, dim, prefix, merged = case
    qkv = torch.randn(batch, tokens, 3, heads, dim)  # keys as a layer gives them
    check_match(qkv[:, :, 1].transpose(1, 2), merged, prefix, normalized)


def test_match_of_equal_tokens_of_zeros_and_of_what_is_no_number():
    x = torch.randint(-1, 2, (2, 1, 41, 16)).float()
    x[..., 2:] = 0.0  # nine different vectors, so that most edges are equal
    check_match(x, 13, 2, False)
    x[0, 0, 7, 3] = x[1, 0, 12, 0] = NAN
    check_match(x, 13, 2, False)
    check_match(torch.zeros(1, 1, 9, 16), 3, 1, True)


@pytest.mark.parametrize(
    ("batch", "tokens", "channels", "merged"),
    [(1, 2, 1, 1), (2, 37, 7, 16), (1, 131, 200, 60), (3, 40, 64, 1)],
)
def test_merge_tokens(batch, tokens, channels, merged):
    x, size = torch.randn(batch, tokens, channels), torch.randint(1, 9, (batch, tokens, 1)).float()
    x[0, 0, 0] = NAN
    left = tokens - merged
    places = torch.stack([torch.randperm(tokens) for _ in range(batch)])
    kept, src = places[:, :left].contiguous(), places[:, left:].contiguous()
    dst = torch.randint(left, (batch, merged)) // 3  # several into one
    out, out_size = merge_tokens(x, size, kept, src, dst)
    for b in range(batch):
        for token in range(left):
            parts = [int(kept[b, token]), *src[b, dst[b] == token].tolist()]
            weight = size[b, parts].double()
            assert out_size[b, token, 0] == weight.sum()
            close(out[b, token], (x[b, parts] * weight).sum(0) / weight.sum())


EXCHANGED = [  # (rows of the grid, columns, grid of the keys, dim, changed keys, listed rows)
    (1, 1, (1, 1), 16, 1, 1),
    (4, 4, (4, 4), 128, 5, 0),
    (4, 4, (4, 4), 32, 0, 9),
    (5, 70, (5, 70), 32, 33, 317),
    (3, 200, (3, 200), 48, 140, 300),
    *(
        (9, 9, (5, 6), draw.choice(DIMS), draw.randint(1, 30), draw.randint(1, 81))
        for _ in range(3)
    ),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("case", EXCHANGED)
def test_exchange_keys(case, positions, dtype):
    height, width, key_grid, dim, num_keys, num_rows = case
    heads, tokens = 2, height * width
    q = (torch.randn(heads, tokens, dim) / dim**0.5).to(dtype)
    old_k, new_k, old_v, new_v = torch.randn(4, heads, num_keys, dim).to(dtype)
    shift, denominator = torch.randn(2, heads, tokens)
    numerator = torch.randn(heads, tokens, dim)
    rows = torch.randperm(tokens)[:num_rows]
    place = torch.randperm(key_grid[0] * key_grid[1])[:num_keys]
    tables = tables_of((height, width), key_grid, dim) if positions else [None, None]
    below, above = denominator.double(), numerator.double()
    sizes = [below.abs(), above.abs()]  # what rounding is relative to
    for sign, k, v in ((-1, old_k, old_v), (1, new_k, new_v)):
        logits = SCALE * q.double() @ k.double().transpose(1, 2)
        for at, j in enumerate(place if positions else ()):
            y, x = torch.arange(tokens) // width, torch.arange(tokens) % width
            table = tables[0][y, j // key_grid[1]] + tables[1][x, j % key_grid[1]]
            logits[:, :, at] += (q.double() * table.double()).sum(-1)
        weights = (logits - shift.double()[..., None]).exp()[:, rows]
        below[:, rows] += sign * weights.sum(-1)
        above[:, rows] += sign * weights @ v.double()
        sizes[0][:, rows] += weights.sum(-1)
        sizes[1][:, rows] += weights @ v.double().abs()
    exchange_keys(
        q, shift, denominator, numerator, rows, old_k, new_k, old_v, new_v, SCALE, *tables,
        place if positions else None,
    )  # fmt: skip
    for found, expected, size in zip((denominator, numerator), (below, above), sizes):
        assert float(((found - expected).abs() / size).max()) < 3e-6


def test_exchange_of_weights_from_nothing_to_infinity():
    logits = torch.tensor([-1e4, -104.0, -86.0, -1.0, 0.0, 50.0, 88.0, 89.0, 1e4, NAN])
    q, k = torch.zeros(1, len(logits), 16), torch.zeros(1, 1, 16)
    q[0, :, 0], k[0, 0, 0] = logits, 1.0
    shift, below, above = (
        torch.zeros(1, len(logits)),
        torch.zeros(1, len(logits)),
        torch.zeros_like(q),
    )
    nothing = torch.zeros(1, 0, 16)
    given = (torch.arange(len(logits)), nothing, k[:, :0], nothing, k[:, :0])
    exchange_keys(q, shift, below, above, *given, 1.0, None, None, None)
    assert not below.any() and not above.any()
    old = torch.zeros_like(k)  # weighs one
    exchange_keys(
        q, shift, below, above, given[0], old, k, torch.zeros_like(k), torch.zeros_like(k), 1.0,
        None, None, None,
    )  # fmt: skip
    weights = logits.double().exp()
    weights[weights < 1e-37] = 0.0  # below what single precision holds in full
    weights[logits >= 88.7] = INF
    close(below[0], weights - 1.0, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("branch", [False, True])
@pytest.mark.parametrize("norm", ["none", "plain", "weight", "both"])
@pytest.mark.parametrize(
    "shape",
    [(1, 0, 16), (1, 1, 1), (2, 33, 7), (1, 5, 63), (1, 40, 129), (3, 33, 200), (1, 7, 768)],
)
def test_normed_errors(shape, norm, branch):
    reference, x, added = torch.randn(3, *shape)
    x = x + 3.0
    weight = torch.randn(shape[2]) if norm in ("weight", "both") else None
    bias = torch.randn(shape[2]) if norm == "both" else None
    eps = None if norm == "none" else 1e-3
    errors, total = normed_errors(reference, x, added if branch else None, eps, weight, bias)
    expected = x + added if branch else x
    assert torch.equal(total, expected) if branch else total.numel() == 0
    y = expected.double()
    if eps is not None:
        y = y - y.mean(-1, keepdim=True)
        y = y / (y.square().mean(-1, keepdim=True) + eps).sqrt()
        y = y * (1.0 if weight is None else weight) + (0.0 if bias is None else bias)
    close(errors, (reference - y).square().sum(-1).sqrt(), atol=1e-4)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("branch", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("x", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reference", [torch.float32, torch.bfloat16])
def test_normed_errors_of_half_precision(reference, x, branch, norm):
    shape, channels = (1, 37, 200), 200
    x = (torch.randn(shape) + 3.0).to(x)
    added = None if branch is None else torch.randn(shape).to(branch)
    weight, bias = torch.randn(2, channels).bfloat16() if norm else (None, None)
    tokens = x if added is None else x + added
    y = tokens.double()
    if norm:
        y = F.layer_norm(y, (channels,), weight.double(), bias.double(), 1e-3)
    kept = y.to(reference)
    kept[:, 1::2] += torch.randn(1, 18, channels).to(reference)
    errors, total = normed_errors(kept, x, added, 1e-3 if norm else None, weight, bias)
    assert added is None or (total.dtype == tokens.dtype and torch.equal(total, tokens))
    expected = (kept.double() - y.to(reference).double()).norm(dim=-1)
    # a number that lies between two of half precision is rounded either way
    atol = 1e-3 if reference == torch.float32 or not norm else 0.1
    close(errors, expected, atol=atol, rtol=1e-3)
    if not norm:
        assert not errors[:, ::2].any()  # as it is kept, nothing changed


@pytest.mark.parametrize("out", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reference", [torch.float32, torch.bfloat16])
def test_output_errors_of_half_precision(reference, out):
    heads, rows, dim = 3, 19, 40
    out = torch.randn(rows, heads, dim).transpose(0, 1).to(out)
    kept = out.transpose(0, 1).flatten(1).to(reference)
    kept[1::2] += torch.randn(9, heads * dim).to(reference)
    errors = torch.full((rows,), 7.0)
    output_errors(errors, kept, out, None, None, None)
    expected = kept.double() - out.transpose(0, 1).flatten(1).to(reference).double()
    close(errors, expected.norm(dim=-1))
    assert not errors[::2].any()


@pytest.mark.parametrize("value", [NAN, INF, -INF, 3.3e38, 0.0, -0.0, 1e-40])
def test_half_precision_is_rounded_as_torch_does(value):
    """Outputs that are one value each: what ends a kernel in half precision."""
    values = torch.tensor([1.00390625, 1.01171875, -1.00390625, value, 3.3895e38, 1.0])
    v = values.view(1, 1, 1, -1).repeat(1, 1, 1, 8)  # one key: the output is its value
    q = k = torch.zeros(1, 1, 1, 48)
    out = attend(q, k, v, SCALE, None, None, None, torch.bfloat16)[0]
    single = attend(q, k, v, SCALE, None, None, None)[0]
    close(out, single.bfloat16())


@pytest.mark.parametrize("value", [NAN, INF])
def test_errors_of_what_is_no_number(value):
    reference, x = torch.randn(2, 1, 4, 70)
    x[0, 2, 69] = value
    errors, _ = normed_errors(reference, x, None, None, None, None)
    close(errors, (reference - x).double().norm(dim=-1))
    errors, _ = normed_errors(reference, x, None, 1e-3, None, None)
    assert errors[0].isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize(
    ("heads", "rows", "dim"), [(1, 0, 16), (1, 1, 1), (2, 50, 16), (3, 9, 20), (12, 65, 64)]
)
def test_output_errors(heads, rows, dim, divided, listed):
    reference = torch.randn(rows, heads * dim)
    out = torch.randn(rows, heads, dim).transpose(0, 1)
    below = torch.rand(heads, rows) + 0.5 if divided else None
    errors, expected = torch.full((rows,), 7.0), torch.full((rows,), 7.0, dtype=torch.float64)
    to, of = (torch.randperm(rows)[: rows // 2 + 1] for _ in range(2)) if listed else (None, None)
    output_errors(errors, reference, out, below, to, of)
    everything = range(rows)
    for i, j in zip(everything if to is None else to, everything if of is None else of):
        y = out[:, j].double() / (below[:, j, None].double() if divided else 1.0)
        expected[i] = (reference[i] - y.flatten()).norm()
    close(errors, expected)


ACTS = {maps.NONE: lambda x: x, maps.RELU: torch.relu, maps.SIGMOID: torch.sigmoid}
PIXELS = [(1, 1, 1), (2, 3, 5), (1, 17, 9)]  # images, rows, columns


def run(*steps):
    """Steps whose fields are numbers or tensors."""
    pointed = [
        {name: t.data_ptr() if torch.is_tensor(t) else t for name, t in step.items()}
        for step in steps
    ]
    array = (maps.Step * len(steps))(*(maps.Step(**step) for step in pointed))
    kept = [t for step in steps for t in step.values() if torch.is_tensor(t)]
    maps.run_steps(kept, ctypes.addressof(array), len(array), 0)


def step_of(x, size, out, **fields):
    """A step over a map (pixels, channels)."""
    given = dict(zip(("images", "height", "width"), size)) | dict(
        in_channels=x.shape[-1], in_=x, in_step=x.stride(0), out=out, out_channels=out.shape[-1],
        out_step=out.stride(0), kernel=1, stride=1, act=maps.NONE,
    )  # fmt: skip
    return given | fields


def image_of(x, size):
    """(pixels, C) to (images, C, rows, columns), in double precision."""
    return x.double().view(*size, -1).permute(0, 3, 1, 2)


def pixels_of(image):
    return image.permute(0, 2, 3, 1).flatten(0, 2)


def naive_sample(image, y, x):
    """Bilinear, (C, H, W) at a point in double precision; zero more than a pixel outside."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(len(image), dtype=torch.float64)
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = (1 - across) * image[:, top, left] + across * image[:, top, right]
    lower = (1 - across) * image[:, bottom, left] + across * image[:, bottom, right]
    return (1 - down) * upper + down * lower


def naive_align(maps, rois, height, width, scale, samples, aligned):
    """The mean of the samples of each bin."""
    found = torch.zeros(len(rois), maps.shape[1], height, width, dtype=torch.float64)
    shift = 0.5 if aligned else 0.0
    for roi, out in zip(rois.tolist(), found):
        image = maps[int(roi[0])].double()
        left, top, right, bottom = (at * scale - shift for at in roi[1:])
        tall, wide = bottom - top, right - left
        if not aligned:
            tall, wide = max(tall, 1.0), max(wide, 1.0)
        if not (math.isfinite(tall) and math.isfinite(wide)):
            continue
        down = samples or max(math.ceil(tall / height), 0)
        across = samples or max(math.ceil(wide / width), 0)
        for i, j in itertools.product(range(height), range(width)):
            for s, t in itertools.product(range(down), range(across)):
                y = top + tall / height * (i + (s + 0.5) / down)
                x = left + wide / width * (j + (t + 0.5) / across)
                out[:, i, j] += naive_sample(image, y, x) / (down * across)
    return found


BOXES = [
    (0, 3.3, 4.4, 30.3, 32.2), (1, -9.7, -5.1, 14.6, 11.9), (0, 0.3, 0.3, 0.3, 0.3),
    (1, 20.1, 30.2, 10.3, 12.4), (0, -20.1, -20.2, 60.3, 60.4), (1, 300.1, 10.2, 330.2, 20.3),
    (0, NAN, 1.0, 9.0, 9.0), (0, 1.0, 1.0, INF, 9.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "bins", "samples", "aligned", "padded"),
    [
        ((1, 1), (1, 1), 0, True, False),
        ((13, 9), (7, 7), 0, True, True),
        ((13, 9), (7, 7), 2, False, False),
        ((2, 20), (3, 14), 0, False, True),
        ((2, 20), (2, 1), 1, True, True),
    ],
)
def test_roi_align(size, bins, samples, aligned, padded):
    x = torch.randn(2, *size, 48)
    if padded:  # as a pyramid remembers its maps
        x = F.pad(x, (0, 0, 1, 1, 1, 1))[:, 1:-1, 1:-1]
    x, rois = x.permute(0, 3, 1, 2), torch.tensor(BOXES)
    found = roi_align(x, rois, *bins, 0.25, samples, aligned)
    close(found, naive_align(x, rois, *bins, 0.25, samples, aligned), atol=3e-5)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("size", PIXELS)
@pytest.mark.parametrize(
    ("channels", "outs", "kernel", "stride"),
    [(1, 1, 1, 1), (37, 70, 1, 1), (450, 33, 1, 1), (5, 32, 3, 2), (60, 19, 3, 1), (1552, 8, 1, 1)],
)
def test_products(channels, outs, kernel, stride, size, act):
    x = torch.randn(size[0] * size[1] * size[2], channels)
    weight, bias = torch.randn(outs, channels, kernel, kernel) / channels, torch.randn(outs)
    scale = torch.rand(size[0], channels) if kernel == 1 else None
    image = image_of(x, size) * (1.0 if scale is None else scale[..., None, None])
    expected = F.conv2d(image, weight.double(), bias.double(), stride, kernel // 2)
    residual = torch.randn(len(pixels_of(expected)), outs)
    out = torch.full((len(residual), outs + 3), 7.0)  # of a wider map
    wide = F.pad(residual, (0, 3))  # the residual lies as the output
    panels = maps.pack(weight.permute(0, 2, 3, 1).flatten(1), bias)
    run(step_of(
        x, size, out[:, :outs], kind=maps.PRODUCT, kernel=kernel, stride=stride, act=act,
        weight=panels[0], bias=panels[1], residual=wide, scale=scale,
    ))  # fmt: skip
    close(out[:, :outs], ACTS[act](pixels_of(expected) + residual))
    assert (out[:, outs:] == 7.0).all()


@pytest.mark.parametrize("size", [*PIXELS, (2, 40, 41)])
def test_two_products_together(size):
    x = torch.randn(size[0] * size[1] * size[2], 40)
    weights = torch.randn(90, 40) / 6, torch.randn(50, 90) / 9
    biases = torch.randn(90), torch.randn(50)
    between, out = torch.empty(len(x), 90), torch.empty(len(x), 50)
    packed = [maps.pack(*pair) for pair in zip(weights, biases)]
    first = step_of(x, size, between, kind=maps.PRODUCT, act=maps.RELU, joined=1)
    second = step_of(between, size, out, kind=maps.PRODUCT)
    run(*(s | dict(weight=w, bias=b) for s, (w, b) in zip((first, second), packed)))
    hidden = (x.double() @ weights[0].double().T + biases[0]).relu()
    close(out, hidden @ weights[1].double().T + biases[1])


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 7, 33), (1, 64, 30)])
@pytest.mark.parametrize(("channels", "outs"), [(1, 1), (3, 40), (4, 16)])
def test_planes(channels, outs, size):
    image = torch.randn(size[0], channels, *size[1:])
    weight, bias = torch.randn(outs, channels, 3, 3), torch.randn(outs)
    expected = F.conv2d(image.double(), weight.double(), bias.double(), 2, 1).relu()
    out = torch.empty(len(pixels_of(expected)), outs)
    packed = maps.pack(weight.flatten(1), bias)
    run(step_of(
        image, size, out, kind=maps.PLANES, in_channels=channels, in_step=1, kernel=3, stride=2,
        act=maps.RELU, weight=packed[0], bias=packed[1],
    ))  # fmt: skip
    close(out, pixels_of(expected))


@pytest.mark.parametrize("size", PIXELS)
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_and_means(size, stride):
    channels = 3 * maps.lanes()
    x = torch.randn(size[0] * size[1] * size[2], channels)
    weight, bias = torch.randn(9, channels), torch.randn(channels)
    expected = F.conv2d(
        image_of(x, size), weight.double().T.reshape(-1, 1, 3, 3), bias.double(), stride, 1, 1,
        channels,
    )  # fmt: skip
    out, means = torch.empty(len(pixels_of(expected)), channels), torch.empty(size[0], channels)
    run(
        step_of(
            x, size, out, kind=maps.DEPTHWISE, kernel=3, stride=stride, weight=weight, bias=bias
        ),
        step_of(x, size, means, kind=maps.MEANS),
    )
    close(out, pixels_of(expected))
    close(means, image_of(x, size).mean((2, 3)))


def in_windows(x, size, windows):
    """(images, C, rows, columns) to (windows, pixels, C), filled up with zeros."""
    tall, wide = windows.down * windows.height, windows.across * windows.width
    x = F.pad(image_of(x, size), (0, wide - size[2], 0, tall - size[1]))
    x = x.unflatten(3, (windows.across, -1)).unflatten(2, (windows.down, -1))
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)


@pytest.mark.parametrize(
    ("size", "windows"),
    [((1, 1, 1), (1, 1, 1, 1)), ((2, 5, 9), (4, 4, 2, 3)), ((1, 7, 7), (7, 7, 1, 1))],
)
def test_attention_in_windows(size, windows):
    """A product into windows, onto it what came before, then attention and its rectified map."""
    lanes, keys = maps.lanes(), 16
    windows, values = maps.Windows(*windows), 2 * lanes
    pixels = size[0] * windows.down * windows.across * windows.tokens
    x, previous = torch.randn(size[0] * size[1] * size[2], 24), torch.randn(pixels, 24)
    project, zeros = torch.randn(2 * keys + values, 24) / 5, torch.zeros(2 * keys + values)
    packed = maps.pack(project, zeros)
    weight, bias = torch.randn(25, keys) / 5, torch.randn(keys)
    table = torch.randn(windows.tokens, windows.tokens)
    filled = F.pad(table, (0, -windows.tokens % lanes), value=-INF).contiguous()
    qkv, out = torch.empty(pixels, 2 * keys + values), torch.empty(pixels, values)
    rectified = torch.empty(len(x), values)
    run(
        step_of(x, size, qkv, kind=maps.PRODUCT, windows=windows, previous=previous,
                weight=packed[0], bias=packed[1]),
        step_of(x, size, out, kind=maps.ATTENTION, in_=qkv, in_step=qkv.shape[1], windows=windows,
                kernel=5, weight=weight, bias=bias, key_channels=keys, rectified=rectified,
                rectified_step=values, attention_bias=filled),
    )  # fmt: skip
    given = in_windows(x, size, windows) + previous.double().view(-1, windows.tokens, 24)
    made = given @ project.double().T
    close(qkv.view_as(made), made)
    q, k, v = made.split((keys, keys, values), -1)
    q = q.unflatten(1, (windows.height, windows.width)).permute(0, 3, 1, 2)
    q = F.conv2d(q, weight.double().T.reshape(-1, 1, 5, 5), bias.double(), 1, 2, 1, keys)
    logits = q.flatten(2).transpose(1, 2) @ k.transpose(1, 2) + table.double()
    expected = logits.softmax(-1) @ v
    close(out.view_as(expected), expected)
    places = in_windows(torch.arange(1, len(x) + 1)[:, None], size, windows)[..., 0].long()
    found = torch.zeros(len(x) + 1, values, dtype=torch.float64)
    found[places] = expected.relu()
    close(rectified, found[1:])
