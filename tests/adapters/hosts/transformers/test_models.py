"""What is particular to the models of transformers; what all hosts share is in the contract."""

from __future__ import annotations

import copy
import sys

import pytest
import torch

from mmvitaccel import Always, TopK, apply_eventful, apply_tome
from mmvitaccel.adapters.attach import is_attached
from mmvitaccel.adapters.base import host_class
from tests.adapters import hf_models
from tests.adapters.conftest import scramble, timm_vit

pytestmark = pytest.mark.extras("hosts", "transformers")


def images(count=2, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def ready(model):
    return scramble(model).eval()


def by_steps(model, method):
    """ToMe or Eventful, such that nothing may change."""
    return apply_tome(model, 0) if method == "ToMe" else apply_eventful(model, Always())


METHODS = pytest.mark.parametrize("method", ["ToMe", "Eventful"])
BUILD = pytest.mark.parametrize(
    "build", [hf_models.vit, hf_models.dinov2, hf_models.clip, hf_models.sam, hf_models.vitdet]
)


def image_for(build):
    return images(1, 64 if build in (hf_models.sam, hf_models.vitdet) else 32)


def hf_from_timm(model):
    """A ViT of transformers with the weights of one of timm."""
    ours = hf_models.vit()
    weights = {
        "embeddings.cls_token": model.cls_token,
        "embeddings.position_embeddings": model.pos_embed,
        "embeddings.patch_embeddings.projection.weight": model.patch_embed.proj.weight,
        "embeddings.patch_embeddings.projection.bias": model.patch_embed.proj.bias,
        "layernorm.weight": model.norm.weight,
        "layernorm.bias": model.norm.bias,
    }
    for index, block in enumerate(model.blocks):
        parts = {
            "layernorm_before": block.norm1,
            "layernorm_after": block.norm2,
            "attention.o_proj": block.attn.proj,
            "mlp.fc1": block.mlp.fc1,
            "mlp.fc2": block.mlp.fc2,
        }
        for kind in ("weight", "bias"):
            for name, part in parts.items():
                weights[f"layers.{index}.{name}.{kind}"] = getattr(part, kind)
            for name, value in zip("qkv", getattr(block.attn.qkv, kind).chunk(3)):
                weights[f"layers.{index}.attention.{name}_proj.{kind}"] = value
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.startswith("pooler") for name in missing)
    return ours.eval()


@pytest.mark.parametrize("r", [0, 3])
def test_vit_merges_as_timms_with_the_same_weights(r):
    timm_model = ready(timm_vit(mlp_ratio=2))
    model, x = hf_from_timm(timm_model), images()
    apply_tome(timm_model, r)
    apply_tome(model, r)
    with torch.no_grad():
        expected, found = timm_model.forward_features(x), model(x).last_hidden_state
    # timm's norms add 1e-6 to the variance, these 1e-12
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@BUILD
def test_hidden_states_have_all_tokens_and_their_recorders_are_no_hooks(build):
    model, x = ready(build()), image_for(build)
    with torch.no_grad():
        plain = model(x).last_hidden_state
        expected = model(x, output_hidden_states=True).hidden_states
        handle = apply_tome(model, 3)
        last = model(x).last_hidden_state  # with the recorders that the call before put on
        merged = model(x, output_hidden_states=True)
        assert [t.shape for t in merged.hidden_states] == [t.shape for t in expected]
        torch.testing.assert_close(merged.last_hidden_state, last)
        torch.testing.assert_close(merged.hidden_states[0], expected[0])
        assert not torch.allclose(last, plain, atol=1e-4)
        handle.r = 0
        for a, b in zip(model(x, output_hidden_states=True).hidden_states, expected):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@METHODS
@BUILD
def test_attention_weights_are_refused(build, method):
    model, x = ready(build("eager") if build is not hf_models.vitdet else build()), image_for(build)
    by_steps(model, method)
    with pytest.raises(ValueError, match=r"called with output_attentions, but attention weights"):
        model(x, output_attentions=True)


