"""Shares of time: how operators are sorted, and that the profiler sees a model's own."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from mmvitaccel.analysis.op_profile import GROUPS, group_times, profile_shares


def test_operators_are_sorted_and_shares_sum_to_one():
    times = {"aten::addmm": 4.0, "aten::copy_": 2.0, "aten::relu": 1.0, "aten::view": 1.0}
    times |= {"aten::native_layer_norm": 2.0}
    assert group_times(times) == pytest.approx(
        dict(products=0.4, reshapes=0.2, elementwise=0.1, normalisation=0.2, other=0.1)
    )


def test_no_operator_is_in_two_groups_and_all_are_torchs():
    names = [name for group in GROUPS.values() for name in group.split()]
    assert len(names) == len(set(names))
    assert sum(hasattr(torch.ops.aten, name) for name in names) > 0.9 * len(names)


@pytest.mark.parametrize(
    ("model", "group"),
    [
        (nn.Conv2d(32, 64, 3), "products"),
        (nn.Linear(96, 512), "products"),
        (nn.ReLU(), "elementwise"),
        (nn.Softmax(-1), "elementwise"),
        (nn.LayerNorm(96), "normalisation"),
        (nn.BatchNorm2d(32).eval(), "normalisation"),
        (nn.ConstantPad2d(1, 0.0), "reshapes"),
    ],
)
def test_what_a_layer_does_is_its_group(model, group):
    shares, seconds = profile_shares(model, torch.randn(8, 32, 96, 96), rounds=2)
    assert sum(shares.values()) == pytest.approx(1)
    # Which share is the largest depends on the machine's load; which are there does not
    assert shares[group] > 0
    assert {name for name in shares if shares[name]} <= {group, "reshapes", "other"}
    assert seconds > 0


def test_tool(run_tool, tmp_path, capsys):
    options = ["--batch", 1, "--side", 224, "--rounds", 1, "--json", "f.json"]
    run_tool("analysis/profile_ops", "efficientvit_m0", "deit_tiny_patch16_224", *options)
    out = capsys.readouterr().out
    figures = json.loads((tmp_path / "f.json").read_text())
    assert list(figures) == ["efficientvit_m0", "deit_tiny_patch16_224"]
    for name, row in figures.items():
        bound = sum(row["shares"][g] for g in ("reshapes", "elementwise", "normalisation"))
        line = next(line for line in out.splitlines() if line.startswith(name))
        assert f"{bound:.1%}" in line
        assert row["shares"]["normalisation"] > 0
    with pytest.raises(SystemExit):
        run_tool("analysis/profile_ops", "deit_tiny_patch16_224", "--rounds", 0)
    assert "--rounds 0: give 1" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        run_tool("analysis/profile_ops", "deit_tiny_patch16_224", "--side", 7)
    assert exit_.value.code == 2
    assert "error: images of 7 x 7: " in capsys.readouterr().err
