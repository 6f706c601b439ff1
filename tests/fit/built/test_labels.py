"""Classes and labels that only a built data set knows."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from mmdet.datasets.base_det_dataset import BaseDetDataset
from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.fit.built.labels import BuiltDataHook, check_built


class Listed(BaseDetDataset):
    """As OpenImages: the classes are in a file beside the annotations."""

    METAINFO = dict(dataset_type="own")

    def __init__(self, classes: tuple[str, ...], **kwargs) -> None:
        self.given = classes
        super().__init__(pipeline=[], test_mode=True, **kwargs)

    def load_data_list(self) -> list[dict]:
        self._metainfo["classes"] = list(self.given)
        return [dict(img_id=0, instances=[])]


def detector(num_classes: int, key: str = "bbox_head") -> nn.Module:
    model, head = nn.Module(), nn.Module()
    head.num_classes = num_classes
    setattr(model, key, head)
    return model


def test_classes_that_stand_in_a_file_of_the_data_set():
    sentence = (
        r"^model\.bbox_head\.num_classes is 601, but train_dataloader\.dataset \(Listed\) has 2 "
        r"classes in its files; set model\.bbox_head\.num_classes=2 or"
    )
    with pytest.raises(UserError, match=sentence):
        check_built(detector(601), Listed(("a", "b")), "train_dataloader.dataset")
    check_built(detector(2), Listed(("a", "b")), "train_dataloader.dataset")
    check_built(detector(2, "other"), Listed(("a",)), "train_dataloader.dataset")


@pytest.fixture
def poses(tmp_path):
    """Writes and builds a set of poses with these labels; those of a split alone count."""
    pytest.importorskip("mmaction")
    from mmaction.datasets import PoseDataset

    def make(*labels, split=None):
        annotations = [
            dict(
                frame_dir=f"v{i}", label=label, total_frames=2, img_shape=(8, 8),
                keypoint=np.zeros((1, 2, 17, 2), np.float16),
            )
            for i, label in enumerate(labels)
        ]  # fmt: skip
        path = tmp_path / "poses.pkl"
        first = [a["frame_dir"] for a in annotations[:2]]
        content = dict(split=dict(train=first), annotations=annotations)
        path.write_bytes(pickle.dumps(content if split else annotations))
        return PoseDataset(str(path), pipeline=[], split=split)

    return make


@pytest.mark.parametrize(
    ("labels", "where", "sentence"),
    [
        ((0, 5, 1), "train", r"poses\.pkl: the sample v1 has the label 5, but .* is 2, for labels "
                             r"from 0 to 1; correct it or set model\.cls_head\.num_classes=6"),
        ((1, 2), "train", r"v1 has the label 2.*; labels count from 0, subtract 1 from each"),
        ((0, -1), "train", r"v1 has the label -1"),
        ((0, [1, 3]), "val", r"v1 has the label 3"),
        ((0, np.int64(2)), "test", r"v1 has the label 2"),
    ],
)  # fmt: skip
def test_labels_of_poses(poses, labels, where, sentence):
    with pytest.raises(UserError, match=sentence):
        check_built(detector(2, "cls_head"), poses(*labels), f"{where}_dataloader.dataset")


def test_labels_of_poses_that_fit(poses):
    model = detector(2, "cls_head")
    check_built(model, poses(0, 1, [0, 1]), "train_dataloader.dataset")
    check_built(model, poses(0, 1, 7, split="train"), "train_dataloader.dataset")
    check_built(model, poses(0, -1, None), "test_dataloader.dataset")  # a test without labels


def test_data_sets_inside_wrappers_are_compared_once(poses, monkeypatch):
    inner = poses(0, 1)
    loader = SimpleNamespace(dataset=SimpleNamespace(datasets=[SimpleNamespace(dataset=inner)]))
    runner = SimpleNamespace(model=detector(1, "cls_head"), train_dataloader=loader)
    runner.val_dataloader = runner.test_dataloader = loader
    for step in ("before_train", "before_val", "before_test"):
        hook = BuiltDataHook()
        with pytest.raises(UserError, match="v1 has the label 1"):
            getattr(hook, step)(runner)
        monkeypatch.setattr(type(inner), "__len__", lambda self: pytest.fail("read again"))
        getattr(hook, step)(runner)
        monkeypatch.undo()