@METHODS
@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
def test_other_attention_is_refused_by_name(attention, method):
    model = ready(hf_models.vit())
    model.config._attn_implementation_internal = attention
    with pytest.raises(
        ValueError, match=f"its attention is '{attention}', but only eager and sdpa"
    ):
        by_steps(model, method)
    model.config._attn_implementation_internal = "sdpa"
    by_steps(model, method)
    model.config._attn_implementation_internal = attention
    with pytest.raises(ValueError, match=f"with a method attached: its attention is '{attention}'"):
        model(images(1))


def test_versions_that_were_not_tested_say_so(monkeypatch):
    from mmvitaccel.adapters.hosts.transformers.common import TESTED

    model = ready(hf_models.vit())
    # transformers replaces its own module while it is imported
    transformers = sys.modules["transformers"]
    major, minor = TESTED.split(".")[:2]
    monkeypatch.setattr(transformers, "__version__", f"{int(major) - 1}.57.6")
    with pytest.raises(ValueError, match=r"from transformers \d+\.57\.6, whose models differ"):
        apply_tome(model, 2)
    monkeypatch.setattr(transformers, "__version__", f"{major}.{int(minor) + 1}.0")
    with pytest.warns(
        UserWarning, match=rf"comes from transformers .*; the tested version is {TESTED}"
    ):
        apply_tome(model, 2).remove()


@METHODS
def test_masks_are_refused(method):
    model = ready(hf_models.vit())
    by_steps(model, method)
    mask = torch.ones(1, 17, dtype=torch.bool)
    mask[:, -3:] = False
    with pytest.raises(ValueError, match="ViTLayer was called with an attention mask"):
        model(images(1), attention_mask=mask)


def test_an_attention_of_ones_own_is_refused():
    model = ready(hf_models.vit())
    kind = type(model.layers[1].attention)

    class Mine(kind):
        def forward(self, hidden_states, attention_mask=None, **kwargs):
            return hidden_states, None

    model.layers[1].attention.__class__ = Mine
    with pytest.raises(ValueError, match=r"its attention is .*Mine, known are .*\.ViTAttention"):
        apply_tome(model, 2)


@METHODS
@pytest.mark.parametrize(
    "build",
    [hf_models.vit, hf_models.dinov2, hf_models.dinov3, hf_models.clip, hf_models.sam],
)
def test_a_saved_model_has_the_hosts_own_class_name_and_weights(tmp_path, build, method):
    model, x = ready(build()), image_for(build)
    with torch.no_grad():
        expected = model(x).last_hidden_state
    name = type(model).__name__
    assert is_attached(by_steps(model, method).model, method)
    model.save_pretrained(tmp_path)
    assert f'"{name}"' in (tmp_path / "config.json").read_text()
    again = host_class(model).from_pretrained(tmp_path).eval()
    assert not is_attached(again)
    with torch.no_grad():
        torch.testing.assert_close(again(x).last_hidden_state, expected)


def gradients(model, x):
    model.zero_grad()
    model(x).last_hidden_state.square().sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@BUILD
@pytest.mark.parametrize("reentrant", [True, False])
def test_the_hosts_own_gradient_checkpointing(build, reentrant):
    model, x = ready(build()).train(), image_for(build).requires_grad_()
    apply_tome(model, [3, 1, 2])
    expected = gradients(model, x)
    model.gradient_checkpointing_enable(dict(use_reentrant=reentrant))
    assert model.is_gradient_checkpointing
    found = gradients(model, x)
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        tolerance = 1e-5 * max(1.0, grad.abs().max().item())
        torch.testing.assert_close(found[name], grad, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "build",
    [
        hf_models.vit,
        hf_models.dinov2,
        hf_models.dinov3,
        hf_models.clip,
        hf_models.siglip,
        hf_models.sam,
        hf_models.vitdet,
    ],
)
def test_compiles_without_graph_breaks(build):
    model, x = ready(build()), image_for(build)
    apply_tome(model, 2)
    with torch.no_grad():
        expected = model(x).last_hidden_state
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x).last_hidden_state, expected)
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("build", [hf_models.vit, hf_models.dinov3, hf_models.clip, hf_models.sam])
@torch.no_grad()
def test_eventful_in_half_precision(build, dtype):
    model = ready(build()).to(dtype)
    frames = [(image_for(build) + 0.1 * number).to(dtype) for number in range(3)]
    expected = [model(frame).last_hidden_state for frame in frames]
    handle = apply_eventful(model, Always())
    for frame, wanted in zip(frames, expected):
        found = model(frame).last_hidden_state
        assert found.dtype == dtype
        tolerance = 8 * torch.finfo(dtype).eps * wanted.abs().max().item()
        torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)
    handle.policy = TopK(6)
    assert model(frames[0]).last_hidden_state.isfinite().all()
    assert handle.frames[0].passed == [(6, 6, 6)] * 3


