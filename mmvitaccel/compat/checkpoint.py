"""Safe checkpoint loading on every supported torch: a file never runs code.

torch >= 2.6 checks the names in a pickle (``weights_only=True``); the few additional names that
mmengine's Runner writes are added to its allow list. Older versions load with
:class:`SafeUnpickler`, because their check cannot be extended completely and passes TorchScript
archives to an interpreter.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, Any, NoReturn
from urllib.parse import urlparse

import torch

from mmvitaccel.compat.file_kind import describe_kind
from mmvitaccel.compat.unpickling import (
    ArrayUnpickler,
    SafeUnpickler,
    full_name,
    runner_globals,
)

_ZIP_OF = "a zip archive of"
_ZIP = b"PK\x03\x04"  # torch.save since 1.6, TorchScript
_PICKLE = b"\x80"
_SAFETENSORS = b"\0\0\0{"  # the last bytes of the header's length, and its first
# The old format begins with a pickled magic number; any other pickle is not torch's.
_OLD_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_CHECKED_BY_TORCH = torch.__version__ >= (2, 6)


def safe_load(
    source: str | Path | IO[bytes], map_location: Any = None, **options: Any
) -> dict[str, Any]:
    """Read a checkpoint: torch's formats, safetensors, or a plain pickle of arrays (detectron2).

    Args:
        source: Path of the file, or a seekable binary stream.
        map_location: As in ``torch.load``.
        options: Further arguments of ``torch.load``; ignored, so that no caller can weaken the
            check.

    Returns:
        What was saved.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file asks for a name that could run code, or is not a complete checkpoint.
    """
    if not isinstance(source, (str, Path)):
        return _read(source, getattr(source, "name", "the checkpoint"), map_location)
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint file; check the path.")
    with path.open("rb") as file:
        return _read(file, str(path), map_location)


def load_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Download a checkpoint once, as ``torch.hub.load_state_dict_from_url``, and read it safely.

    Args:
        url: http(s) address.
        model_dir: Folder to keep the file in; torch hub's by default.
        map_location: As in ``torch.load``.
        progress: Whether a progress bar is shown.
        options: Further arguments of torch's function; ignored.
    """
    folder = Path(model_dir) if model_dir else Path(torch.hub.get_dir(), "checkpoints")
    path = folder / Path(urlparse(url).path).name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=progress)
    return safe_load(path, map_location)


def guard_loaders(module: ModuleType) -> None:
    """Make all of mmengine's checkpoint loaders use :func:`safe_load`.

    They call ``torch.load`` and ``load_url`` through the names in ``mmengine.runner.checkpoint``;
    these two names are replaced. (``load_url`` is unsafe on every torch: it loads with
    ``weights_only=False``.)

    Args:
        module: ``mmengine.runner.checkpoint``.
    """
    _allow_runner_globals()
    module.torch = _TorchWithSafeLoad("torch")
    module.load_url = load_url


class _TorchWithSafeLoad(ModuleType):
    """``torch`` with ``load`` replaced."""

    load = staticmethod(safe_load)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@lru_cache(maxsize=1)
def _allow_runner_globals() -> None:
    """Add the names in the Runner's checkpoints to torch's allow list, once."""
    if _CHECKED_BY_TORCH:
        torch.serialization.add_safe_globals(list(runner_globals()))


@contextmanager
def _runner_globals_alone() -> Iterator[None]:
    """Remove other objects with the same names from torch's allow list, such as numpy's own.

    Many scripts add numpy's own; an array cannot be read with a mix of both.
    """
    told = torch.serialization.get_safe_globals()
    own = runner_globals()
    names = {full_name(value) for value in own}
    others = [v for v in told if isinstance(v, tuple) or full_name(v) not in names]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*own, *others])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(told)


