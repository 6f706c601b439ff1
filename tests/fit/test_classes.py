"""Classes of heads, data sets, json files and checkpoints."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import mmdet.datasets
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.fit.check import SPLITS, check_inputs, check_model, check_start
from mmvitaccel.fit.classes import (
    check_folder_classes,
    check_head_classes,
    check_palettes,
    check_set_classes,
    check_training_classes,
)
from mmvitaccel.fit.datasets import data_sets
from mmvitaccel.fit.heads import Head, heads_of
from mmvitaccel.models.vivit.verb_noun_head import VerbNounHead
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

CONFIGS = Path(__file__).parents[2] / "configs"
EPIC = CONFIGS / "vivit" / "vivit-base_32x2x1_epic-kitchens100-rgb.py"


def load(path, **options):
    return load_config(str(path), {key.replace("__", "."): v for key, v in options.items()})


def names(*classes) -> dict:
    return {f"{s}_dataloader.dataset.metainfo.classes": classes for s in SPLITS}


@pytest.mark.parametrize("count", [1, 3, 80])
@pytest.mark.parametrize("tool", ["train", "test", "get_flops"])
def test_a_head_with_another_number(run_tool, detector_config, capsys, tmp_path, count, tool):
    arguments = [detector_config, "--cfg-options", f"model.bbox_head.num_classes={count}"]
    if tool == "test":
        arguments.insert(1, tmp_path / "none.pth")
    with pytest.raises(SystemExit) as caught:
        run_tool("analysis/get_flops" if tool == "get_flops" else tool, *arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"error: model.bbox_head.num_classes is {count}, but " in error
    assert "has 2 classes ('bright', 'dark'); set model.bbox_head.num_classes=2" in error


@pytest.mark.parametrize(
    ("base", "where"),
    [
        ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", ["model.roi_head.bbox_head"]),
        (
            "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
            ["model.roi_head.bbox_head", "model.roi_head.mask_head"],
        ),
        (
            "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py",
            [f"model.roi_head.bbox_head.{i}" for i in range(3)],
        ),
    ],
)
def test_every_head_of_two_stages_and_cascades(base, where):
    cfg = load_config(f"mmdet::{base}", {})
    sets = data_sets(cfg, *SPLITS)
    model = build_model(cfg)
    assert [head.where for head in heads_of(model)] == [f"{w}.num_classes" for w in where]
    check_head_classes(model, sets)
    cfg.train_dataloader.dataset.metainfo = dict(classes=("a", "b"))
    with pytest.raises(UserError, match=r"num_classes is 80, but train_dataloader\.dataset has 2"):
        check_head_classes(model, data_sets(cfg, "train"))
    part = model.roi_head
    for name in where[-1].split(".")[2:]:
        part = getattr(part, name) if not name.isdigit() else part[int(name)]
    part.num_classes = 79
    with pytest.raises(UserError, match=re.escape(f"{where[-1]}.num_classes is 79, but")):
        check_head_classes(model, sets)


def test_boxes_of_a_panoptic_set_are_of_its_things():
    cfg = load_config("mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py", {})
    model, sets = build_model(cfg), data_sets(cfg, *SPLITS)
    check_head_classes(model, sets)
    model.roi_head.bbox_head.num_classes = 81
    with pytest.raises(UserError, match=r"bbox_head\.num_classes is 81, but .* has 133 classes"):
        check_head_classes(model, sets)


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py", "mask_iou_head"),
        ("point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py", "point_head"),
    ],
)
def test_heads_beside_those_of_boxes_and_masks(base, name):
    cfg = load_config(f"mmdet::{base}", {f"model.roi_head.{name}.num_classes": 5})
    model, sets = build_model(cfg), data_sets(cfg, *SPLITS)
    with pytest.raises(UserError, match=rf"^model\.roi_head\.{name}\.num_classes is 5, but"):
        check_head_classes(model, sets)
    getattr(model.roi_head, name).num_classes = 80
    check_head_classes(model, sets)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(num_things_classes=3, num_stuff_classes=0), "num_things_classes is 3, but "),
        (dict(num_things_classes=2, num_stuff_classes=1), "num_stuff_classes is 1, but "),
    ],
)
@pytest.mark.parametrize("name", ["panoptic_head", "panoptic_fusion_head", "semantic_head"])
def test_heads_of_things_and_stuff(detector_config, name, change, sentence):
    model, head = nn.Module(), nn.Module()
    sets = data_sets(load(detector_config), "train")
    for key, value in dict(num_things_classes=2, num_stuff_classes=0).items():
        setattr(head, key, value)
    setattr(model, name, head)
    check_head_classes(model, sets)
    for key, value in change.items():
        setattr(head, key, value)
    what = rf"^model\.{name}\.{sentence}train_dataloader\.dataset has 2 classes, 2 of things"
    with pytest.raises(UserError, match=what):
        check_head_classes(model, sets)


@pytest.mark.parametrize(
    ("base", "where", "needed"),
    [
        ("mask2former/mask2former_r50_8xb2-lsj-50e_coco.py", "panoptic_head.loss_cls", 81),
        ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "roi_head.bbox_head.loss_cls", 81),
    ],
)
def test_a_weight_for_each_score(base, where, needed):
    cfg = load_config(f"mmdet::{base}", {})
    model = build_model(cfg)
    loss = model.get_submodule(where)
    loss.class_weight = [1.0] * needed
    check_training_classes(model)
    loss.class_weight = [1.0] * (needed - 1)
    sentence = rf"^model\.{where}\.class_weight has {needed - 1} weights, .* has {needed} scores"
    with pytest.raises(UserError, match=sentence):
        check_training_classes(model)


def test_weights_of_other_losses(detector_config, recognizer_config):
    sigmoid = build_model(load(detector_config))
    sigmoid.bbox_head.loss_cls.class_weight = [1.0] * 2
    check_training_classes(sigmoid)
    recognizer = build_model(load(recognizer_config))
    classes = recognizer.cls_head.num_classes
    recognizer.cls_head.loss_cls.class_weight = torch.ones(classes)
    check_training_classes(recognizer)
    recognizer.cls_head.loss_cls.class_weight = torch.ones(classes + 1)
    with pytest.raises(UserError, match=rf"cls_head\.loss_cls\.class_weight has {classes + 1} "):
        check_training_classes(recognizer)


def test_a_colour_for_each_class_that_is_drawn(detector_config):
    cfg = load(detector_config)
    metainfo = cfg.test_dataloader.dataset.metainfo
    metainfo.palette = [(1, 2, 3)]
    check_inputs(cfg, "test")
    cfg.default_hooks.visualization.draw = True
    sentence = r"^test_dataloader\.dataset\.metainfo\.palette has 1 colours for 2 classes"
    with pytest.raises(UserError, match=sentence):
        check_inputs(cfg, "test")
    for palette in ([(1, 2, 3)] * 2, (1, 2, 3), "random"):
        metainfo.palette = palette
        check_inputs(cfg, "test")
    del metainfo["palette"]
    metainfo.classes = tuple(map(str, range(81)))
    with pytest.raises(UserError, match=r"has 80 colours \(CocoDataset has them\) for 81 classes"):
        check_palettes(cfg, data_sets(cfg, "test"))


def test_proposals_have_a_class_of_their_own():
    cfg = load_config("mmdet::rpn/rpn_r50_fpn_1x_coco.py", {})
    assert not list(heads_of(build_model(cfg)))


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (("bright", "drak"), r"classes has 'drak', which .*boxes\.json lacks \(it has 'bright', "
                             r"'dark'\), .*did you mean 'dark'\?"),
        (("Bright", "Dark"), r"classes has 'Bright', 'Dark', which .*lacks"),
        (("dark", "bright"), r"classes is 'dark', 'bright', but .*boxes\.json has these in the "
                             r"order 'bright', 'dark'"),
        (("dark", "dark"), r"classes has 'dark' 2 times"),
    ],
)  # fmt: skip
def test_names_that_the_json_has_otherwise(detector_config, classes, sentence):
    cfg = load_config(str(detector_config), names(*classes))
    with pytest.raises(UserError, match=sentence):
        check_inputs(cfg, *SPLITS)


def test_one_name_without_a_comma(detector_config):
    cfg = load_config(str(detector_config), {})
    cfg.train_dataloader.dataset.metainfo.classes = "bright"
    with pytest.raises(UserError, match=r"classes is the text 'bright'.*write \('bright',\)"):
        check_inputs(cfg, *SPLITS)


def test_names_in_a_file(detector_config, tmp_path):
    path = tmp_path / "classes.txt"
    cfg = load_config(str(detector_config), {})
    for split in SPLITS:
        cfg[f"{split}_dataloader"].dataset.metainfo.classes = str(path)
    path.write_text("bright\ndark\n")
    check_inputs(cfg, *SPLITS)
    path.write_text("bright\ndrak\n")
    with pytest.raises(UserError, match="has 'drak'"):
        check_inputs(cfg, *SPLITS)
    path.write_bytes(b"bright\r\ndark\r\n")
    check_inputs(cfg, *SPLITS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xef\xbb\xbfbright\ndark\n", "begins with a byte order mark"),
        (b"bright\rdark\r", r"has a carriage return \(CR\)"),
        (b"bright\ndark\n\n", "line 3: the class name is ''; remove spaces"),
        (b"bright\ndark\t\n", r"line 2: the class name is 'dark\\t'; remove spaces and tabs"),
        ("bright\ndark\n".encode("utf-16"), "is text in UTF-16"),
        (b"bright\nd\xe4rk\n", "is not UTF-8 text: byte 8 is 0xe4, in line 2"),
    ],
)
def test_a_file_of_names_that_mmengine_would_misread(detector_config, tmp_path, content, sentence):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    cfg = load_config(str(detector_config), {})
    for split in SPLITS:
        cfg[f"{split}_dataloader"].dataset.metainfo.classes = str(path)
    with pytest.raises(UserError, match=rf"classes\.txt,? {sentence}"):
        check_inputs(cfg, *SPLITS)


def test_a_part_of_the_json_in_its_order_is_fine(detector_config):
    cfg = load_config(str(detector_config), names("dark"))
    check_inputs(cfg, *SPLITS)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(categories=[]), r"has 'bright', 'dark', which .*boxes\.json lacks \(it has none\)"),
        (
            dict(categories=[dict(id="1", name="bright"), dict(id="2", name="dark")]),
            r"category_id 1, 2, but the ids of its categories are '1', '2': no object belongs",
        ),
    ],
    ids=["no categories", "ids as texts"],
)
def test_a_json_whose_objects_are_of_no_class(detector_config, boxes, change, sentence):
    content = json.loads((boxes / "boxes.json").read_text())
    (boxes / "boxes.json").write_text(json.dumps({**content, **change}))
    cfg = load_config(str(detector_config), {})
    with pytest.raises(UserError, match=sentence):
        check_inputs(cfg, *SPLITS)


def test_objects_that_are_left_out_and_sets_without_any(detector_config, boxes):
    content = json.loads((boxes / "boxes.json").read_text())
    content["annotations"][3]["category_id"] = 9
    (boxes / "boxes.json").write_text(json.dumps(content))
    cfg = load_config(str(detector_config), {})
    sentence = r"category_id 9, but the ids of its categories are 1, 2: these objects are ignored"
    with pytest.warns(UserWarning, match=sentence):
        check_inputs(cfg, "train")
    (boxes / "boxes.json").write_text(json.dumps({**content, "annotations": []}))
    with pytest.warns(UserWarning, match=r"boxes\.json has no annotations, so the training with"):
        check_inputs(cfg, "train")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_inputs(cfg, "test")


def test_a_key_of_classes_that_nothing_reads(detector_config):
    cfg = load_config(str(detector_config), {})
    cfg.train_dataloader.dataset.metainfo = dict(CLASSES=("bright", "dark"))
    with pytest.raises(UserError, match=r"dataset\.metainfo has the key 'CLASSES'"):
        check_inputs(cfg, "train")


def test_a_json_with_one_name_twice(detector_config, boxes):
    content = json.loads((boxes / "boxes.json").read_text())
    content["categories"].append(dict(id=3, name="dark"))
    (boxes / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="has 2 categories named 'dark'"):
        check_inputs(load_config(str(detector_config), {}), *SPLITS)


def stock(tmp_path, kind, categories) -> list:
    """A data set of mmdet with its default classes, and a json with other categories."""
    path = tmp_path / "stock.json"
    one = dict(id=1, image_id=1, category_id=categories[0]["id"], bbox=[0, 0, 9, 9], area=81)
    path.write_text(json.dumps(dict(images=[], annotations=[one], categories=categories)))
    dataset = dict(type=f"mmdet.{kind}", ann_file=str(path))
    return data_sets(Config(dict(train_dataloader=dict(dataset=dataset), train_cfg={})), "train")


def own_categories(kind) -> list:
    classes = getattr(mmdet.datasets, kind).METAINFO["classes"]
    return [dict(id=number, name=name) for number, name in enumerate(classes, 1)]


@pytest.mark.parametrize("kind", ["LVISV05Dataset", "LVISV1Dataset"])
def test_stock_classes_whose_labels_are_the_places_in_the_json(tmp_path, kind):
    categories = own_categories(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_set_classes(stock(tmp_path, kind, categories))
    count = len(categories)
    with pytest.raises(UserError, match=rf"classes has {count} names .*stock\.json has {count - 1} "
                       rf"categories .*, and {kind} assigns a label to each"):  # fmt: skip
        check_set_classes(stock(tmp_path, kind, categories[1:]))
    swapped = [categories[1], categories[0], *categories[2:]]
    with pytest.raises(UserError, match=r"class 0 is .*: the same classes in another order; give"):
        check_set_classes(stock(tmp_path, kind, swapped))
    other = [*categories[:-1], dict(id=count, name="something else")]
    with pytest.warns(UserWarning, match=rf"class {count - 1} is .* and 'something else' in .*sto"):
        check_set_classes(stock(tmp_path, kind, other))


def test_objects365_sorts_the_categories_of_one_version(tmp_path):
    for kind in ("Objects365V1Dataset", "Objects365V2Dataset"):
        categories = own_categories(kind)
        check_set_classes(stock(tmp_path, kind, categories))
        missing = [dict(c, name="other") if c["id"] == 9 else c for c in categories]
        with pytest.raises(UserError, match=r"which .*stock\.json lacks"):
            check_set_classes(stock(tmp_path, kind, missing))
    turned = own_categories("Objects365V1Dataset")[::-1]
    check_set_classes(stock(tmp_path, "Objects365V1Dataset", turned))
    turned = own_categories("Objects365V2Dataset")[::-1]
    with pytest.raises(UserError, match="has these in the order"):
        check_set_classes(stock(tmp_path, "Objects365V2Dataset", turned))


@pytest.mark.parametrize("split", SPLITS)
def test_verbs_and_nouns(split):
    pytest.importorskip("mmaction", reason="mmaction2 is not installed")
    cfg = load_config(str(EPIC), {})
    model, sets = nn.Module(), data_sets(cfg, split)
    for numbers in ((97, 300), (97, 0)):
        model.cls_head = VerbNounHead(*numbers, in_channels=2)
        check_head_classes(model, sets)
    for numbers, sentence in (
        (
            (125, 300),
            "num_verbs is 125, but {} has 97 (EpicKitchens); set model.cls_head.num_verbs",
        ),
        (
            (97, 352),
            "num_nouns is 352, but {} has 300 (EpicKitchens); set model.cls_head.num_nouns",
        ),
    ):
        model.cls_head = VerbNounHead(*numbers, in_channels=2)
        sentence = sentence.format(f"{split}_dataloader.dataset")
        with pytest.raises(UserError, match=re.escape(f"model.cls_head.{sentence}=")):
            check_head_classes(model, sets)


class Pictures(BaseDataset):
    """As in mmpretrain's data sets: labels are numbers and names are only displayed."""

    METAINFO = dict(classes=("crane", "heron", "crane"))


