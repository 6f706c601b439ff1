"""Reads configs, and checks overrides from the command line key by key."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils import import_modules_from_strings

from mmvitaccel.errors import UserError, building, closest
from mmvitaccel.runner.options.keys import RUNNER_KEYS, check_key
from mmvitaccel.runner.options.overrides import read_again
from mmvitaccel.runner.options.unreached import refuse_used_up, tell_unreached

_SCOPES = ("mmaction", "mmdet", "mmpretrain")


def load_config(path: str, options: Mapping[str, Any], reads: Collection[str] = ()) -> Config:
    """Read a config and override settings in it.

    Args:
        path: A file, or ``package::path`` as in ``_base_``.
        options: Dotted keys to values.
        reads: Variables of the config that the caller reads. If they are overridden, the config is
            read again, so that all values derived from them change.

    Raises:
        UserError: The file is missing or faulty, the key of an option does not exist, or it is a
            variable that was only used while reading the config.
    """
    if "::" not in path:
        _check_is_file(path)
    with warnings.catch_warnings(), building(f"config {path}"):
        # mmengine resolves `package::` with pkg_resources, which warns on import
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        cfg = get_config(path) if "::" in path else Config.fromfile(path)
    for key in options:
        check_key(cfg, key)
    own = {key: options[key] for key in options if key.partition(".")[0] not in RUNNER_KEYS}
    for key, value in own.items():
        if key.partition(".")[0] not in reads:
            refuse_used_up(cfg, key, value, options)
    read = {key: own[key] for key in own if key.partition(".")[0] in reads}
    with building("--cfg-options"):
        if read:
            cfg = read_again(cfg.filename, read)
        before = cfg.to_dict()
        cfg.merge_from_dict(dict(options))
        if any(key.partition(".")[0] == "custom_imports" for key in options):
            # mmengine imports those of the file alone, when it reads it
            import_modules_from_strings(**(cfg.get("custom_imports") or dict(imports=None)))
    tell_unreached(cfg, before, {key: options[key] for key in options if key not in own})
    if not isinstance(cfg.get("model"), dict):
        raise UserError(f"config {path} defines no model; give a config with model=dict(type=...).")
    if not cfg.model.get("type"):
        raise UserError(f"config {path}: model has no type; give model=dict(type=...).")
    if cfg.get("default_scope") is None and package_of(cfg) in _SCOPES:
        # Types given as classes have a module, but not their inner defaults
        cfg.default_scope = package_of(cfg)
    return cfg


@building("config")
def scale_learning_rate(cfg: Config) -> None:
    """Scale the learning rate with the batch size, relative to the config's base batch size.

    Raises:
        UserError: The config has no base batch size.
    """
    if not (cfg.get("auto_scale_lr") or {}).get("base_batch_size"):
        raise UserError("--auto-scale-lr: set auto_scale_lr.base_batch_size in the config.")
    cfg.auto_scale_lr.enable = True


def package_of(cfg: Config) -> str:
    """The package of a config's model: its ``default_scope``, else by the model's ``type``."""
    kind = cfg.model.get("type")
    named = kind if isinstance(kind, str) else getattr(kind, "__module__", "")
    return cfg.get("default_scope") or named.partition(".")[0]


def _check_is_file(path: str) -> None:
    file = Path(path)
    if file.is_file():
        return
    beside = [p.name for p in file.parent.glob("*.py")] if file.parent.is_dir() else []
    raise UserError(
        f"config {path} does not exist; give the path of a config file"
        f"{closest(file.name, beside) or '.'}"
    )
