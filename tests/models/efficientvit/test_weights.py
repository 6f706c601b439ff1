"""Pretrained weights in every layout, and every way in which they can be the wrong ones."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest
import timm
import torch
from mmengine.model import BaseModule

from mmvitaccel.models.efficientvit.arch import ARCHS, name_arch
from mmvitaccel.models.efficientvit.attention import resize_biases
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.weights import describe_weights
from mmvitaccel.models.weights.checkpoint import find_weights, read_content

STAGE3_BIASES = "blocks3.3.mixer.m.attn.attention_biases"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def imagenet(randomise):
    """Weights as released for ImageNet: windows (7, 7, 4), and a head."""
    weights = dict(randomise(EfficientViT("m0", window_size=(7, 7, 4))).state_dict())
    weights["head.bn.weight"] = torch.ones(192)
    weights["head.l.weight"] = torch.ones(1000, 192)
    return weights


def read(path: str) -> dict[str, torch.Tensor]:
    return find_weights(read_content(path), path)


def saved(content: object, path: Path) -> str:
    torch.save(content, path)
    return str(path)


def pretrained(path: str, arch: str = "m0", **kwargs) -> EfficientViT:
    model = EfficientViT(arch, init_cfg=dict(type="Pretrained", checkpoint=path), **kwargs)
    model.init_weights()
    return model


def assert_loaded(model: EfficientViT, weights: dict[str, torch.Tensor]) -> None:
    """Every tensor is the checkpoint's, the bias tables of another window resized."""
    for key, value in model.state_dict().items():
        if "attention_bias_idxs" in key:
            continue
        expected = weights[key]
        if key.endswith("attention_biases"):
            expected = resize_biases(expected, round(value.shape[1] ** 0.5))
        torch.testing.assert_close(value, expected, rtol=0, atol=0, msg=key)


