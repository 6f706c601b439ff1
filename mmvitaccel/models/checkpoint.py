"""Reading weights safely: tensors only, no pickled object from outside ever runs code."""

from __future__ import annotations

import pickle
from pathlib import Path
from urllib.error import URLError

import torch
from mmengine.dist import barrier, get_rank
from torch import Tensor

WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts keep the weights: mmengine's, then most others'."""


def read_state_dict(source: str) -> dict[str, Tensor]:
    """Read the weights of a ``.pth``/``.pt`` or ``.safetensors`` file on the CPU.

    Args:
        source: A path, or an http(s) address, which is downloaded once into torch's hub folder.

    Returns:
        Names to tensors, taken out of a ``state_dict`` or ``model`` entry where there is one,
        without the ``module.`` of a distributed wrapper.

    Raises:
        FileNotFoundError: There is no such file, or it could not be downloaded.
        ValueError: The file is cut short, holds more than tensors, or no weights.
    """
    content = load_tensors(local_copy(source))
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        raise ValueError(f"'{source}' holds no state dict but a {type(content).__name__}.")
    strangers = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ValueError(
            f"'{source}' holds no state dict: '{strangers[0]}' is a "
            f"{type(content[strangers[0]]).__name__}, not a tensor."
        )
    return {name.removeprefix("module."): value for name, value in content.items()}


def load_tensors(path: Path) -> object:
    """Load one file with torch's own check on, or as safetensors.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, with the reason.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint '{path}'; check the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"'{path}' holds more than tensors or is damaged ({reason}); save its state dict alone."
        ) from error
    # reason: a file cut short fails in many ways, by format and by where the cut is
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"'{path}' cannot be read as a checkpoint, it may be cut short ({reason}); "
            "get it again."
        ) from error


def local_copy(source: str) -> Path:
    """Return the path of a file, after downloading it where ``source`` is an http(s) address."""
    if not source.startswith(("http://", "https://")):
        return Path(source).expanduser()
    path = Path(torch.hub.get_dir()) / "checkpoints" / source.rsplit("/", 1)[1]
    try:
        if get_rank() == 0 and not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(source, str(path), progress=False)
    except (URLError, OSError) as error:
        raise FileNotFoundError(
            f"Could not download '{source}' ({error}); download it elsewhere and give its path."
        ) from error
    finally:
        barrier()
    return path
