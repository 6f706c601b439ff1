"""ToMeHook in mmengine's Runner."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmengine.runner import Runner

from mmvitaccel.adapters.attach import is_attached, link
from mmvitaccel.compat.checkpoint import safe_load
from mmvitaccel.hooks import ToMeHook


class Watch(Hook):
    """What of ToMe there is at each step."""

    priority = "LOWEST"

    def __init__(self):
        self.seen = {}

    def _note(self, runner, stage):
        model = getattr(runner.model, "module", runner.model)
        on = is_attached(model.backbone, "ToMe")
        trace = link(model.backbone).state.traces.last if on else None
        tokens = [trace.behind[i].size.shape[1] for i in sorted(trace.behind)] if trace else None
        self.seen.setdefault(stage, tokens)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._note(runner, "train")
        self.loss = outputs["loss"].item()

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._note(runner, "val")

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._note(runner, "test")


def load(config, tmp_path, **changes):
    cfg = Config.fromfile(config)
    cfg.work_dir = str(tmp_path / "work")
    cfg.merge_from_dict(changes)
    return cfg


def bare_model(config, tmp_path):
    pytest.importorskip("mmaction")
    with DefaultScope.overwrite_default_scope("mmaction"):
        return MODELS.build(load(config, tmp_path).model)


TYPE = "default_hooks.tome.type"
FROM_COMMAND_LINE = {
    TYPE: "mmvitaccel.ToMeHook",
    "default_hooks.tome.r": 2,
}


def run(cfg, job):
    runner = Runner.from_cfg(cfg)
    watch = Watch()
    runner.register_hook(watch)
    getattr(runner, job)()
    return runner, watch


def test_it_merges_in_training_and_validation_and_leaves_nothing(recognizer_config, tmp_path):
    runner, watch = run(load(recognizer_config, tmp_path, **FROM_COMMAND_LINE), "train")
    assert watch.seen == dict(train=[6, 4], val=[6, 4])
    assert not is_attached(runner.model.backbone)
    saved = safe_load(str(tmp_path / "work" / "epoch_1.pth"))["state_dict"]
    bare = bare_model(recognizer_config, tmp_path)
    bare.load_state_dict(saved, strict=True)


def test_it_merges_in_testing(recognizer_config, tmp_path):
    cfg = load(recognizer_config, tmp_path)
    cfg.custom_hooks = [dict(type="mmvitaccel.ToMeHook", r=[3, 0])]
    _, watch = run(cfg, "test")
    assert watch.seen == dict(test=[5, 5])


def test_training_goes_on_after_testing_in_one_process(recognizer_config, tmp_path):
    runner, watch = run(load(recognizer_config, tmp_path, **FROM_COMMAND_LINE), "test")
    runner.train()
    assert watch.seen == dict(test=[6, 4], train=[6, 4], val=[6, 4])


def test_mixed_precision_and_checkpointing_train(recognizer_config, tmp_path):
    cfg = load(recognizer_config, tmp_path, **FROM_COMMAND_LINE)
    cfg.optim_wrapper.type = "mmvitaccel.BFloat16OptimWrapper"
    cfg.activation_checkpointing = ["backbone.blocks.0", "backbone.blocks.1"]
    runner, watch = run(cfg, "train")
    assert watch.seen == dict(train=[6, 4], val=[6, 4])
    fresh = bare_model(recognizer_config, tmp_path).state_dict()
    moved = [n for n, v in runner.model.state_dict().items() if not torch.equal(v, fresh[n])]
    assert "backbone.blocks.0.attn.qkv.weight" in moved
    assert all(torch.isfinite(v).all() for v in runner.model.state_dict().values())


def test_gradients_with_checkpointing_are_those_without(recognizer_config, tmp_path):
    losses = []
    for names in ([], ["backbone.blocks.0", "backbone.blocks.1"]):
        cfg = load(recognizer_config, tmp_path, **FROM_COMMAND_LINE)
        cfg.activation_checkpointing = names
        cfg.train_cfg.max_epochs = 2
        runner, watch = run(cfg, "train")
        losses.append((watch.loss, runner.model.backbone.blocks[0].attn.qkv.weight.clone()))
    assert losses[0][0] == losses[1][0]
    torch.testing.assert_close(losses[0][1], losses[1][1], rtol=1e-5, atol=1e-7)


def test_a_moving_average_merges_too(recognizer_config, tmp_path):
    cfg = load(recognizer_config, tmp_path, **FROM_COMMAND_LINE)
    cfg.custom_hooks = [dict(type="EMAHook")]
    _, watch = run(cfg, "train")
    assert watch.seen == dict(train=[6, 4], val=[6, 4])


def test_a_detector_with_a_timm_backbone(detector_config, tmp_path):
    pytest.importorskip("timm")
    cfg = load(detector_config, tmp_path)
    cfg.model.backbone = dict(
        type="mmvitaccel.TIMMBackbone",
        model_name="vit_tiny_patch16_224",
        features_only=True,
        out_indices=(0, 1),
        img_size=64,
        depth=2,
        embed_dim=32,
        num_heads=2,
    )
    cfg.model.neck.in_channels = [32, 32]
    cfg.default_hooks.tome = dict(type="mmvitaccel.ToMeHook", r=3)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert not is_attached(runner.model.backbone.timm_model.model)


def test_the_prefix_alone_imports_the_package():
    code = (
        "from mmengine.config import Config, DictAction\n"
        "from mmengine.registry import HOOKS\n"
        "cfg = Config(dict(default_hooks=dict(timer=dict(type='IterTimerHook'))))\n"
        "cfg.merge_from_dict({'default_hooks.tome.type': 'mmvitaccel.ToMeHook',\n"
        "                     'default_hooks.tome.r': DictAction._parse_iterable('13')})\n"
        "hook = HOOKS.build(cfg.default_hooks.tome)\n"
        "assert type(hook).__name__ == 'ToMeHook' and hook.r == 13, hook\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_attach_gives_a_handle_that_takes_it_off(recognizer_config, tmp_path):
    model = bare_model(recognizer_config, tmp_path)
    kind = type(model.backbone)
    hook = HOOKS.build(dict(type="mmvitaccel.ToMeHook", r=1, target="backbone"))
    assert isinstance(hook, ToMeHook)
    handle = hook.attach(model)
    assert handle.model is model.backbone
    assert handle.r == 1
    handle.remove()
    assert type(model.backbone) is kind


def test_a_config_without_a_transformer_is_told_so(detector_config, tmp_path):
    cfg = load(detector_config, tmp_path, **FROM_COMMAND_LINE)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match=r"no supported vision transformer in its backbone \(mmd"):
        runner.train()


def test_the_test_tool_merges_from_the_command_line_alone(recognizer_config, tmp_path, run_tool):
    weights = tmp_path / "weights.pth"
    torch.save(dict(state_dict=bare_model(recognizer_config, tmp_path).state_dict()), weights)
    scores = {}
    for name, r in (("dense", None), ("r0", 0), ("r3", 3)):
        hook = [] if r is None else [f"default_hooks.tome.type={FROM_COMMAND_LINE[TYPE]}"]
        hook += [] if r is None else [f"default_hooks.tome.r={r}"]
        options = ["--cfg-options", *hook] if hook else []
        run_tool("test", recognizer_config, weights, "--out", f"{name}.pkl", *options)
        predictions = pickle.loads((tmp_path / f"{name}.pkl").read_bytes())
        scores[name] = torch.stack([p["pred_score"] for p in predictions])
    torch.testing.assert_close(scores["r0"], scores["dense"], atol=1e-6, rtol=0)
    assert (scores["r3"] - scores["dense"]).abs().max() > 1e-4


def test_two_processes_train_from_the_command_line_alone(recognizer_config, tmp_path):
    root = Path(__file__).parents[2]
    tool = [str(root / "tools" / "train.py"), str(recognizer_config), "--launcher", "pytorch"]
    tool += ["--work-dir", str(tmp_path / "w")]
    tool += ["--cfg-options", *(f"{key}={value}" for key, value in FROM_COMMAND_LINE.items())]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    for _ in range(2):
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
        launch += ["--master_port", str(free_port()), *tool]
        done = subprocess.run(
            launch, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
        )
        # On a machine that is overloaded a rank was seen to end like this, in C++, once in
        # a while; the cause is not known.
        if "terminate called without an active exception" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ToMe: r=2 in backbone (VisionTransformer)" in done.stdout + done.stderr
    saved = safe_load(str(tmp_path / "w" / "epoch_1.pth"))["state_dict"]
    bare = bare_model(recognizer_config, tmp_path)
    bare.load_state_dict(saved, strict=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
