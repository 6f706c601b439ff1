"""Pickles made by hand to get past the reader: none runs, changes anything or reads foreign memory.

Each goes through torch's format, the old one and a plain pickle, and through the reader that stands
in for torch's check on older versions.
"""

from __future__ import annotations

import copyreg
import io
import json
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmvitaccel.compat.checkpoint import safe_load
from mmvitaccel.compat.unpickling import SafeUnpickler
from mmvitaccel.models.weights.checkpoint import find_weights

RECONSTRUCT, SCALAR = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
REFUSED = r"hostile\.pth: (refused, because the file asks for|the checkpoint is cut short, damaged)"


class Reduced:
    """Pickles as the call of any function, or as the change of any object."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def dtype(code: str, *state: Any) -> Reduced:
    return Reduced(np.dtype, (code, False, True), (3, "<", *state))


def array(kind: Any, shape: tuple[int, ...], data: Any) -> Reduced:
    return Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, shape, kind, False, data))


def nothing(*parts: Any) -> tuple[Any, ...]:
    return (None, None, None, *parts)


def as_torch(content: Any, path: Path) -> None:
    torch.save(content, path)


def as_old_torch(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def as_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def read(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return safe_load(path)


WAYS = pytest.mark.parametrize("save", [as_torch, as_old_torch, as_pickle])


@WAYS
@pytest.mark.parametrize(
    "made",
    [
        array(np.dtype("O"), (1,), [None]),
        array(np.dtype("f8"), (1,), [1.0]),
        array(np.dtype([("a", "f8")]), (1,), b"12345678"),
        array(np.dtype("f8"), (2,), b"12345678"),
        array(np.dtype("f8"), (-1, -1), b"12345678"),
        array(dtype("f4,f4", *nothing(-1, -1, 0)), (1,), b"12345678"),
        Reduced(np.ndarray, ((2,), "O")),
        Reduced(np.ndarray, ((1 << 44,), "f8")),
        Reduced(copyreg.__newobj__, (np.ndarray, (1 << 44,), "f8")),
        Reduced(RECONSTRUCT, (dict, (0,), b"b")),
        Reduced(SCALAR, (np.dtype("O"), b"12345678")),
        Reduced(SCALAR, (np.dtype("f8"), b"1234")),
        Reduced(np.load, ("x.npy",)),
        Reduced(np.core.numeric._frombuffer, (b"12", np.dtype("f8"), (1,), "C")),
        Reduced(eval, ("1",)),
        Reduced(__import__, ("os",)),
        Reduced(np.dtype, (["a", "O"],)),
    ],
)
def test_arrays_that_are_more(save, made: Reduced, tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    try:
        save({"model": {"w": made}}, path)
    except pickle.PicklingError:  # __newobj__ wants an object of the class
        path.write_bytes(
            b"\x80\x02cnumpy\nndarray\n(K\x01\x8a\x06\0\0\0\0\0\x01\x86X\x02\0\0\0f8t\x81."
        )
    with pytest.raises(ValueError, match=REFUSED) as error:
        read(path)
    assert "\n" not in str(error.value)


@WAYS
@pytest.mark.parametrize(
    "state",
    [
        (None, ("a",), {"a": (np.dtype("f8"), 1 << 40)}, -1, -1, 0),  # a field far outside
        ((np.dtype("f8"), (1 << 30,)), None, None, -1, -1, 0),  # gigabytes in eight bytes
        nothing(-1, -1, 1),  # numbers taken for the addresses of objects
        nothing(1 << 20, -1, 0),
    ],
)
def test_a_dtype_takes_nothing_but_its_byte_order(save, state: tuple, tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    save({"w": array(dtype("f8", *state), (1,), np.float64(3).tobytes())}, path)
    found = read(path)["w"]
    assert (found.dtype, found.shape, found.tolist()) == (np.dtype("f8"), (1,), [3.0])
    assert np.dtype("f8").names is None


@WAYS
def test_big_endian_arrays_are_read_and_saved_again(save, tmp_path: Path) -> None:
    path = tmp_path / "w.pkl"
    save({"w": np.arange(3, dtype=">f4"), "empty": np.zeros((0, 2)), "s": np.float32(2)}, path)
    found = read(path)
    for again in (found, pickle.loads(pickle.dumps(found))):
        assert again["w"].tolist() == [0, 1, 2] and again["w"].dtype == np.float32
        assert again["empty"].shape == (0, 2) and again["s"] == 2
        assert type(again["s"]) is np.float32
    assert type(again["w"]) is np.ndarray
    assert find_weights({"w": found["w"]}, "x")["w"].tolist() == [0, 1, 2]


def test_the_newest_protocol(tmp_path: Path) -> None:
    path = tmp_path / "w.pkl"
    w = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    path.write_bytes(pickle.dumps({"model": {"w": w, "v": w.copy("C")}}, protocol=5))
    assert all(np.array_equal(found, w) for found in read(path)["model"].values())


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02\x82\xf0.",  # EXT1, which is registered below
        b"\x80\x02X\x01\0\0\0xQ.",  # BINPERSID
        b"\x80\x02Px\n.",  # PERSID
        b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.",
        b"\x80\x02(X\x04\0\0\0trueiposix\nsystem\n.",  # INST
        b"\x80\x02(cposix\nsystem\nX\x04\0\0\0trueo.",  # OBJ
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__reduce\x93.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"\x80\x02ccollections\nOrderedDict\nN}X\x03\0\0\0getNs\x86b.",  # BUILD of a class
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # LONG4 of two gigabytes
        b"\x80\x02X\xff\xff\xff\x7fabc",  # a string of two gigabytes
        b"\x80\x02Nr\xff\xff\xff\x7f",  # LONG_BINPUT, which makes C's reader take gigabytes
        b"\x80\x05\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame of exabytes
        b"\x80\xff.",
        b"\x80\x02" + b"(" * 100_000 + b".",
    ],
    ids=lambda code: repr(code[2:16]),
)
def test_opcodes(code: bytes, tmp_path: Path, monkeypatch) -> None:
    import os

    ran: list[str] = []
    monkeypatch.setattr(os, "system", ran.append)
    monkeypatch.setitem(copyreg._extension_registry, ("os", "system"), 0xF0)
    monkeypatch.setitem(copyreg._inverted_registry, 0xF0, ("os", "system"))
    monkeypatch.setitem(copyreg._extension_cache, 0xF0, os.system)
    (tmp_path / "hostile.pkl").write_bytes(code)
    plain = tmp_path / "whole.pth"
    torch.save({"w": 1}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(tmp_path / "h.pth", "w") as target:
        for name in source.namelist():
            target.writestr(name, code if name.endswith("data.pkl") else source.read(name))
    for path in (tmp_path / "hostile.pkl", tmp_path / "h.pth"):
        with pytest.raises(ValueError, match=rf"{path.name}: (refused|the checkpoint is cut)") as e:
            read(path)
        assert "\n" not in str(e.value)
    assert not ran


@pytest.mark.parametrize(
    "name", [b"torch\nTensor", b"torch._utils\n_rebuild_tensor_v2", b"numpy\nndarray"]
)
def test_classes_and_functions_cannot_be_changed(name: bytes) -> None:
    # GLOBAL puts it on the stack, BUILD with a pair sets attributes: they would stay for good.
    code = b"c" + name + b"\nN}X\x05\0\0\0addedNs\x86b."
    with pytest.raises(pickle.UnpicklingError, match="may not change the functions and classes"):
        SafeUnpickler(io.BytesIO(code)).load()
    assert not hasattr(torch.Tensor, "added") and not hasattr(np.ndarray, "added")


def test_bytes_are_all_that_encoding_gives() -> None:
    code = b"c_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0rot13\x86R."
    with pytest.raises(pickle.UnpicklingError, match=r"_codecs\.encode to 'rot13'"):
        SafeUnpickler(io.BytesIO(code)).load()


def test_an_empty_history_comes_back(tmp_path: Path) -> None:
    torch.save({"loss": HistoryBuffer()}, tmp_path / "x.pth")
    found = read(tmp_path / "x.pth")["loss"]
    found.update(2.0)
    assert found.mean() == 2.0
    torch.save({"loss": found}, tmp_path / "x.pth")
    assert read(tmp_path / "x.pth")["loss"].current() == 2.0


def test_a_script_that_told_torch_of_numpys_own(tmp_path: Path) -> None:
    if torch.__version__ < (2, 6):
        pytest.skip("this torch has no list of what its check allows")
    saved = {"w": np.arange(3.0), "s": np.float32(2)}
    torch.save(saved, tmp_path / "x.pth")
    told = [np.ndarray, np.dtype, type(np.dtype("f8")), RECONSTRUCT, SCALAR]
    with torch.serialization.safe_globals(told):
        for _ in range(2):
            found = read(tmp_path / "x.pth")
            assert found["w"].tolist() == [0, 1, 2] and found["s"] == 2
        assert set(told) <= set(torch.serialization.get_safe_globals())


def test_packed_archives(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"w": torch.zeros(1 << 20)}, plain)
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert packed.stat().st_size < plain.stat().st_size / 100
    with pytest.raises(ValueError, match=r"packed\.pth: .*data\.pkl in it is packed"):
        read(packed)


def storage_of(count: int) -> bytes:
    """The old format with a tensor of so many numbers."""
    held = io.BytesIO()
    torch.save({"w": torch.zeros(0x1234)}, held, _use_new_zipfile_serialization=False)
    content = held.getvalue().replace(b"M\x34\x12", b"\x8a\x06" + struct.pack("<Q", count)[:6])
    return content.replace(struct.pack("<q", 0x1234), struct.pack("<q", count))


def test_more_numbers_than_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    path.write_bytes(storage_of(1 << 45))
    with pytest.raises(ValueError, match=REFUSED):
        read(path)
    torch.save({"w": torch.zeros(1).expand(1 << 20, 1 << 20)}, path)
    with pytest.raises(ValueError, match=r"'w' has more values than the file stores for it"):
        find_weights(read(path), "hostile.pth")


def safetensors(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


@pytest.mark.parametrize(
    "content",
    [
        safetensors({"w": dict(dtype="F32", shape=[1 << 40], data_offsets=[0, 4])}, b"1234"),
        safetensors({"w": dict(dtype="F32", shape=[1], data_offsets=[0, 1 << 40])}, b"1234"),
        safetensors({"w": dict(dtype="F32", shape=[1], data_offsets=[8, 4])}, b"12345678"),
        safetensors({"w": dict(dtype="F32", shape=[1], data_offsets=[-4, 0])}, b"1234"),
        safetensors({"w": dict(dtype="F99", shape=[1], data_offsets=[0, 4])}, b"1234"),
        safetensors({"w": dict(dtype="F32", shape=[1 << 62, 8], data_offsets=[0, 4])}, b"1234"),
        safetensors({}, length=1 << 35),
        safetensors(b"{" + b"\xff" * 40),
        safetensors(b"{" * 5000),
    ],
    ids=lambda content: repr(content[8:60]),
)
def test_safetensors_whose_header_lies(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    path.write_bytes(content)
    for held in (path, io.BytesIO(content)):
        with pytest.raises(ValueError, match="the checkpoint is cut short, damaged") as error:
            safe_load(held)
        assert "\n" not in str(error.value)


def test_safetensors_by_content(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    path = tmp_path / "w.pth"
    library.save_file({"w": torch.ones(3)}, path)
    for held in (path, io.BytesIO(path.read_bytes())):
        assert torch.equal(safe_load(held)["w"], torch.ones(3))
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")
    with pytest.raises(ValueError, match=r"w\.safetensors: .*a Git LFS pointer"):
        safe_load(path)


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(3).to_sparse(),
        torch.zeros(3, device="meta"),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        np.array(["a"]),
        OrderedDict(x=1),
    ],
    ids=["sparse", "meta", "quantised", "text", "dict"],
)
def test_what_is_no_weight(value: Any) -> None:
    with pytest.raises(ValueError, match=r"x\.pth: it contains no state dict.* 'w' is") as error:
        find_weights({"w": value}, "x.pth")
    assert "\n" not in str(error.value)
