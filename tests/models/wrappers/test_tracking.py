"""mmdet's tracking models around eventful detectors: each video's frames in order, no others."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from mmdet.models.mot import BaseMOTModel
from mmdet.structures import DetDataSample, TrackDataSample
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from mmengine.registry import DefaultScope

from mmvitaccel.adapters.eventful.apply import EventfulHandle, apply_eventful
from mmvitaccel.adapters.eventful.neck import EventfulNeckHandle
from mmvitaccel.core.eventful.gates.policy import TopK
from mmvitaccel.models.wrappers.eventful import attach_eventful
from mmvitaccel.registry import MODELS
from tests.tiny_detector import ANCHORS, CODER, EVENTFUL, NECK, NMS, RETINANET, VITDET

EVENTFUL_NECK = dict(type="mmvitaccel.EventfulNeck", policy=dict(type="TopK", k=6), neck=NECK)
ROIS = dict(
    type="SingleRoIExtractor", out_channels=8, featmap_strides=[8, 16],
    roi_layer=dict(type="RoIAlign", output_size=3, sampling_ratio=0),
)  # fmt: skip
FASTER_RCNN = dict(
    type="FasterRCNN",
    backbone=VITDET,
    neck=NECK,
    rpn_head=dict(
        type="RPNHead", in_channels=8, feat_channels=8, anchor_generator=ANCHORS, bbox_coder=CODER
    ),
    roi_head=dict(
        type="StandardRoIHead", bbox_roi_extractor=ROIS,
        bbox_head=dict(
            type="Shared2FCBBoxHead", in_channels=8, fc_out_channels=8, roi_feat_size=3,
            num_classes=2, bbox_coder=CODER,
        ),
    ),
    train_cfg=None,
    test_cfg=dict(
        rpn=dict(nms_pre=50, max_per_img=10, nms=NMS, min_bbox_size=0),
        rcnn=dict(score_thr=0.0, nms=NMS, max_per_img=5),
    ),
)  # fmt: skip
BYTE_TRACKER = dict(
    type="ByteTracker", motion=dict(type="KalmanFilter"), num_frames_retain=5,
    obj_score_thrs=dict(high=0.3, low=0.1), init_track_thr=0.3,
)  # fmt: skip
PREPROCESSOR = dict(
    type="TrackDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3, pad_size_divisor=8
)


class NoTracker:
    """In place of trackers that need the package motmetrics."""

    def reset(self):
        """There is nothing to forget."""

    def track(self, data_sample, **kwargs):
        return data_sample.pred_instances


class ClipModel(BaseMOTModel):
    """How mmdet's Mask2FormerVideo uses its backbone: all frames of a clip are one batch."""

    def __init__(self, detector, data_preprocessor):
        super().__init__(data_preprocessor)
        self.detector = MODELS.build(detector)

    def loss(self, inputs, data_samples):
        """It is not trained."""

    def predict(self, inputs, data_samples):
        levels = self.detector.extract_feat(inputs.flatten(0, 1))
        data_samples[0].levels = [level.clone() for level in levels]
        return data_samples


def tracker(kind, **parts):
    """A tracking model whose detector has other parts, on weights of its own."""
    if kind == "ByteTrack":
        pytest.importorskip("lap", reason="the tracker's assignment needs the package lap")
    cfgs = {
        "ByteTrack": dict(detector=RETINANET, tracker=BYTE_TRACKER),
        "DeepSORT": dict(detector=RETINANET),  # SORT and StrongSORT too
        "OCSORT": dict(detector=RETINANET),
        "QDTrack": dict(
            detector=FASTER_RCNN,
            track_head=dict(
                type="QuasiDenseTrackHead", roi_extractor=ROIS,
                embed_head=dict(
                    type="QuasiDenseEmbedHead", num_convs=1, num_fcs=1, embed_channels=8,
                    in_channels=8, conv_out_channels=8, fc_out_channels=8, roi_feat_size=3,
                    norm_cfg=dict(type="GN", num_groups=2),
                    loss_track=dict(type="MultiPosCrossEntropyLoss"),
                    loss_track_aux=dict(type="MarginL2Loss"),
                ),
            ),
            tracker=dict(type="QuasiDenseTracker", init_score_thr=0.1, obj_score_thr=0.05),
        ),
        "clip": dict(detector=RETINANET),
    }  # fmt: skip
    cfg = copy.deepcopy(cfgs[kind])
    cfg["detector"].update(copy.deepcopy(parts))
    with DefaultScope.overwrite_default_scope("mmdet"):
        cfg = Config(dict(cfg, data_preprocessor=PREPROCESSOR))._cfg_dict
        model = ClipModel(**cfg) if kind == "clip" else MODELS.build(dict(cfg, type=kind))
    if kind in ("DeepSORT", "OCSORT"):
        model.tracker = NoTracker()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