@pytest.mark.parametrize("layout", ["plain", "model", "state_dict", "distributed", "detector"])
def test_released_layouts_load_with_biases_resized(imagenet, tmp_path, layout):
    content = dict(imagenet)
    if layout in ("model", "state_dict"):
        content = {layout: content, "epoch": 300}
    elif layout == "distributed":
        content = {"model": {f"module.{k}": v for k, v in content.items()}}
    elif layout == "detector":
        content = {f"backbone.{k}": v for k, v in content.items()}
        content = {"state_dict": {**content, "neck.convs.weight": torch.ones(1)}, "meta": {}}
    path = saved(content, tmp_path / "weights.pth")
    model = pretrained(path)
    assert_loaded(model, imagenet)
    assert model.state_dict()[STAGE3_BIASES].shape == (4, 49)
    assert_loaded(pretrained(path, window_size=(7, 7, 4)), imagenet)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_timm_weights_load(randomise, tmp_path, suffix):
    theirs = randomise(timm.create_model("efficientvit_m0")).eval()
    path = tmp_path / f"timm.{suffix}"
    if suffix == "pth":
        torch.save(theirs.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(theirs.state_dict(), path)
    model = pretrained(str(path), window_size=(7, 7, 4)).eval()
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs.forward_features(images)
        torch.testing.assert_close(model(images)[-1], expected, rtol=1e-4, atol=1e-4)
        resized = pretrained(str(path)).state_dict()[STAGE3_BIASES]
        table = theirs.state_dict()["stages.2.blocks.0.mixer.m.attn.attention_biases"]
        torch.testing.assert_close(resized, resize_biases(table, 7))


def test_prefix_names_the_part_of_a_checkpoint(imagenet, tmp_path):
    content = {f"student.{k}": v for k, v in imagenet.items()}
    content.update({f"backbone.{k}": torch.zeros_like(v) for k, v in imagenet.items()})
    path = saved(content, tmp_path / "weights.pth")
    model = EfficientViT("m0", init_cfg=dict(type="Pretrained", checkpoint=path, prefix="student."))
    model.init_weights()
    assert_loaded(model, imagenet)


def test_pretrained_comes_after_other_initialisation_and_once(imagenet, tmp_path):
    path = saved(imagenet, tmp_path / "weights.pth")
    checkpoint = dict(type="Pretrained", checkpoint=path)
    model = EfficientViT("m0", init_cfg=[checkpoint, dict(type="Constant", layer="Conv2d", val=3)])
    model.init_weights()
    assert_loaded(model, imagenet)
    assert model.init_cfg[0] == checkpoint
    with torch.no_grad():
        model.patch_embed[0].c.weight.zero_()
    model.init_weights()
    assert not model.patch_embed[0].c.weight.any()


def test_initialised_inside_a_larger_model(imagenet, tmp_path):
    class Detector(BaseModule):
        def __init__(self, checkpoint: str) -> None:
            super().__init__()
            init_cfg = dict(type="Pretrained", checkpoint=checkpoint)
            self.backbone = EfficientViT("m0", init_cfg=init_cfg)

    model = Detector(saved(imagenet, tmp_path / "weights.pth"))
    model.init_weights()
    assert_loaded(model.backbone, imagenet)


def test_deploy_model_folds_what_it_loads(imagenet, tmp_path):
    path = saved(imagenet, tmp_path / "weights.pth")
    images = torch.rand(1, 3, 96, 96)
    plain, folded = pretrained(path).eval(), pretrained(path, deploy=True).eval()
    with torch.no_grad():
        for out, expected in zip(folded(images), plain(images)):
            torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    path = saved(folded.state_dict(), tmp_path / "folded.pth")
    assert_loaded(pretrained(path, deploy=True), folded.state_dict())
    with pytest.raises(
        ValueError, match=r"folded.pth: it has a folded BatchNorm, but.*deploy=True"
    ):
        pretrained(path)


def test_stages_that_are_not_built_are_left_out(imagenet, tmp_path):
    path = saved(imagenet, tmp_path / "weights.pth")
    assert_loaded(pretrained(path, out_indices=(0, 1)), imagenet)


def test_strict_loading_resizes_biases_too(imagenet):
    model = EfficientViT("m0", window_size=(7, 7, 7)).eval()
    weights = {k: v for k, v in imagenet.items() if not k.startswith("head")}
    model.load_state_dict(weights, strict=True)
    assert_loaded(model, imagenet)
    assert weights[STAGE3_BIASES].shape == (4, 16)


@pytest.mark.parametrize("arch", ARCHS)
def test_an_architecture_is_known_by_its_weights(arch):
    weights = EfficientViT(arch).state_dict()
    fields = describe_weights(weights)
    assert name_arch(fields) == arch
    heads = max(ARCHS[arch]["num_heads"])
    assert fields == {**ARCHS[arch], "kernels": ARCHS[arch]["kernels"][:heads]}


@pytest.mark.parametrize("arch", ["m1", "m4"])
def test_weights_of_another_arch_are_named(imagenet, tmp_path, arch):
    path = saved({"model": imagenet}, tmp_path / "weights.pth")
    message = (
        "weights.pth: it holds an EfficientViT-M0, but the model is an "
        f"EfficientViT-{arch.upper()}; set arch='m0'"
    )
    with pytest.raises(ValueError, match=message):
        pretrained(path, arch)


def test_weights_of_no_known_arch_are_named_by_a_shape(tmp_path):
    arch = {**ARCHS["m0"], "embed_dims": (64, 128, 256)}
    path = saved(EfficientViT(arch).state_dict(), tmp_path / "weights.pth")
    message = r"blocks3.1.conv3.c.weight' is \(256, 512, 1, 1\) in it and \(192, 512, 1, 1\) in"
    with pytest.raises(ValueError, match=message):
        pretrained(path)
    deeper = EfficientViT({**ARCHS["m0"], "depths": (2, 2, 3)}).state_dict()
    with pytest.raises(ValueError, match=r"not in EfficientViT-M0, first 'blocks1.1.dw0.m"):
        pretrained(saved(deeper, tmp_path / "deeper.pth"))


def test_biases_that_cannot_be_resized_are_an_error(imagenet, tmp_path):
    imagenet[STAGE3_BIASES] = torch.zeros(4, 15)
    with pytest.raises(ValueError, match=rf"'{STAGE3_BIASES}' is \(4, 15\) in it and \(4, 49\) in"):
        pretrained(saved(imagenet, tmp_path / "weights.pth"))


def test_missing_tensors_are_counted(imagenet, tmp_path):
    kept = {k: v for k, v in imagenet.items() if not k.startswith("blocks3.5.")}
    lost = [
        k for k in imagenet if k not in kept and not k.endswith(("idxs", "num_batches_tracked"))
    ]
    with pytest.raises(ValueError, match=rf"lacks {len(lost)} of the \d+ tensors .*'{lost[0]}'"):
        pretrained(saved(kept, tmp_path / "weights.pth"))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_file_cut_short_is_named(imagenet, tmp_path, part, legacy):
    path = tmp_path / "weights.pth"
    torch.save(imagenet, path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    model = EfficientViT("m0", init_cfg=dict(type="Pretrained", checkpoint=str(path)))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"weights.pth: the checkpoint is (empty|cut short)"):
        model.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_another_network_is_named(tmp_path):
    path = saved({"stem.weight": torch.ones(2), "layer1.weight": torch.ones(2)}, tmp_path / "r.pth")
    with pytest.raises(ValueError, match=r"no weights of EfficientViT-M0, .*\['layer1', 'stem'\]"):
        pretrained(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth: there is no such checkpoint file"):
        pretrained(str(tmp_path / "nowhere.pth"))


class Trap:
    """Unpickled by a careless reader, it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickled_object_never_runs(imagenet, tmp_path):
    trap = tmp_path / "sprung"
    content = pickle.loads(pickle.dumps(Trap(trap)))  # the trap works
    assert content is None and trap.is_dir()
    shutil.rmtree(trap)
    path = saved({**imagenet, "trap": Trap(trap)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights.pth: refused, because .* asks for \w+.mkdir"):
        pretrained(path)
    assert not trap.exists()


def test_content_that_is_no_state_dict_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"list.pth: it contains no state dict but a list"):
        read(saved([torch.ones(1)], tmp_path / "list.pth"))
    with pytest.raises(ValueError, match="contains no state dict, because 'epoch' is a int; save"):
        read(saved({"w": torch.ones(1), "epoch": 3}, tmp_path / "mixed.pth"))


def test_an_address_is_downloaded_once(imagenet, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = saved(imagenet, tmp_path / "source.pth")
    fetched = []

    def fetch(url: str, path: str, *args, **kwargs) -> None:
        fetched.append(url)
        shutil.copy(source, path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        assert_loaded(pretrained("https://example.org/zoo/m0.pth"), imagenet)
    assert fetched == ["https://example.org/zoo/m0.pth"]

    def fail(url: str, path: str, *args, **kwargs) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(
        FileNotFoundError, match=r"https://example.org/m1.pth: it could .* \(no route to host"
    ):
        pretrained("https://example.org/m1.pth", "m1")
