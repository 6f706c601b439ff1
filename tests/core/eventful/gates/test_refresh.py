"""Which frames are refreshed: by change, in turn, on request, and how often at most."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel import (
    Always,
    Every,
    OnChange,
    OnRequest,
    RandomTokens,
    Threshold,
    TopFraction,
    TopK,
)
from mmvitaccel.core.eventful.gates.policy import frames_for_all
from mmvitaccel.core.eventful.gates.refresh import WholeFrames, change_of, picture_of


def picture(seed, tokens=64, channels=6):
    """Tokens that differ between the quarters of a picture, and within."""
    torch.manual_seed(seed)
    quarters = torch.randn(1, 4, 1, channels).expand(1, 4, -(-tokens // 4), channels)
    return quarters.flatten(1, 2)[:, :tokens] + torch.randn(1, tokens, channels)


def refreshed(refresh, frames, spacing=1, requests=(), told=()):
    """Numbers of the frames that are refreshed."""
    memory, found = WholeFrames(), []
    for number, x in enumerate(frames):
        memory.requested = number in requests
        if memory.begin(refresh, number == 0, number in told, x, spacing):
            found.append(number)
    return found


def test_change_by_the_definition():
    def looks(x):
        x = (x - x.mean(1, keepdim=True))[0]
        size = x.var(0, correction=0).sum().sqrt()
        strips = x.view(4, 16, 6)
        return torch.cat((strips.mean(1), strips.square().mean(1).sqrt()), 1) / size

    a, b = picture(0), picture(1)
    assert torch.allclose(picture_of(a)[0], looks(a), atol=1e-6)
    expected = sum((now - then).square().sum() for now, then in zip(looks(a), looks(b))) / 4
    given = change_of(picture_of(a), picture_of(b))
    assert given.item() == pytest.approx(expected.item(), rel=1e-5)
    assert change_of(picture_of(a), picture_of(a)) == 0
    brighter = picture_of(3 * a + torch.randn(1, 1, 6))
    assert change_of(brighter, picture_of(a)).item() == pytest.approx(0, abs=1e-10)


def test_pictures_that_are_odd():
    few = torch.randn(1, 3, 6)
    assert picture_of(few).shape == (1, 3, 12)
    assert picture_of(few.half()).dtype == torch.float32
    blank = picture_of(torch.ones(1, 64, 6))
    assert not blank.any() and change_of(picture_of(picture(0)), blank) > 0.1


def test_on_change_finds_cuts_alone():
    a, b = picture(0), picture(1)
    noisy = [a + 0.1 * torch.randn_like(a) for _ in range(4)]
    assert refreshed(OnChange(), [*noisy, b, b, b, a, a]) == [4, 7]
    assert refreshed(OnChange(above=2.5), [*noisy, b, b, b, a, a]) == []


def test_at_most_one_for_as_many_frames_as_all_tokens_take():
    pictures = [picture(seed) for seed in range(9)]
    assert refreshed(OnChange(), pictures, spacing=1) == list(range(1, 9))
    assert refreshed(OnChange(), pictures, spacing=3) == [1, 4, 7]
    assert refreshed(OnChange(), pictures, spacing=3, requests=(2,)) == [1, 2, 5, 8]
    # what was held back is not made up for
    still = [*pictures[:3], *[pictures[2]] * 5]
    assert refreshed(OnChange(), still, spacing=3) == [1]


def test_in_turn_and_on_request():
    still = [picture(0)] * 8
    assert refreshed(Every(3), still) == [3, 6]
    assert refreshed(Every(3), still, requests=(1,)) == [1, 4, 7]
    assert refreshed(Every(1), still) == list(range(1, 8))
    assert refreshed(OnRequest(), still) == []
    assert refreshed(OnRequest(), still, requests=(0, 2), told=(5,)) == [2, 5]


def test_a_frame_that_is_not_finite_is_no_other_scene():
    a = picture(0)
    assert refreshed(OnChange(), [a, a * torch.nan, a, a]) == []


@pytest.mark.parametrize(
    ("policy", "frames"),
    [
        (TopK(16), 4), (TopK(63), 2), (TopK(64), 1), (TopK(100), 1), (TopFraction(0.3), 4),
        (RandomTokens(20), 4), (Threshold(1.0), 1), (Always(), 1),
    ],
    ids=repr,
)  # fmt: skip
def test_frames_in_which_a_policy_passes_all(policy, frames):
    assert frames_for_all(policy, 64) == frames


def test_a_policy_of_ones_own_may_say_how_many_pass():
    class Own:
        def select(self, error):
            return error.topk(8, dim=1).indices

    assert frames_for_all(Own(), 64) == 1
    Own.most = lambda self, num_tokens: 8
    assert frames_for_all(Own(), 64) == 8


def test_what_makes_no_sense_is_refused():
    for value in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=rf"OnChange: above={value!r} must be a number above"):
            OnChange(value)
    for value in (0, 2.5, True):
        with pytest.raises(ValueError, match=rf"Every: frames={value!r} must be a whole number"):
            Every(value)