def test_tome_in_models_that_hold_a_tower():
    import transformers

    model = ready(hf_models.vit(name="ViTForImageClassification", num_labels=5))
    with torch.no_grad():
        expected = model(images()).logits
        handle = apply_tome(model, 3)
        assert type(handle.model).__name__ == "ViTModel"
        assert model(images()).logits.shape == expected.shape
        assert handle.info.tokens == [14, 11, 8]
        handle.r = 0
        torch.testing.assert_close(model(images()).logits, expected)

    text = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    vision = dict(hf_models.IMAGE, intermediate_size=64)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    model = ready(transformers.CLIPModel(config))
    with torch.no_grad():
        expected = model.get_image_features(images()).pooler_output
        handle = apply_tome(model, 0)
        assert type(handle.model).__name__ == "CLIPVisionModel"
        torch.testing.assert_close(model.get_image_features(images()).pooler_output, expected)


def llava():
    import transformers

    text = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=50,
    )
    vision = transformers.CLIPVisionConfig(**hf_models.IMAGE, intermediate_size=64)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=49, image_seq_length=16
    )
    return ready(transformers.LlavaForConditionalGeneration(config))


def test_a_vision_language_model_generates_the_same_tokens():
    model, x = llava(), images(1)
    prompt = torch.tensor([[1, *[49] * 16, 5, 6]])

    def generated():
        with torch.no_grad():
            return model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                pixel_values=x,
                max_new_tokens=8,
                do_sample=False,
            )

    expected = generated()
    handle = apply_tome(model, 0)
    assert torch.equal(generated(), expected)
    handle.r = 4
    assert generated().shape == expected.shape
    # the features are those behind the last block but one, with all tokens
    assert handle.info.tokens == [13, 9, 5]


def test_sam_on_a_video_takes_its_prompts_as_before():
    import transformers

    vision = dict(hf_models.IMAGE, image_size=64, window_size=5, global_attn_indexes=[1])
    vision.update(mlp_dim=64, output_channels=16, num_pos_feats=8)
    prompt = dict(hidden_size=16, image_size=64, patch_size=8, mask_input_channels=4)
    mask = dict(hidden_size=16, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=mask
    )
    model = ready(transformers.SamModel(config))
    frames = [images(1, 64) + 0.1 * i for i in range(3)]
    points = torch.tensor([[[[20.0, 30.0]]]])
    with torch.no_grad():
        expected = [model(frame, input_points=points).pred_masks for frame in frames]
        handle = apply_eventful(model, Always())
        for frame, wanted in zip(frames, expected):
            with handle.stream("a"):
                found = model(frame, input_points=points).pred_masks
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        handle.policy = TopK(6)
        with handle.stream("a"):
            embeddings = model.get_image_embeddings(frames[0])
        assert handle.frames[0].passed == [(6, 6, 6)] * 3
        masks = model(image_embeddings=embeddings, input_points=points).pred_masks
    assert masks.shape == expected[0].shape


def test_a_clip_of_one_stream_gives_the_hosts_own_kind_of_output():
    from mmvitaccel.core.eventful.frame import Clips, Frame, streams

    model, x = ready(hf_models.vit()), images(3)
    alone = copy.deepcopy(model)
    apply_eventful(model, TopK(3))
    handle = apply_eventful(alone, TopK(3))
    with torch.no_grad():
        with streams(Clips([[Frame("a", i) for i in range(3)]])):
            together = model(x)
        assert type(together).__name__ == "BaseModelOutputWithPooling"
        for index, frame in enumerate(x):
            with handle.stream("a"):
                expected = alone(frame[None]).last_hidden_state
            torch.testing.assert_close(together.last_hidden_state[index : index + 1], expected)