def test_two_classes_of_one_name_where_labels_are_numbers(detector_config):
    """ImageNet has two cranes: a bird and a machine."""
    cfg = load_config(str(detector_config), {})
    for split in SPLITS:
        dataset = cfg[f"{split}_dataloader"].dataset
        cfg[f"{split}_dataloader"].dataset = dict(type=Pictures, ann_file=dataset.ann_file)
    sets = data_sets(cfg, *SPLITS)
    assert [data.classes for data in sets] == [("crane", "heron", "crane")] * 3
    check_set_classes(sets)


@pytest.mark.extras("mmpretrain", "mmpretrain")
@pytest.mark.parametrize("prefix", ["pictures", dict(img_path="pictures")])
def test_classes_that_are_folders(tmp_path, prefix):
    for name in ("ball", "leaf", "brick"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
    dataset = dict(type="mmpretrain.CustomDataset", data_root=str(tmp_path), data_prefix=prefix)
    loader = dict(dataset=dataset)
    cfg = Config(dict(default_scope="mmpretrain", train_dataloader=loader, train_cfg={}))

    def check(count, *classes):
        dataset["metainfo"] = dict(classes=classes)
        cfg.train_dataloader = dict(dataset=dataset)
        (data,) = data_sets(cfg, "train")
        check_folder_classes(data, Head("model.head.num_classes", count))

    check(3)
    check(3, "ball", "brick", "leaf")
    check(3, "Ball", "Brick", "Leaf")
    with pytest.raises(UserError, match=r"model\.head\.num_classes is 1000, but train_dataloader"
                                        r"\.dataset has 3 classes, the folders of \S+/pictures "
                                        r"\('ball', 'brick', 'leaf'\); set .*=3"):  # fmt: skip
        check(1000)
    with pytest.raises(UserError, match=r"classes is 'ball', 'leaf', 'brick', but labels follow "
                                        r"the folders of .* order 'ball', 'brick', "):  # fmt: skip
        check(3, "ball", "leaf", "brick")


def test_imagenet_vid_matches_by_name(detector_config, write_cocovid):
    path = write_cocovid(classes=("cat", "dog"))
    cfg = load_config(str(detector_config), names("dog", "cat"))
    for split in SPLITS:
        cfg[f"{split}_dataloader"].dataset.type = "mmvitaccel.ImageNetVID"
        cfg[f"{split}_dataloader"].dataset.ann_file = str(path)
    check_set_classes(data_sets(cfg, *SPLITS))


def test_two_sets_in_two_orders(detector_config):
    cfg = load_config(str(detector_config), {})
    cfg.train_dataloader.dataset.metainfo = dict(classes=("bright", "dark"))
    cfg.val_dataloader.dataset.metainfo = dict(classes=("dark", "bright"))
    cfg.val_dataloader.dataset.ann_file = None
    sets = data_sets(cfg, "train", "val")
    with pytest.raises(UserError, match=r"class 0 is 'bright' in train_.* and 'dark' in val_"):
        check_set_classes(sets)
    cfg.val_dataloader.dataset.metainfo = dict(classes=("bright", "dim"))
    with pytest.warns(UserWarning, match=r"class 1 is 'dark' in train_.* and 'dim' in val_"):
        check_set_classes(data_sets(cfg, "train", "val"))


def trained_on(*classes) -> dict:
    return dict(dataset_meta=dict(classes=classes))


def test_what_the_checkpoint_was_trained_on(detector_config):
    cfg = load_config(str(detector_config), {})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check_start(cfg, "a.pth", trained_on("bright", "dark"), True, "test")
        check_start(cfg, "a.pth", {}, True, "test")
    with pytest.raises(UserError, match=r"class 0 is 'dark' in checkpoint a\.pth's dataset_meta "
                                        r"and 'bright' in test_dataloader\.dataset"):  # fmt: skip
        check_start(cfg, "a.pth", trained_on("dark", "bright"), True, "test")
    with pytest.warns(UserWarning, match=r"another order"):
        check_start(cfg, "a.pth", trained_on("dark", "bright"), False, "train")
    with pytest.warns(UserWarning, match=r"class 1 is 'dim' in checkpoint"):
        check_start(cfg, "a.pth", trained_on("bright", "dim"), True, "test")


@pytest.mark.parametrize("options", [[], ["--weights", "averaged"], ["--prefix", "net."]])
def test_the_order_of_chosen_weights_is_compared(run_tool, detector_config, capsys, options):
    """The classes are those of the file's ``meta``, whichever of its weights are used."""
    weights = build_model(load_config(str(detector_config), {})).state_dict()
    held = {f"net.{name}": value for name, value in weights.items()} | weights
    content = dict(state_dict=held, averaged=weights, meta=trained_on("dark", "bright"))
    torch.save(content, detector_config.parent / "a.pth")
    with pytest.raises(SystemExit) as caught:
        run_tool("test", detector_config, "a.pth", *options)
    assert caught.value.code == 2
    assert "class 0 is 'dark' in checkpoint a.pth's dataset_meta" in capsys.readouterr().err


def test_what_fits_is_silent(detector_config):
    cfg = load_config(str(detector_config), {})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check_inputs(cfg, *SPLITS)
    check_model(cfg, build_model(cfg), *SPLITS)


@pytest.mark.parametrize("several", [False, True])
def test_labels_that_are_mixed(recognizer_config, several):
    cfg = load(recognizer_config)
    mix = dict(type="MixupBlending", num_classes=2)
    cfg.model.data_preprocessor.blending = (
        dict(type="RandomBatchAugment", augments=[mix, dict(mix)], probs=[0.5, 0.3])
        if several
        else mix
    )
    check_training_classes(build_model(cfg))
    blending = cfg.model.data_preprocessor.blending
    (blending.augments[1] if several else blending).num_classes = 3
    inner = r"\.augments\.1" if several else ""
    sentence = (
        rf"^model\.data_preprocessor\.blending{inner}\.num_classes is 3, but "
        r"model\.cls_head\.num_classes is 2"
    )
    with pytest.raises(UserError, match=sentence):
        check_training_classes(build_model(cfg))
