"""Weights that were saved through a wrapper, and files with more than one set of them."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.vitdet.backbone import ViTDet
from mmvitaccel.models.vivit.backbone import ViViT
from mmvitaccel.models.weights.checkpoint import weight_entries
from mmvitaccel.models.weights.wrapped import USUAL, Choice, choose_weights

OWN = {"backbone.0.weight": torch.ones(1), "head.bias": torch.zeros(1)}
SMALL = dict(embed_dims=(16, 24, 32), depths=(1, 1, 1), num_heads=(2, 3, 2), kernels=(5, 3, 3))
BACKBONES = [
    (EfficientViT, dict(arch=SMALL)),
    (
        ViTDet,
        dict(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3, pretrain_img_size=32)
        | dict(window_block_indexes=()),
    ),
    (
        ViViT,
        dict(img_size=16, num_frames=2, tubelet_size=(2, 8, 8), embed_dim=24, spatial_depth=1)
        | dict(temporal_depth=1, num_heads=3),
    ),
]


def named(prefix, weights=OWN):
    return {f"{prefix}{name}": value for name, value in weights.items()}


@pytest.mark.parametrize(
    "content",
    [
        named("_orig_mod."),
        dict(state_dict=named("model.")),
        dict(state_dict=named("model._orig_mod.")),
        dict(state_dict=named("module.")),
        dict(state_dict=named("_orig_mod.module.")),
        dict(state_dict=named("_forward_module.model.")),
        dict(net=named("net."), optimizer=dict(state={0: dict(step=torch.ones(1))})),
        {"backbone._orig_mod.0.weight": OWN["backbone.0.weight"], "head.bias": OWN["head.bias"]},
        dict(model=named("module."), lr_scheduler=dict(last_epoch=3)),
        dict(state_dict=dict(state_dict=OWN, meta=dict(epoch=1)), meta={}),
        dict(model=dict(state_dict=named("model."))),
    ],
)
def test_a_wrapper_is_recognised(content):
    assert choose_weights(content, "x.pth", OWN, USUAL) == OWN


def test_the_rest_of_a_lightning_module_is_left_out():
    content = dict(state_dict=named("model.") | {"loss.weight": torch.ones(3)})
    assert choose_weights(content, "x.pth", OWN, USUAL) == OWN


def test_a_model_that_has_such_names_itself_keeps_them():
    own = named("model.")
    assert choose_weights(dict(state_dict=own), "x.pth", own, USUAL) == own
    plain = named("", {"model.x.weight": torch.ones(1), "x.weight": torch.zeros(1)})
    assert choose_weights(plain, "x.pth", plain, USUAL) == plain


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (named("teacher."), r"the prefix 'teacher\.' in it; select one with --prefix teacher\."),
        (
            named("student.") | named("teacher."),
            r"prefix 'student\.' and 'teacher\.' in it",
        ),
        (named("task.learner."), r"with --prefix task\.learner\., or .*prefix='task\.learner\.'"),
    ],
)
def test_prefixes_of_no_wrapper_are_named(weights, said):
    with pytest.raises(ValueError, match=said):
        choose_weights(dict(state_dict=weights), "x.pth", OWN, USUAL)


def test_another_models_names_are_left_as_they_are():
    other = {"stages.0.weight": torch.ones(1), "stages.head.bias": torch.ones(1)}
    assert choose_weights(other, "x.pth", OWN, USUAL).keys() == other.keys()


def test_a_prefix_that_is_given_is_taken():
    content = dict(state_dict=named("student.") | named("teacher."))
    assert choose_weights(content, "x.pth", OWN, Choice(prefix="teacher.")) == OWN
    with pytest.raises(ValueError, match=r"x\.pth: no name in it begins with 'tutor\.'"):
        choose_weights(content, "x.pth", OWN, Choice(prefix="tutor."))


@pytest.mark.parametrize("key", ["ema_state_dict", "model_ema", "state_dict_ema", "ema"])
def test_averaged_weights_in_the_file_are_said_and_can_be_taken(key, capfd):
    average = {name: value + 5 for name, value in OWN.items()}
    content = {"state_dict": OWN, key: named("module.", average) | {"steps": torch.tensor(2)}}
    assert choose_weights(content, "x.pth", OWN, USUAL) == OWN
    said = "".join(capfd.readouterr())
    assert "x.pth: loading 'state_dict'; the file has other weights too, which are" in said
    assert f"--weights {key}" in said
    taken = choose_weights(content, "x.pth", OWN, Choice(entry=key))
    assert {name: taken[name] for name in OWN} == average
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    "content",
    [
        dict(state_dict=OWN, meta=dict(epoch=3), optimizer=dict(state={0: dict(step=OWN)})),
        dict(model=OWN),
        dict(net=OWN, epoch=3),
        OWN,
    ],
)
def test_of_a_file_with_one_set_nothing_is_said(content, capfd):
    assert choose_weights(content, "x.pth", OWN, USUAL) == OWN
    assert "".join(capfd.readouterr()) == ""


def test_mmengine_saves_the_average_as_the_model(capfd):
    content = dict(state_dict=OWN, ema_state_dict=named("module."), meta=dict(mmengine_version="1"))
    choose_weights(content, "x.pth", OWN, USUAL)
    assert "EMAHook saves the average as 'state_dict'" in "".join(capfd.readouterr())


def test_both_in_one_state_dict_are_said(capfd):
    average = {name: value + 5 for name, value in OWN.items()}
    content = dict(state_dict=named("model.") | named("ema_model.", average))
    assert choose_weights(content, "x.pth", OWN, USUAL) == OWN
    assert "with the prefix 'model.'" in (said := "".join(capfd.readouterr()))
    assert "--prefix ema_model." in said
    assert choose_weights(content, "x.pth", OWN, Choice(prefix="ema_model.")) == average


def test_weights_that_cannot_be_told_apart_are_refused():
    content = dict(student=OWN, teacher=OWN, epoch=3)
    with pytest.raises(ValueError, match=r"weights under 'student', 'teacher'; select one"):
        choose_weights(content, "x.pth", OWN, USUAL)
    with pytest.raises(ValueError, match=r"no weights under 'ema'; .*: student, teacher\."):
        choose_weights(content, "x.pth", OWN, Choice(entry="ema"))
    twice = {"x.weight": torch.ones(1), "_orig_mod.x.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"'x\.weight' and '_orig_mod\.x\.weight' are the same"):
        choose_weights(twice, "x.pth", OWN, USUAL)


def test_states_of_other_parts_are_no_weights():
    held = dict(state_dict=OWN, optimizer=dict(state={}), rng=dict(cpu=torch.ones(3)), meta={})
    assert weight_entries(held) == ["state_dict"]
    assert weight_entries([OWN]) == []


@pytest.mark.parametrize(("kind", "size"), BACKBONES, ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.parametrize("prefix", ["_orig_mod.", "model.", "model._orig_mod.backbone.", "module."])
def test_pretrained_backbones(kind, size, prefix, tmp_path):
    torch.manual_seed(0)
    weights = {n: torch.randn_like(v) if v.is_floating_point() else v
               for n, v in kind(**size).state_dict().items()}  # fmt: skip
    torch.save(dict(state_dict=named(prefix, weights)), tmp_path / "x.pth")
    model = kind(**size, init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "x.pth")))
    model.init_weights()
    assert all(torch.equal(value, weights[n]) for n, value in model.state_dict().items())


@pytest.mark.parametrize(("kind", "size"), BACKBONES, ids=lambda v: getattr(v, "__name__", ""))
def test_averaged_weights_for_a_backbone(kind, size, tmp_path):
    torch.manual_seed(0)
    plain = dict(kind(**size).state_dict())
    average = {n: v + 1 if v.is_floating_point() else v for n, v in plain.items()}
    torch.save(dict(model=plain, model_ema=named("module.", average)), tmp_path / "x.pth")
    cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "x.pth"), weights="model_ema")
    model = kind(**size, init_cfg=cfg)
    model.init_weights()
    assert all(torch.equal(value, average[n]) for n, value in model.state_dict().items())
