"""Budget on real models, with a clock that the test turns."""

from __future__ import annotations

import copy
import gc
import warnings

import pytest
import torch

from mmvitaccel import (
    Budget,
    LastObjects,
    Threshold,
    TopK,
    Weighted,
    apply_eventful,
    apply_tome,
)
from mmvitaccel.adapters.steering import claim
from mmvitaccel.budget.target import Target
from mmvitaccel.core.macs.counter import MacsCounter, count_macs
from mmvitaccel.testing.models import timm_model, vitdet
from tests.adapters.eventful.test_vivit import clips, make

SMALL = dict(
    img_size=128, embed_dim=32, depth=3, num_heads=2, window_size=4, window_block_indexes=(0, 2)
)
TOKENS = 64


class FakeClock:
    """Each reading is later than the one before by fixed + per_token * k, a frame's seconds."""

    def __init__(self, policy, fixed=0.1, per_token=0.01):
        self.policy, self.fixed, self.per_token = policy, fixed, per_token
        self.now = 0.0

    def __call__(self):
        self.now += self.fixed + self.per_token * self.policy.k
        return self.now


@pytest.fixture
def eventful():
    torch.manual_seed(0)
    model = vitdet(**SMALL).eval()
    handle = apply_eventful(model, TopK(32))
    return model, handle


def play(budget, model, frames, shape=(1, 3, 128, 128)):
    """Run noise; returns the records."""
    made = []
    for _ in range(frames):
        with torch.no_grad(), budget.frame() as record:
            model(torch.randn(shape))
        made.append(record)
    return made


def test_milliseconds_are_held_and_reported(eventful):
    model, handle = eventful
    budget = Budget(handle, milliseconds=400, k=(4, TOKENS), clock=FakeClock(handle.policy))
    records = play(budget, model, 20)
    assert records[0].whole and not any(record.whole for record in records[1:])
    assert all(376 <= record.milliseconds < 401 for record in records[10:])
    assert all(record.k == handle.frames[0].passed[0][0] for record in records[-1:])
    budget.set_target(milliseconds=200)
    assert all(188 <= record.milliseconds < 201 for record in play(budget, model, 20)[10:])
    report = budget.report()
    assert report.frames == 40 and report.k == budget.k and report.missed is None
    assert report.p90 >= report.median
    reasons = [choice.reason for choice in budget.choices]
    assert reasons[0] == "target 400 ms a frame" and "target 200 ms a frame" in reasons
    assert str(report).startswith(f"target 200 ms a frame, k={budget.k}, median ")


@pytest.mark.parametrize(
    ("target", "given"), [("40ms", {}), (40, {}), (Target("fps", 2.0), dict(milliseconds=40))]
)
def test_a_target_that_is_none_changes_nothing(eventful, target, given):
    _, handle = eventful
    budget = Budget(handle, share=0.5, k=(4, TOKENS))
    with pytest.raises(ValueError, match="a Target alone; or give one of milliseconds"):
        budget.set_target(target, **given)
    assert budget.target == Target("share", 0.5)


def test_refreshed_frames_count_as_whole(eventful):
    model, handle = eventful
    budget = Budget(handle, milliseconds=400, k=(4, TOKENS), clock=FakeClock(handle.policy))
    play(budget, model, 15)
    before = budget.k
    handle.refresh()
    record = play(budget, model, 1)[0]
    assert record.whole and not handle.frames[0].first
    play(budget, model, 2)
    assert budget.k == before


def test_k_of_a_weighted_policy(eventful):
    model, handle = eventful
    base = TopK(32)
    handle.policy = Weighted(base, [LastObjects()])
    budget = Budget(handle, milliseconds=400, k=(4, TOKENS), clock=FakeClock(base))
    records = play(budget, model, 20)
    assert all(376 <= record.milliseconds < 401 for record in records[10:])
    assert base.k == budget.k != 32


def test_k_above_the_number_of_tokens_is_not_set(eventful):
    model, handle = eventful
    handle.policy.k = 32
    budget = Budget(handle, milliseconds=10**6, k=(4, 999), clock=FakeClock(handle.policy))
    handle.policy.k = 500
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        records = play(budget, model, 20)
    assert records[-1].k == budget.k == TOKENS


def test_frames_a_second(eventful):
    model, handle = eventful
    budget = Budget(handle, fps=2.5, k=(4, TOKENS), clock=FakeClock(handle.policy))
    assert all(376 <= record.milliseconds < 401 for record in play(budget, model, 20)[10:])


def test_batch_is_divided_by_its_images(eventful):
    model, handle = eventful
    budget = Budget(handle, milliseconds=200, k=(4, TOKENS), clock=FakeClock(handle.policy))
    for _ in range(20):
        with torch.no_grad(), handle.stream(["a", "b"]), budget.frame() as record:
            model(torch.randn(2, 3, 128, 128))
            record.images = 2
    assert 188 <= record.milliseconds <= 200
    assert 2 * 188 <= 100 + 10 * record.k <= 2 * 200