def video(seed, length, size=(40, 56)):
    """Frames (T, 3, H, W) of one picture with noise of its own in each."""
    generator = torch.Generator().manual_seed(seed)
    still = torch.randint(0, 256, (3, *size), generator=generator).float()
    return still + 20 * torch.randn(length, 3, *size, generator=generator)


def track_sample(video_id, frame_ids, **meta):
    shape = dict(img_shape=(40, 56), ori_shape=(40, 56), scale_factor=(1.0, 1.0), img_id=0)
    named = {} if video_id is None else dict(video_id=video_id)
    sample = TrackDataSample()
    sample.video_data_samples = [
        DetDataSample(metainfo={**shape, **named, "frame_id": n, "ori_video_length": 9, **meta})
        for n in frame_ids
    ]
    return sample


def step(model, frames, sample):
    with torch.no_grad():
        return model.test_step(dict(inputs=[frames], data_samples=[sample]))[0]


def firsts(handle):
    return [frame.first for frame in handle.frames]


def features(model):
    """Every map that the backbone gives from now on, frame by frame."""
    seen = []
    backbone = model.detector.backbone
    backbone.register_forward_hook(lambda m, args, out: seen.extend(out[0].split(1)))
    return seen


def by_hook(kind):
    model = tracker(kind)
    return model, attach_eventful(model, dict(type="TopK", k=6))[1]


def in_config(kind):
    model = tracker(kind, backbone=EVENTFUL)
    return model, EventfulHandle(model)


def on_backbone(kind):
    model = tracker(kind)
    return model, apply_eventful(model.detector.backbone, TopK(6))


def neck_in_config(kind):
    model = tracker(kind, neck=EVENTFUL_NECK)
    return model, EventfulNeckHandle(model)


