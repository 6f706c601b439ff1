"""Which adapter serves a model."""

from __future__ import annotations

import dataclasses

import pytest
from torch import nn

from mmvitaccel.adapters.hosts import find
from mmvitaccel.adapters.hosts.find import ADAPTERS, find_adapter, supported, transformers_in


def test_names_are_unique_and_each_has_what_the_methods_need():
    names = [adapter.name for adapter in ADAPTERS]
    assert len(set(names)) == len(names)
    assert supported() == ", ".join(sorted(names))
    for adapter in ADAPTERS:
        assert adapter.classes
        assert adapter.specs
        assert adapter.entries


def test_an_unsupported_model_is_named_with_the_list():
    with pytest.raises(
        ValueError, match=r"torch\.nn\.modules\.conv\.Conv2d is not a supported"
    ) as e:
        find_adapter(nn.Conv2d(3, 3, 1))
    assert str(e.value).endswith(f"supported are: {supported()}.")


def test_a_refused_model_is_told_why(monkeypatch):
    class Strange(nn.Module):
        """Of a family that refuses it."""

    name = f"{Strange.__module__}.{Strange.__qualname__}"
    refusing = dataclasses.replace(ADAPTERS[0], classes=(name,), refuse=lambda m: "it is strange")
    monkeypatch.setattr(find, "ADAPTERS", (refusing,))
    with pytest.raises(ValueError, match="is not supported: it is strange"):
        find_adapter(Strange())


@pytest.mark.parametrize("name", ["use_rel_pos_bias", "use_shared_rel_pos_bias"])
def test_relative_biases_of_pairs_are_refused(name):
    backbones = pytest.importorskip("mmpretrain.models.backbones", reason="no mmpretrain here")
    arch = dict(embed_dims=32, num_layers=1, num_heads=4, feedforward_channels=64)
    biases = {"use_rel_pos_bias": False, name: True}
    model = backbones.BEiTViT(arch=arch, img_size=32, patch_size=8, **biases)
    with pytest.raises(ValueError, match=r"BEiTViT is not supported: its attention adds a bias fo"):
        find_adapter(model)


def test_transformers_inside_of_one_are_not_others():
    timm = pytest.importorskip("timm")
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32)
    holder = nn.ModuleDict(dict(first=vit, second=nn.Sequential(nn.Identity())))
    assert transformers_in(holder) == [("first", vit)]
    assert transformers_in(vit) == [("", vit)]
    assert transformers_in(nn.Linear(1, 1)) == []
