"""A video with cuts and pauses: the small form of the endurance run."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_errors_and_memory_stay(load_script, dtype):
    script = load_script("long_video")
    result = script.run("small", dtype, num_frames=60)
    assert script.faults(result, dtype) == []
    assert len(result.errors) == len(result.drift) == 60
    assert max(result.errors) > 0 and len(result.remembered) == 20


def test_the_video_has_cuts_and_pauses(load_script):
    frames = list(load_script("long_video").video(32, 600))
    pictures = [frame for frame, _ in frames]
    assert 0 < sum(cut for _, cut in frames) < 10
    assert sum(bool((a == b).all()) for a, b in zip(pictures, pictures[1:])) > 50


def test_what_grows_is_named(load_script):
    script = load_script("long_video")
    flat = dict(drift=[0.0], resident=[100.0] * 20, held=[10] * 20, remembered=[5] * 20)
    errors = [0.1] * 100

    def faults(**changes):
        return script.faults(script.Result(**{**flat, "errors": errors, **changes}), "float32")

    assert faults() == []
    assert faults(drift=[2e-4]) == ["running sums are 0.0002 off, allowed 0.0001"]
    assert faults(errors=[0.1] * 50 + [0.3] * 50) == ["the error grew from 0.100 to 0.300"]
    assert faults(errors=[0.1] * 50 + [1.6] + [0.1] * 50) == ["a frame is 1.60 off"]
    assert faults(resident=[100.0] * 19 + [170.0]) == ["the resident set grew by 70 MB"]
    assert faults(held=[10] * 19 + [11]) == ["torch's tensors went up to 11 bytes"]
    assert faults(remembered=[5] * 19 + [6]) == ["the stream's memory went up to 6 bytes"]