def all_parts(kind):
    model = tracker(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of heads that are computed whole
        return model, apply_eventful(model, TopK(6), parts="all")


KINDS = ("ByteTrack", "DeepSORT", "OCSORT", "QDTrack", "clip")
WAYS = (by_hook, in_config, on_backbone, neck_in_config, all_parts)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_streams_follow_the_videos_inside_the_samples(kind, way):
    model, handle = way(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        step(model, video(1, 3), track_sample(1, [0, 1, 2]))
        assert firsts(handle) == [True, False, False]
        step(model, video(1, 2), track_sample(1, [3, 4]))
        assert firsts(handle) == [False, False]
        step(model, video(2, 2), track_sample(2, [5, 6]))
        assert firsts(handle) == [True, False], "another video starts clean, whatever its number"
        step(model, video(1, 1), track_sample(1, [5]))
        assert firsts(handle) == [False]
        step(model, video(1, 2), track_sample(1, [0, 1]))
        assert firsts(handle) == [True, False]
    assert [frame.frame_id for frame in handle.frames] == [0, 1]
    assert {name[0] for name in handle.streams} == {1, 2}
    for name, part in getattr(handle, "parts", {}).items():
        if kind != "clip" or name == "backbone":  # whose head it does not call
            assert firsts(part) == [True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_gives_what_its_frames_give_one_by_one(kind):
    frames = {1: video(1, 5), 2: video(2, 5)}
    frames[1][2] = float("nan")
    cuts = {3}

    def run(lengths):
        model, _ = in_config(kind)
        seen, start = features(model), 0
        for length in lengths:
            numbers = range(start, start + length)
            for name, pictures in frames.items():
                sample = track_sample(name, numbers)
                for image, number in zip(sample.video_data_samples, numbers):
                    image.set_metainfo(dict(scene_cut=number in cuts))
                if kind == "clip" or not pictures[start : start + length].isnan().any():
                    step(model, pictures[start : start + length], sample)
            start += length
        return seen

    if kind != "clip":  # whose heads take no numbers that are none
        frames[1] = video(1, 5)
    one, clips = run([1] * 5), run([2, 3])
    assert len(one) == len(clips) == 10
    order = [0, 2, 1, 3, 4, 6, 8, 5, 7, 9]
    for place, map_ in zip(order, clips):
        torch.testing.assert_close(map_, one[place], rtol=1e-5, atol=1e-5, equal_nan=True)


def test_the_whole_budget_gives_the_dense_clip():
    dense = tracker("clip")
    model = tracker(
        "clip", backbone={**EVENTFUL, "policy": dict(type="Always")},
        neck=dict(type="mmvitaccel.EventfulNeck", neck=NECK),
    )  # fmt: skip
    for number, pictures in ((0, video(1, 3)), (3, video(2, 2))):
        sample = track_sample(1, range(number, number + len(pictures)))
        ours = step(model, pictures, sample).levels
        for a, b in zip(ours, step(dense, pictures, sample).levels):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert len(EventfulHandle(model).frames) == len(EventfulNeckHandle(model).frames) == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_names_nobody_runs_on_into_nothing(kind, way):
    model, handle = way(kind)
    with pytest.warns(UserWarning, match="the images have no video_id") as caught:
        for seed in (1, 2):
            step(model, video(seed, 2), track_sample(None, [0, 1]))
            assert firsts(handle) == [True, True]
    said = [warning for warning in caught if "Eventful" in str(warning.message)]
    assert len(said) == 1 and handle.streams == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_named_around_the_call_goes_through_its_clips(kind):
    model, handle = in_config(kind)
    with handle.stream("camera"):
        step(model, video(1, 2), track_sample(None, [0, 1]))
        assert firsts(handle) == [True, False]
        step(model, video(1, 2), track_sample(None, [2, 3]))
        assert firsts(handle) == [False, False]
    with handle.stream("camera", 7, cut=True):
        step(model, video(1, 2), track_sample(None, [4, 5]))
    assert [(frame.frame_id, frame.first) for frame in handle.frames] == [(7, True), (8, False)]


def test_a_model_that_looks_again_at_its_images_says_so_and_leaves_the_stream_alone():
    model, handle = in_config("clip")
    extract = model.detector.extract_feat
    model.detector.extract_feat = lambda x: (extract(x), extract(x.flip(-1)))[0]
    step_ = lambda n: step(model, video(1, 1), track_sample(1, [n]))  # noqa: E731
    with pytest.warns(UserWarning, match="computes more images than its data samples name"):
        step_(0)
    assert [frame.stream is None for frame in handle.frames] == [False, True]
    step_(1)
    assert firsts(handle) == [False, True]


def test_parts_of_several_clips_are_refused():
    model, _ = in_config("clip")
    samples = [track_sample(1, [0, 1]), track_sample(2, [0, 1])]
    inputs = torch.stack([video(1, 2), video(2, 2)])
    with torch.no_grad():
        model(inputs, samples, mode="predict")
        assert firsts(EventfulHandle(model)) == [True, False, True, False]
        model.detector.extract_feat = lambda x: model.detector.backbone(x[:2])
        with pytest.raises(
            ValueError, match="2 clips with 4 frames were given, but the batch has 2 of these"
        ):
            model(inputs, samples, mode="predict")
    with pytest.raises(ValueError, match=r"several frames of one video \(video_id: \[1, 1\]\)"):
        model(inputs, [track_sample(1, [0, 1]), track_sample(1, [2, 3])], mode="predict")


def test_a_tracker_that_calls_its_detectors_forward_counts_as_one_call():
    model, handle = in_config("ByteTrack")
    model.detector.predict = lambda x, samples: model.detector(x, samples, mode="predict")
    predict = type(model.detector).predict.__get__(model.detector)

    def call(self, inputs, data_samples=None, mode="tensor"):
        return predict(inputs, data_samples)

    model.detector.forward = call.__get__(model.detector)
    step(model, video(1, 3), track_sample(1, [0, 1, 2]))
    assert [(frame.frame_id, frame.first) for frame in handle.frames] == [
        (0, True),
        (1, False),
        (2, False),
    ]


def test_frozen_parts_of_a_model_in_training_remember_nothing():
    model, handle = in_config("clip")
    model.train()
    model.detector.backbone.eval()
    with torch.no_grad():
        for n in range(2):
            model(video(1, 3)[None], [track_sample(1, [n, n + 1, n + 2])], mode="predict")
            assert firsts(handle) == [True] * 3
    assert handle.streams == []


class Views(BaseTTAModel):
    """Test-time augmentation that keeps the first view's tracks."""

    def merge_preds(self, data_samples_list):
        return [views[0] for views in data_samples_list]


def test_views_of_test_time_augmentation_are_streams_of_their_own():
    model, handle = by_hook("ByteTrack")
    outer = Views(module=model)
    for number in range(3):
        frames = video(1, 1)
        views = [track_sample(1, [number], flip=flip) for flip in (False, True)]
        data = dict(inputs=[[frames], [frames.flip(-1)]], data_samples=[[v] for v in views])
        with torch.no_grad():
            outer.test_step(data)
        assert firsts(handle) == [number == 0]
    assert sorted(name[1] for name in handle.streams) == [False, True]


def test_a_copied_tracker_tells_its_own_copy():
    model, handle = in_config("ByteTrack")
    copied = copy.deepcopy(model)
    for number in range(2):
        step(copied, video(1, 1), track_sample(1, [number]))
        assert firsts(EventfulHandle(copied)) == [number == 0]
    assert handle.streams == []
