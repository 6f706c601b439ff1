"""Small data and configs that tests share; a second of training, no downloads."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from mmvitaccel.errors import UserError
from mmvitaccel.extras import require, switch_off_telemetry
from mmvitaccel.testing import network

pytest_plugins = ["pytester"]

# No test reaches the network, in this process or (for these libraries) in one that it starts.
network.refuse_network()
switch_off_telemetry()
os.environ["HF_HUB_OFFLINE"] = "1"

# What a property draws. The same few dozen examples every time; `--hypothesis-profile=thorough`
# draws thousands of new ones.
_ANY_TIME = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few", derandomize=True, max_examples=25, database=None, **_ANY_TIME)
settings.register_profile("thorough", max_examples=2000, print_blob=True, **_ANY_TIME)
settings.load_profile("few")

DETECTOR = """
default_scope = 'mmdet'
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3, pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, out_indices=(2, 3),
                  norm_eval=False),
    neck=dict(type='FPN', in_channels=[16, 32], out_channels=8, num_outs=2),
    bbox_head=dict(
        type='RetinaHead', num_classes=2, in_channels=8, stacked_convs=1, feat_channels=8,
        anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1,
                              ratios=[1.0], strides=[16, 32]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4,
                        target_stds=[1.0] * 4),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0)),
    train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4,
                                 min_pos_iou=0, ignore_iof_thr=-1),
                   sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.0,
                  nms=dict(type='nms', iou_threshold=0.5), max_per_img=5))
meta = dict(classes=('bright', 'dark'))
load = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True)]
pack = dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                                             'scale_factor'))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CocoDataset', data_root='{root}', ann_file='boxes.json', metainfo=meta,
                 data_prefix=dict(img='images'),
                 pipeline=[load[0], dict(type='LoadAnnotations', with_bbox=True), load[1], pack]))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CocoDataset', data_root='{root}', ann_file='boxes.json', metainfo=meta,
                 data_prefix=dict(img='images'), test_mode=True,
                 pipeline=[*load, dict(type='LoadAnnotations', with_bbox=True), pack]))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file='{root}/boxes.json', metric='bbox')
test_evaluator = val_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1),
                     checkpoint=dict(type='CheckpointHook', interval=1),
                     visualization=dict(type='DetVisualizationHook'))
visualizer = dict(type='DetLocalVisualizer', name='visualizer',
                  vis_backends=[dict(type='LocalVisBackend')])
auto_scale_lr = dict(enable=False, base_batch_size=16)
randomness = dict(seed=0)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
"""

EFFICIENTVIT = """
model['backbone'] = dict(
    type='mmvitaccel.EfficientViT',
    arch=dict(embed_dims=(16, 24, 32), depths=(1, 1, 1), num_heads=(2, 3, 2), kernels=(5, 3, 3)))
model['neck'] = dict(type='mmvitaccel.EfficientViTFPN', in_channels=[16, 24, 32], out_channels=8,
                     num_outs=5, num_extra_trans_convs=1)
model['bbox_head']['anchor_generator']['strides'] = [8, 16, 32, 64, 128]
"""

RECOGNIZER = """
default_scope = 'mmaction'
model = dict(
    type='Recognizer3D',
    data_preprocessor=dict(type='ActionDataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3,
                           format_shape='NCTHW'),
    backbone=dict(type='VisionTransformer', img_size=32, patch_size=16, embed_dims=16, depth=2,
                  num_heads=2, mlp_ratio=2, num_classes=2, num_frames=4, qkv_bias=True,
                  norm_cfg=dict(type='LN', eps=1e-6)),
    cls_head=dict(type='TimeSformerHead', num_classes=2, in_channels=16, average_clips='prob'))
steps = [dict(type='RawFrameDecode'), dict(type='Resize', scale=(32, 32), keep_ratio=False),
         dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')]
frames = dict(type='SampleFrames', clip_len=4, frame_interval=1)
data = dict(type='RawframeDataset', ann_file='{root}/clips.txt', data_prefix=dict(img='{root}'),
            filename_tmpl='{:05}.png')
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**data, pipeline=[dict(**frames, num_clips=1), *steps]))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**data, test_mode=True,
                 pipeline=[dict(**frames, num_clips=2, test_mode=True), *steps]))