def _read(file: IO[bytes], name: str, map_location: Any) -> Any:
    """Check the first bytes of a stream and read it; raise one sentence if that fails."""
    start = file.read(512)
    head = start[: len(_OLD_TORCH)]
    file.seek(0)
    if not head:
        raise ValueError(f"{name}: the checkpoint is empty (0 bytes); copy or download it again.")
    kind = describe_kind(start)
    if kind:
        raise ValueError(f"{name}: this is not a checkpoint but {kind}.")
    safetensors = start[5:9] == _SAFETENSORS
    if not safetensors and not head.startswith((_ZIP, _PICKLE)):
        raise ValueError(
            f"{name}: this is not a checkpoint, it begins with {head!r}; a failed download often "
            "leaves a web page or a text there: delete it and download again."
        )
    try:
        if safetensors:
            return _read_safetensors(file, map_location)
        if head.startswith(_ZIP) or head == _OLD_TORCH:
            return _read_torch(file, map_location)
        return ArrayUnpickler(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        _explain(name, str(error))
    # Damaged content makes the readers raise anything, including MemoryError
    except Exception as error:
        if re.search("CUDA|deserialize object on", str(error)):
            raise  # a device error, whose message says what to do
        _explain(name, f"{type(error).__name__}: {error}")


def _read_torch(file: IO[bytes], map_location: Any) -> Any:
    """Read a torch file, with torch's own check where it is complete."""
    _check_archive(file)
    if _CHECKED_BY_TORCH:
        with _runner_globals_alone():
            return torch.load(file, map_location=map_location, weights_only=True)
    # Older torch takes the reader as a module; this one knows no other names.
    reader = SimpleNamespace(
        __name__="mmvitaccel.compat.unpickling",
        Unpickler=SafeUnpickler,
        load=lambda file, **options: SafeUnpickler(file, **options).load(),
    )
    return torch.load(file, map_location=map_location, pickle_module=reader, weights_only=False)


def _check_archive(file: IO[bytes]) -> None:
    """Refuse TorchScript archives, which torch < 2.6 would interpret, and compressed archives.

    TorchScript is detected with the reader that torch.load uses: a crafted archive can show other
    files to another reader. A few compressed bytes can expand to gigabytes; torch.save does not
    compress.
    """
    if file.read(len(_ZIP)) == _ZIP:
        file.seek(0)
        records = _records_of(file)
        if "constants.pkl" in records:
            raise pickle.UnpicklingError("the file is a TorchScript archive")
        if "data.pkl" not in records:
            raise pickle.UnpicklingError(f"{_ZIP_OF} {', '.join(map(repr, sorted(records)[:3]))}")
        with zipfile.ZipFile(file) as archive:
            packed = [e for e in archive.infolist() if e.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise pickle.UnpicklingError(f"{packed[0].filename} in it is packed")
    file.seek(0)


def _records_of(file: IO[bytes]) -> Sequence[str]:
    """Names of the records of torch's file, or of the files of another zip archive."""
    try:
        return torch._C.PyTorchFileReader(file).get_all_records()
    except RuntimeError:
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            raise  # torch's, and damaged
        return names


def _read_safetensors(file: IO[bytes], map_location: Any) -> dict[str, torch.Tensor]:
    """Read a format that cannot hold code."""
    from safetensors.torch import load, load_file

    if isinstance(file, BufferedReader):
        device = map_location if isinstance(map_location, (str, torch.device)) else "cpu"
        return load_file(file.name, device=str(device))
    return load(file.read())


def _explain(name: str, reason: str) -> NoReturn:
    """Raise an error with one sentence for the reason.

    Args:
        name: The file.
        reason: The reader's message.

    Raises:
        ValueError: Always.
    """
    asked_for = re.search(r"GLOBAL ([\w.]*\w(?:\('.*?'\))?)", reason)
    if asked_for:
        # torch leaves out `builtins.`
        path = asked_for[1] if "." in asked_for[1] else f"builtins.{asked_for[1]}"
        raise ValueError(
            f"{name}: refused, because the file asks for {path}, which no weights need and which "
            "could run code; take the checkpoint from a source you trust, or save its state_dict "
            "alone where it was made."
        ) from None
    if "TorchScript" in reason:
        raise ValueError(
            f"{name}: refused, because this is a TorchScript archive, which holds code; save the "
            "model's state_dict instead."
        ) from None
    if reason.startswith(_ZIP_OF):
        raise ValueError(
            f"{name}: this is not a checkpoint but {reason}; unpack it and give the file of "
            "weights inside."
        ) from None
    reason = " ".join(reason.replace("Weights only load failed.", "").split())[:160]
    raise ValueError(
        f"{name}: the checkpoint is cut short, damaged or not one of torch's ({reason}); copy or "
        "download it again."
    ) from None
