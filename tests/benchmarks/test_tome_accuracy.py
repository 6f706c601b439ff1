"""The accuracy benchmark on made-up digits, with a ViT that hardly learns."""

from __future__ import annotations

import json

import cv2
import pytest
import torch

from mmvitaccel import extras

pytest.importorskip("timm")


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("tome_accuracy")


@pytest.fixture
def split(benchmark):
    generator = torch.Generator().manual_seed(0)
    digits = torch.rand(64, 1, 24, 24, generator=generator).round()
    photos = torch.rand(2, 3, 40, 50, generator=generator)
    return benchmark.Split(digits, torch.arange(64) % 10, photos)


def test_digits_are_drawn_over_photographs_on_the_grid(benchmark, split):
    blank = split._replace(digits=torch.zeros_like(split.digits))
    pictures, grounds = (
        benchmark.draw(s, torch.Generator().manual_seed(3)) for s in (split, blank)
    )
    assert pictures.shape == (64, 3, 32, 32)
    assert grounds.min() >= -1
    assert grounds.max() <= 1
    for picture, ground, digit in zip(pictures, grounds, split.digits):
        changed = (picture != ground).any(dim=0)
        found = [
            (top, left)
            for top in (0, 4, 8)
            for left in (0, 4, 8)
            if torch.equal(changed[top : top + 24, left : left + 24], digit[0] > 0)
        ]
        assert len(found) == 1
        assert changed.sum() == digit.sum()
    assert (benchmark.draw(blank, torch.Generator(), contrast=0.0) == -1).all()


def test_train_sweep_and_write(benchmark, split, tmp_path):
    torch.manual_seed(0)
    model = benchmark.make_vit()
    before = model.blocks[0].attn.qkv.weight.clone()
    benchmark.train(model, split, epochs=1)
    assert not torch.equal(model.blocks[0].attn.qkv.weight, before)
    assert not model.training
    images = benchmark.draw(split, torch.Generator().manual_seed(1))
    rows = benchmark.sweep(model, images, split.labels, [0, 8, 32])
    assert [row["tokens"] for row in rows] == [65, 17, 2]
    dense = benchmark.accuracy(model, images, split.labels)
    assert all(rows[0][way] == dense for way in benchmark.WAYS)
    assert rows[0]["macs"] == 1 > rows[1]["macs"] > rows[2]["macs"]
    assert type(model).__module__.startswith("timm.")
    benchmark.write(rows, tmp_path)
    assert json.loads((tmp_path / "accuracy.json").read_text()) == rows
    assert (tmp_path / "accuracy.md").read_text().count("\n") == 2 + 3
    assert cv2.imread(str(tmp_path / "accuracy.png")).shape == (400, 600, 3)


def test_without_scikit_learn(benchmark, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(["--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "error: sklearn is not installed: pip install 'mmvitaccel[benchmarks]' "
        "(in a checkout: pip install -r requirements/benchmarks.txt)\n"
    )