test_dataloader = val_dataloader
val_evaluator = dict(type='AccMetric')
test_evaluator = val_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
visualizer = dict(type='ActionVisualizer', vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=0)
"""


def write_boxes(root: Path, count: int = 5) -> None:
    """``count`` grey images of 64 pixels with a bright and a dark box each, in COCO's form."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for image_id in range(count):
        image = rng.integers(100, 140, (64, 64, 3), dtype=np.uint8)
        for category, (left, colour) in enumerate([(4, 230), (36, 20)], start=1):
            top = int(rng.integers(4, 36))
            image[top : top + 24, left : left + 24] = colour
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=category,
                    bbox=[left, top, 24, 24],
                    area=576,
                    iscrowd=0,
                )
            )
        cv2.imwrite(str(root / "images" / f"{image_id}.png"), image)
        images.append(dict(id=image_id, file_name=f"{image_id}.png", height=64, width=64))
    categories = [dict(id=1, name="bright"), dict(id=2, name="dark")]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / "boxes.json").write_text(json.dumps(content))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose optional packages are missing; fail it where they were to be installed.

    ``@pytest.mark.extras("deploy", "onnx")`` names an extra and its packages. ``make test-extras``
    says in ``MMVITACCEL_EXTRAS`` which extras it installed, so that a broken one is no skip.
    """
    for marker in item.iter_markers("extras"):
        try:
            require(*marker.args)
        except UserError as error:
            installed = os.environ.get("MMVITACCEL_EXTRAS", "").split()
            (pytest.fail if marker.args[0] in installed else pytest.skip)(str(error))


@pytest.fixture(autouse=True)
def no_network():
    """Fail a test during which the network was asked for, even where nobody saw the error."""
    network.refused.clear()
    yield
    if network.refused:
        pytest.fail("; ".join(network.refused))


@pytest.fixture(autouse=True)
def same_scheduling():
    """Fail a test that leaves the thread in another scheduling class, as some libraries do as root.

    A real-time thread starves threads that it waits for, so that later tests take hours.
    """
    before = os.sched_getscheduler(0)
    yield
    after = os.sched_getscheduler(0)
    if after != before:
        os.sched_setscheduler(0, before, os.sched_param(0))
        pytest.fail(f"the thread's scheduling class was {before} and is {after} now")


def pytest_configure() -> None:
    """Put what tests make on a device, and import yapf before the workers of xdist start.

    ``MMVITACCEL_TEST_DEVICE`` names the device. mmengine imports yapf, and that writes its grammar
    to a cache on the first import: of two processes that do so at once in a new environment, one
    reads half a file.
    """
    importlib.import_module("yapf")
    if os.environ.get("MMVITACCEL_TEST_DEVICE"):
        torch.set_default_device(os.environ["MMVITACCEL_TEST_DEVICE"])


@pytest.fixture(autouse=True)
def runs_apart():
    """Forget mmengine's named instances after each test.

    Runs of one config that start in the same second share a name, and with it logger, message hub
    and visualizer: the second would write into the first one's folder.
    """
    yield
    if "mmengine" in sys.modules:
        pending = [sys.modules["mmengine"].utils.ManagerMixin]
        while pending:
            cls = pending.pop()
            cls._instance_dict.clear()
            pending.extend(cls.__subclasses__())


@pytest.fixture
def one_thread() -> None:
    """Compute in one thread, as small models are fastest."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def metafiles_read_once() -> Iterator[None]:
    """A config with a base in another package reads all of its metafiles: read them only once."""
    from mmengine.config import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "load", functools.cache(utils.load))
        yield


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    """A folder with five images and their boxes."""
    write_boxes(tmp_path / "boxes")
    return tmp_path / "boxes"


@pytest.fixture
def detector_config(tmp_path: Path, boxes: Path) -> Path:
    """A config of a detector with 48 000 parameters, its data beside it."""
    path = tmp_path / "detector.py"
    path.write_text(DETECTOR.replace("{root}", str(boxes)))
    return path


