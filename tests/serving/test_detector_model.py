"""A detector of a config in service: what it finds for each stream is what it finds alone."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmvitaccel.errors import UserError
from mmvitaccel.serving import DetectorModel, Refused, StreamWorker
from mmvitaccel.testing.detectors import frames

pytest.importorskip("mmdet")
CONFIGS = Path(__file__).parents[2] / "configs" / "eventful" / "tiny"
DENSE = str(CONFIGS / "faster-rcnn_vitdet-tiny_vid-128_dense.py")
TOKEN = "secret"


def pictures(seed, count):
    return [f.permute(1, 2, 0).byte().numpy() for f in frames(count, seed, (90, 128))]


def made(config=DENSE, **options):
    torch.manual_seed(0)
    model = DetectorModel(config, None, **options)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.model.parameters():
        spread = 0.12 if parameter.ndim > 1 else 0.3
        parameter.data = torch.randn(parameter.shape, generator=generator) * spread
    return model


class Replay:
    def __init__(self):
        self.coming = []

    def select(self, error):
        return self.coming.pop(0).nonzero()[:, 1][None]


def played(model, streams, count):
    """Answers and tokens, frame by frame, of streams whose frames go together."""
    answers, tokens, run = [], [], model.run

    def noting(batch):
        out = run(batch)
        if model.handle is not None:
            parts = {part: model.handle.parts[part] for part in ("backbone", "neck")}
            tokens.append({part: own.passed_tokens() for part, own in parts.items()})
        return out

    model.run = noting
    with StreamWorker(model) as worker:
        for name in streams:
            worker.open_stream(name, TOKEN)
        for number in range(count):
            with worker._changed:  # so that all have arrived when the first is taken
                coming = [worker.submit(n, number, s[number], TOKEN) for n, s in streams.items()]
            answers.append([future.result(60) for future in coming])
    return answers, tokens


def test_boxes_of_each_stream_are_those_alone_at_the_same_selections():
    streams = {"busy": pictures(1, 3), "still": pictures(2, 1) * 3}
    answers, tokens = played(made(k=12, floor=2), streams, 3)
    alone = made(k=12)
    replays = {part: Replay() for part in ("backbone", "neck")}
    for part, replay in replays.items():
        alone.handle.parts[part].policy = replay
    for number, found in enumerate(answers):
        assert [a.batch for a in found] == [2, 2]
        assert [a.whole for a in found] == [number == 0] * 2
        for place, (answer, (name, shown)) in enumerate(zip(found, streams.items())):
            for part, replay in replays.items():
                passed = tokens[number][part][place]
                replay.coming = list(passed.flatten(0, 1)) if number else []
            with torch.no_grad(), alone.handle.stream(name, number):
                (own,) = alone.run([alone.prepare(shown[number])])
            assert len(own.bboxes) == len(answer.output.bboxes) > 0
            torch.testing.assert_close(answer.output.scores, own.scores, rtol=0, atol=1e-5)
            torch.testing.assert_close(answer.output.bboxes, own.bboxes, rtol=0, atol=1e-3)
    assert answers[2][0].computed > answers[2][1].computed > 0


def test_files_and_pictures_give_the_same_and_sizes_do_not_mix():
    model = made(k=12)
    picture, wide = pictures(1, 1)[0], pictures(1, 1)[0][:40]
    png = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    answers, _ = played(model, {"file": [png], "array": [picture], "wide": [wide]}, 1)
    by_name = {a.stream: a for a in answers[0]}
    assert torch.equal(by_name["file"].output.bboxes, by_name["array"].output.bboxes)
    assert by_name["file"].batch == 2 and by_name["wide"].batch == 1


def test_a_dense_detector_and_what_is_taken_off():
    config = str(CONFIGS / "faster-rcnn_vitdet-tiny_vid-128_top64_all.py")
    model = made(config)
    assert model.handle is None
    (answers,), _ = played(model, {"a": pictures(1, 1)}, 1)
    assert answers[0].whole
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert made(config, k=9, max_streams=3).handle.max_streams == 3
    assert not [w for w in said if "is replaced by" in str(w.message)]


def test_what_does_not_serve_is_said():
    model = made(k=4)
    with pytest.raises(Refused, match="a detector takes pictures, not a Tensor"):
        model.prepare(torch.zeros(3, 8, 8))
    with pytest.raises(Refused, match="the test pipeline failed on a picture of") as refused:
        model.prepare(np.zeros((1, 3000, 3), np.uint8))
    assert refused.value.reason == "frame"
    with pytest.raises(UserError, match=r"k: .*k=0 must be a whole number"):
        DetectorModel(DENSE, None, k=0)
    with pytest.raises(UserError, match=r"checkpoint https://x/y\.pth is a URL"):
        DetectorModel(DENSE, "https://x/y.pth")
    with pytest.raises(UserError, match="finds no boxes"):
        DetectorModel(str(CONFIGS / "vivit-tiny_16x1x1_motion-clips_top8.py"), None)
