"""Checkpoints: what the Runner saves is read, what could run code or is damaged is refused."""

from __future__ import annotations

import argparse
import functools
import io
import pickle
import threading
from collections import OrderedDict
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, load_checkpoint
from torch import nn

import mmvitaccel  # noqa: F401  (guards mmengine's loaders)
from mmvitaccel.compat.checkpoint import load_url, safe_load


class Reduced:
    """Pickles as the call of any function, or as the change of any object."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def new_format(content: Any, path: Path) -> None:
    torch.save(content, path)


def old_format(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def write_file(marker: Path) -> Reduced:
    return Reduced(exec, (f"open({str(marker)!r}, 'w').write('ran')",))


def read_mapped(path: Path) -> Any:
    return safe_load(path, "cpu")


def read_by_mmengine(path: Path) -> Any:
    return mmengine_checkpoint._load_checkpoint(str(path), map_location="cpu")


def load_into_model(path: Path) -> Any:
    return load_checkpoint(nn.Linear(2, 2), str(path), map_location="cpu")


def read_stream(path: Path) -> Any:
    return safe_load(io.BytesIO(path.read_bytes()))


@pytest.fixture
def server(tmp_path: Path):
    """Serves tmp_path on this machine; gives its address."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *args: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def own_default_scope(monkeypatch) -> None:
    """A Runner sets the scope of the process; the tests after these have theirs."""
    monkeypatch.setattr(DefaultScope, "_instance_dict", OrderedDict())


# ---------------------------------------------------------------- what could run code is refused


@pytest.mark.parametrize("read", [read_mapped, read_stream, read_by_mmengine, load_into_model])
@pytest.mark.parametrize("save", [new_format, old_format, plain_pickle])
def test_hostile_pickle_does_not_run(read, save, tmp_path: Path) -> None:
    path, marker = tmp_path / "hostile.pth", tmp_path / "marker"
    save({"state_dict": {"weight": np.zeros((2, 2))}, "meta": write_file(marker)}, path)
    with pytest.raises(ValueError, match=r"refused, because the file asks for builtins\.exec"):
        read(path)
    assert not marker.exists()


def test_the_hostile_pickle_would_have_run(tmp_path: Path) -> None:
    # Otherwise the test above would pass with a harmless file.
    path, marker = tmp_path / "hostile.pth", tmp_path / "marker"
    new_format(write_file(marker), path)
    torch.load(path, weights_only=False)
    assert marker.read_text() == "ran"


def test_refusal_names_the_file_and_the_global(tmp_path: Path) -> None:
    path = tmp_path / "named.pth"
    new_format(Reduced(argparse.FileType, ("w",)), path)
    with pytest.raises(ValueError, match=r"named\.pth: refused.*asks for argparse\.FileType"):
        safe_load(path)