def test_predicted_multiply_adds_are_those_that_run(eventful):
    model, handle = eventful
    dense = handle.model
    handle.remove()
    total = count_macs(model, torch.randn(1, 3, 128, 128)).total
    handle = apply_eventful(dense, TopK(32))
    budget = Budget(handle, share=0.6, k=(1, TOKENS))
    records = play(budget, model, 15)
    assert records[0].macs == total
    assert all(0.56 * total <= record.macs <= 0.6 * total for record in records[8:])
    with torch.no_grad(), MacsCounter() as counter:
        model(torch.randn(1, 3, 128, 128))
    assert counter.report().total == records[-1].macs
    counted = [record.k for record in records[1:] if record.milliseconds is None]
    assert len(counted) == len(set(counted)) and len(counted) < 5


def test_share_of_clips_of_which_each_is_a_stream():
    model, x = make(), clips(1)
    total = count_macs(model, x).total
    handle = apply_eventful(model, TopK(5), "exact")
    budget = Budget(handle, share=0.6, k=(1, 17))
    for _ in range(12):
        with torch.no_grad(), budget.frame() as record:
            model(x)
    assert 0.5 * total <= record.macs <= 0.6 * total
    assert not record.whole


def test_r_of_tome():
    model = timm_model("vit_tiny_patch16_224", img_size=96).eval()
    total = count_macs(model, torch.randn(1, 3, 96, 96)).total
    handle = apply_tome(model, 1)
    budget = Budget(handle, share=0.8, r=(0, 3))
    records = play(budget, model, 10, (1, 3, 96, 96))
    assert (records[0].r, records[0].macs) == (0, total)
    assert records[-1].macs <= 0.8 * total
    assert records[-1].r == handle.r == budget.r > 0
    handle.r = budget.r - 1
    assert count_macs(model, torch.randn(1, 3, 96, 96)).total > 0.8 * total
    budget.remove()
    assert handle.r == 1


def test_r_by_time():
    model = timm_model("vit_tiny_patch16_224", img_size=96).eval()
    handle = apply_tome(model, 0)

    class Clock(FakeClock):
        def __call__(self):
            self.now += 0.1 - 0.005 * handle.r
            return self.now

    budget = Budget(handle, milliseconds=80, r=(0, 8), clock=Clock(None))
    records = play(budget, model, 15, (1, 3, 96, 96))
    assert all(record.r == 4 and record.k is None for record in records[8:])


class Both(torch.nn.Module):
    """An eventful model beside one with ToMe."""

    def __init__(self):
        super().__init__()
        self.first = vitdet(**SMALL)
        self.second = timm_model("vit_tiny_patch16_224", img_size=96)

    def forward(self, x):
        return self.first(x), self.second(x[..., :96, :96])


def test_r_changes_beside_k_with_a_whole_frame_alone():
    torch.manual_seed(0)
    model = Both().eval()
    eventful, tome = apply_eventful(model.first, TopK(32)), apply_tome(model.second, 0)

    class Clock(FakeClock):
        def __call__(self):
            self.now += 0.3 + 0.005 * eventful.policy.k - 0.02 * tome.r
            return self.now

    budget = Budget((tome, eventful), milliseconds=250, k=(4, TOKENS), r=(0, 8), clock=Clock(None))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        records = play(budget, model, 80)
    changed = [b.number for a, b in zip(records, records[1:]) if a.r != b.r]
    assert changed and all(records[number].whole for number in changed)
    assert sum(record.whole for record in records) == 1 + len(changed)
    assert records[-1].milliseconds <= 250


def test_quality_stands_above_the_target(eventful):
    model, handle = eventful
    budget = Budget(
        handle, milliseconds=150, k=(4, TOKENS), left_out=0.2, clock=FakeClock(handle.policy)
    )
    with pytest.warns(
        UserWarning, match=r"150 ms .* cannot be held: .* which left_out=0.2 requires"
    ):
        records = play(budget, model, 60)
    late = records[20:]
    assert sum(record.left_out for record in late) / len(late) <= 0.25
    assert min(record.k for record in late) > 4


def test_missed_target_is_said_once(eventful):
    model, handle = eventful
    budget = Budget(handle, milliseconds=50, k=(4, TOKENS), clock=FakeClock(handle.policy))
    with pytest.warns(UserWarning, match="50 ms a frame cannot be held: at the floor k=4") as said:
        play(budget, model, 50)
    assert len([warning for warning in said if "Budget" in str(warning.message)]) == 1
    assert str(budget.report()).endswith(budget.missed)


def test_nothing_is_learned_from_errors_and_empty_blocks(eventful):
    model, handle = eventful
    budget = Budget(handle, milliseconds=400, k=(4, TOKENS), clock=FakeClock(handle.policy))
    play(budget, model, 2)
    with pytest.raises(ZeroDivisionError), budget.frame():
        raise ZeroDivisionError
    with budget.frame():
        pass
    assert [record.number for record in budget.frames] == [0, 1]
    assert len(play(budget, model, 1)) == 1