@pytest.fixture
def efficientvit_config(detector_config: Path) -> Path:
    """That detector with a narrow EfficientViT and its feature pyramid."""
    with detector_config.open("a") as file:
        file.write(EFFICIENTVIT)
    return detector_config


@pytest.fixture
def write_cocovid(tmp_path):
    """Write a CocoVID json and its frames (PNG noise); returns the json's path."""

    def write(
        lengths=(5, 5),
        classes=("cat", "dog"),
        size=(48, 64),
        name="vid.json",
        train_frames=None,
        shuffle=None,
        pictures=True,
    ) -> Path:
        """Video v (from 1) has lengths[v - 1] frames with one object of each class."""
        height, width = size
        rng = np.random.default_rng(0)
        images, annotations = [], []
        for video_id, length in enumerate(lengths, 1):
            for frame_id in range(length):
                image = {
                    "id": len(images) + 1,
                    "file_name": f"video{video_id}/{frame_id:06d}.png",
                    "video_id": video_id,
                    "frame_id": frame_id,
                    "height": height,
                    "width": width,
                    "is_vid_train_frame": train_frames is not None and frame_id in train_frames,
                }
                images.append(image)
                for category_id in range(1, len(classes) + 1):
                    x, y = rng.integers(0, width // 2), rng.integers(0, height // 2)
                    w, h = rng.integers(8, width // 2), rng.integers(8, height // 2)
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": image["id"],
                            "video_id": video_id,
                            "category_id": category_id,
                            "instance_id": video_id * len(classes) + category_id,
                            "bbox": [int(x), int(y), int(w), int(h)],
                            "area": int(w * h),
                            "iscrowd": False,
                        }
                    )
                if pictures:
                    path = tmp_path / image["file_name"]
                    path.parent.mkdir(exist_ok=True)
                    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                    cv2.imwrite(str(path), noise)
        if shuffle is not None:
            images = [images[i] for i in np.random.default_rng(shuffle).permutation(len(images))]
        content = {
            "videos": [{"id": v, "name": f"video{v}"} for v in range(1, len(lengths) + 1)],
            "images": images,
            "annotations": annotations,
            "categories": [{"id": n, "name": c} for n, c in enumerate(classes, 1)],
        }
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def recognizer_config(tmp_path: Path) -> Path:
    """A config of a video transformer with 29 000 parameters, its clips as frames beside it."""
    pytest.importorskip("mmaction")
    root = tmp_path / "clips"
    lines = []
    for clip in range(4):
        (root / f"clip{clip}").mkdir(parents=True)
        for frame in range(1, 7):
            image = np.full((40, 40, 3), 40 + 150 * (clip % 2), np.uint8)
            cv2.imwrite(str(root / f"clip{clip}" / f"{frame:05}.png"), image)
        lines.append(f"clip{clip} 6 {clip % 2}\n")
    (root / "clips.txt").write_text("".join(lines))
    path = tmp_path / "recognizer.py"
    path.write_text(RECOGNIZER.replace("{root}", str(root)))
    return path


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """``run_tool('test', CONFIG, ...)`` runs ``main`` of ``tools/test.py``, in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *argv: object) -> None:
        path = Path(__file__).parents[1] / "tools" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"tool_{path.stem}", path)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        tool.main([str(argument) for argument in argv])

    return run


@pytest.fixture
def real_video() -> Path:
    """An h264 file of 300 frames at 340 x 256; the test is skipped where it is not."""
    root = os.environ.get("MMVITACCEL_TEST_DATA", str(Path(__file__).parents[1] / "data"))
    path = Path(root, "videos", "pool_340x256.mp4")
    if not path.is_file():
        pytest.skip(f"{path} is not there; set MMVITACCEL_TEST_DATA to the folder of videos/")
    return path


@pytest.fixture
def kernel() -> None:
    """Skips where there are no compiled kernels."""
    from mmvitaccel.core.kernels.library.choice import chosen

    if chosen().library is None:
        pytest.skip(chosen().why)