@pytest.mark.parametrize("save", [new_format, old_format, plain_pickle])
@pytest.mark.parametrize(
    ("owner", "name"),
    [(HistoryBuffer, "__init__"), (HistoryBuffer, "__reduce_ex__"), (OrderedDict, "fromkeys")],
)
def test_getattr_gives_statistics_only(save, owner: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / "getattr.pth"
    save(Reduced(getattr, (owner, name)), path)
    with pytest.raises(ValueError, match=r"asks for builtins\.getattr"):
        safe_load(path)


@pytest.mark.parametrize("save", [new_format, old_format, plain_pickle])
def test_arrays_of_objects_are_refused(save, tmp_path: Path) -> None:
    path = tmp_path / "objects.pth"
    save(np.array([{}, None], dtype=object), path)
    with pytest.raises(ValueError, match=r"asks for numpy\.dtype\('O8'\)"):
        safe_load(path)


def test_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(ValueError, match=r"scripted\.pt: refused.*TorchScript"):
        safe_load(path)


def test_hostile_download_does_not_run(server: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    new_format(write_file(marker), tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match=r"asks for builtins\.exec"):
        load_url(f"{server}/hostile.pth", str(tmp_path / "hub"), progress=False)
    assert not marker.exists()


def test_mmengine_downloads_safely(server: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    marker = tmp_path / "marker"
    new_format(write_file(marker), tmp_path / "hostile.pth")
    new_format({"weight": torch.ones(3)}, tmp_path / "good.pth")
    with pytest.raises(ValueError, match=r"asks for builtins\.exec"):
        mmengine_checkpoint._load_checkpoint(f"{server}/hostile.pth")
    assert not marker.exists()
    for _ in range(2):  # downloaded, then found
        loaded = mmengine_checkpoint._load_checkpoint(f"{server}/good.pth")
        torch.testing.assert_close(loaded["weight"], torch.ones(3))


def test_mmengine_reads_object_stores_safely(tmp_path: Path, monkeypatch) -> None:
    marker, stored = tmp_path / "marker", io.BytesIO()
    torch.save(write_file(marker), stored)

    class Store:
        def get(self, name: str) -> bytes:
            return stored.getvalue()

    monkeypatch.setattr(mmengine_checkpoint, "get_file_backend", lambda *args, **kwargs: Store())
    with pytest.raises(ValueError, match=r"asks for builtins\.exec"):
        mmengine_checkpoint._load_checkpoint("s3://bucket/hostile.pth")
    assert not marker.exists()


# --------------------------------------------------------------------- damaged files are explained


@pytest.mark.parametrize("read", [read_mapped, read_by_mmengine])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"broken\.pth: the checkpoint is empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", r"begins with b'<!DOCTYPE html.*download again"),
        (b"404: Not Found", r"broken\.pth: this is not a checkpoint, it begins with b'404: Not F"),
        (b"\x80\x02}q", r"broken\.pth: the checkpoint is cut short, damaged"),
        (b"PK\x03\x04 no archive", r"broken\.pth: the checkpoint is cut short, damaged"),
    ],
)
def test_what_is_no_checkpoint(read, content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("save", [new_format, old_format, plain_pickle])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_cut_short(save, part: float, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    content = torch.randn(64, 64) if save is not plain_pickle else np.arange(900.0)
    save({"weight": content}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ValueError, match=r"cut\.pth: the checkpoint is cut short") as error:
        safe_load(path)
    assert "\n" not in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: there is no such checkpoint"):
        safe_load(tmp_path / "nowhere.pth")


def test_cut_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "w.safetensors"
    safetensors.save_file({"weight": torch.ones(9)}, path)
    torch.testing.assert_close(safe_load(path)["weight"], torch.ones(9))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"w\.safetensors: the checkpoint is cut short"):
        safe_load(path)


# -------------------------------------------------------------------------- honest files are read


@pytest.mark.parametrize("save", [new_format, old_format])
def test_what_training_scripts_save(save, tmp_path: Path) -> None:
    linear = nn.Linear(3, 2)
    linear.bias.tagged = "kept"
    optimizer = torch.optim.AdamW(linear.parameters())
    linear(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "script.pth"
    content = {
        "model": linear.state_dict(),
        "parameter": linear.bias,
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, data="coco"),
        "best": np.float64(0.25),
        "seen": {1, 2},
        "shape": torch.Size([1, 2]),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "blob": b"\x00\xff",
    }
    save(content, path)
    loaded = safe_load(path, "cpu")
    assert loaded.keys() == content.keys()
    for key in ("seen", "shape", "dtype", "device", "blob", "best"):
        assert loaded[key] == content[key]
    assert vars(loaded["args"]) == {"lr": 0.1, "data": "coco"}
    torch.testing.assert_close(loaded["model"], content["model"], rtol=0, atol=0)
    torch.testing.assert_close(loaded["parameter"], content["parameter"], rtol=0, atol=0)
    torch.testing.assert_close(
        loaded["optimizer"]["state"], content["optimizer"]["state"], rtol=0, atol=0
    )


@pytest.mark.parametrize("save", [new_format, old_format, plain_pickle])
@pytest.mark.parametrize("dtype", ["?", "u1", "i4", "i8", "f2", "f4", "f8", "c8", "U3", "S3"])
def test_arrays_of_every_plain_type(save, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "arrays.pkl"
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    save({"model": {"weight": array, "first": array[0, 0]}}, path)
    loaded = safe_load(path)["model"]
    np.testing.assert_array_equal(loaded["weight"], array)
    assert loaded["weight"].dtype == array.dtype
    assert loaded["first"] == array[0, 0]


def test_names_of_both_numpys(tmp_path: Path) -> None:
    path = tmp_path / "arrays.pth"
    array = np.arange(6.0)
    for theirs in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        code = pickle.dumps({"weight": array}, protocol=2)
        path.write_bytes(
            code.replace(b"numpy._core.multiarray", b"numpy.core.multiarray").replace(
                b"numpy.core.multiarray", theirs
            )
        )
        np.testing.assert_array_equal(safe_load(path)["weight"], array)


class TinyModel(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1, bias=False)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, inputs: torch.Tensor, mode: str = "tensor") -> Any:
        output = self.norm(self.layer(inputs))
        return {"loss": output.square().mean()} if mode == "loss" else [output]


def make_runner(folder: Path, name: str, iters: int, **options: Any) -> Runner:
    torch.manual_seed(0)
    data = [torch.randn(4, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    return Runner(
        model=TinyModel(),
        work_dir=str(folder),
        train_dataloader={
            "dataset": data,
            "batch_size": 4,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": lambda batch: {"inputs": torch.stack(batch)},
        },
        train_cfg={"by_epoch": False, "max_iters": iters},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.1}},
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 3},
            {"type": "CosineAnnealingLR", "T_max": 9, "by_epoch": False, "begin": 1},
        ],
        custom_hooks=[{"type": "EMAHook"}],
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": 1},
            "checkpoint": {"type": "CheckpointHook", "interval": 2, "by_epoch": False},
        },
        experiment_name=f"compat-{name}-{folder.name}",
        **options,
    )


def test_what_the_runner_saves_is_resumed(tmp_path: Path) -> None:
    whole = make_runner(tmp_path / "whole", "whole", iters=4)
    whole.train()
    path = tmp_path / "whole" / "iter_2.pth"
    saved = safe_load(path, map_location="cpu")
    history = saved["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert len(history.data[0]) == 2
    assert history.statistics("mean") == pytest.approx(history.data[0].mean())

    resumed = make_runner(
        tmp_path / "resumed", "resumed", iters=4, load_from=str(path), resume=True
    )
    resumed.train()
    for mine, theirs in (
        (resumed.model.state_dict(), whole.model.state_dict()),
        (resumed.optim_wrapper.state_dict()["state"], whole.optim_wrapper.state_dict()["state"]),
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    np.testing.assert_array_equal(
        resumed.message_hub.get_scalar("train/loss").data[0],
        whole.message_hub.get_scalar("train/loss").data[0],
    )


def test_hostile_checkpoint_does_not_run_in_the_runner(tmp_path: Path) -> None:
    path, marker = tmp_path / "hostile.pth", tmp_path / "marker"
    new_format({"state_dict": {}, "message_hub": write_file(marker)}, path)
    for resume in (False, True):
        runner = make_runner(
            tmp_path / "run", f"hostile-{resume}", iters=1, load_from=str(path), resume=resume
        )
        with pytest.raises(ValueError, match=r"asks for builtins\.exec"):
            runner.load_or_resume()
    assert not marker.exists()
