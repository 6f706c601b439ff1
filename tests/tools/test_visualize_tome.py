"""tools/visualize_tome.py on images and clips."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("timm")


@pytest.fixture
def photo(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), noise)
    return tmp_path / "photo.png"


@pytest.fixture
def video(tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 40)
    )
    for shade in range(12):
        writer.write(np.full((40, 48, 3), 20 * shade, np.uint8))
    writer.release()
    return tmp_path / "clip.avi"


def test_an_image_with_a_timm_model(run_tool, photo, tmp_path, capsys):
    out = tmp_path / "pictures" / "tokens.png"
    run_tool(
        "visualize_tome", photo, "--timm", "vit_tiny_patch16_224", "--r", "16", "--blocks", 0, 11,
        "--out", out,
    )  # fmt: skip
    assert f"wrote {out}" in capsys.readouterr().out
    assert cv2.imread(str(out)).shape == (224 + 18, 3 * 224 + 2 * 4, 3)


def test_a_clip_with_a_config(run_tool, video, recognizer_config, tmp_path):
    out = tmp_path / "tokens.png"
    run_tool(
        "visualize_tome", video, recognizer_config, "--out", out, "--cfg-options",
        "default_hooks.tome.type=mmvitaccel.ToMeHook", "default_hooks.tome.r=3",
    )  # fmt: skip
    # two blocks below the input, two tubelets of 32 pixels beside each other
    assert cv2.imread(str(out)).shape == (3 * (32 + 18) + 2 * 4, 2 * 32 + 4, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a config or --timm NAME"),
        (["--timm", "resnet10t"], "holds no supported vision transformer"),
        (["--timm", "vit_tiny_patch16_224", "--r", "many"], "--r many: give 8, 0.25"),
        (["--timm", "vit_tiny_patch16_224", "--r", "-4"], "r=-4 is negative"),
        (["--timm", "vit_tiny_patch16_224", "--blocks", "12"], "has blocks 0 to 11"),
        (["--timm", "vit_tiny_patch16_224", "--out", "a.mp4"], "--out a.mp4: give a name that en"),
        (
            ["--timm", "vit_tiny_patch16_224", "--out", "photo.png/a.png"],
            "photo.png: file exists; g",
        ),
    ],
)
def test_mistakes_are_a_sentence(run_tool, photo, arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_tool("visualize_tome", photo, *arguments)
    assert message in capsys.readouterr().err


def test_a_missing_image_is_named(run_tool, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_tool("visualize_tome", tmp_path / "no.jpg", "--timm", "vit_tiny_patch16_224")
    assert "no.jpg does not exist or cannot be read" in capsys.readouterr().err