def test_frames_that_somebody_counts_are_not_timed(eventful):
    model, handle = eventful
    budget = Budget(handle, milliseconds=400, k=(4, TOKENS), clock=FakeClock(handle.policy))
    with MacsCounter():
        assert play(budget, model, 1)[0].milliseconds is None
    assert play(budget, model, 1)[0].milliseconds is not None


def test_two_budgets_of_one_model_are_refused(eventful):
    _, handle = eventful
    budget = Budget(handle, milliseconds=400, k=(4, TOKENS))
    with pytest.raises(
        RuntimeError, match="Budget: a Budget already controls the Eventful of this ViTDet, and t"
    ):
        Budget(handle, fps=3, k=(4, TOKENS))
    twin = copy.deepcopy(handle.model)
    assert Budget(type(handle)(twin), fps=3, k=(4, TOKENS)).k == 32
    budget.remove()
    assert Budget(handle, fps=3, k=(4, TOKENS)).k == 32


def test_budget_that_is_gone_or_of_a_method_put_on_again_steers_nothing(eventful):
    model, handle = eventful
    first = Budget(handle, milliseconds=400, k=(4, TOKENS))
    handle.remove()
    with pytest.raises(RuntimeError, match="the method was removed from its ViTDet"), first.frame():
        pass
    handle = apply_eventful(model, TopK(32))
    Budget(handle, milliseconds=400, k=(4, TOKENS))
    gc.collect()
    claim(handle.model, FakeClock(handle.policy))


def test_remove_gives_k_back_and_ends_it(eventful):
    model, handle = eventful
    budget = Budget(handle, milliseconds=200, k=(4, TOKENS), clock=FakeClock(handle.policy))
    play(budget, model, 10)
    assert handle.policy.k != 32
    budget.remove()
    budget.remove()
    assert handle.policy.k == 32
    with pytest.raises(RuntimeError, match="it was removed, so there is nothing to control"):
        play(budget, model, 1)


def test_one_frame_at_a_time(eventful):
    _, handle = eventful
    budget = Budget(handle, milliseconds=400, k=(4, TOKENS))
    with (
        pytest.raises(RuntimeError, match="a frame begins while another is computed"),
        budget.frame(),
        budget.frame(),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(milliseconds=3), r"k=None must be two whole numbers, \(lowest, highest\), from 1 on"),
        (dict(milliseconds=3, k=(0, 5)), r"k=\(0, 5\) must be"),
        (dict(milliseconds=3, k=(9, 5)), r"k=\(9, 5\) must be"),
        (dict(milliseconds=3, k=(1.0, 5)), r"k=\(1.0, 5\) must be"),
        (dict(milliseconds=3, k=(1, 5), r=(0, 8)), r"r=\(0, 8\) but no handle of ToMe was given"),
        (dict(milliseconds=3, k=(1, 5), left_out=1.0), "left_out=1.0 must be above 0 and below 1"),
        (dict(k=(1, 5)), "none given, but exactly one target is needed"),
    ],
)
def test_arguments_without_a_meaning(eventful, arguments, message):
    with pytest.raises(ValueError, match=message):
        Budget(eventful[1], **arguments)


@pytest.mark.parametrize("images", [0, -1, 1.5, None])
def test_a_number_of_images_without_a_meaning(eventful, images):
    model, handle = eventful
    budget = Budget(handle, share=0.5, k=(4, TOKENS))
    with (
        pytest.raises(ValueError, match=r"images=.* must be a whole number, at least 1"),
        torch.no_grad(),
        budget.frame() as record,
    ):
        model(torch.randn(1, 3, 128, 128))
        record.images = images
    assert not budget.frames
    play(budget, model, 2)
    assert len(budget.frames) == 2


def test_handles_without_a_number_to_set(eventful):
    model, handle = eventful
    handle.policy = Threshold(1.0)
    with pytest.raises(ValueError, match=r"Threshold\(threshold=1.0\) has no k to set"):
        Budget(handle, milliseconds=3, k=(1, 5))
    said = "^Budget: a value of type ViTDet is not a handle; give the handle that apply_eventful"
    with pytest.raises(TypeError, match=said):
        Budget(model, milliseconds=3, k=(1, 5))
    handle.policy = TopK(3)
    with pytest.raises(ValueError, match="got 2 handles with a k and 0 of ToMe"):
        Budget([handle, handle], milliseconds=3, k=(1, 5))
    tome = apply_tome(timm_model("vit_tiny_patch16_224", img_size=96), 0.1)
    with pytest.raises(ValueError, match=r"ToMe's r=0.1 is not a number of tokens"):
        Budget(tome, milliseconds=3, r=(0, 8))
    tome.r = 3
    with pytest.raises(ValueError, match=r"left_out=0\.1 is a limit for Eventful only"):
        Budget(tome, milliseconds=3, r=(0, 8), left_out=0.1)
