from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config

from mmvitaccel.fit.check import SPLITS, check_inputs, check_model
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model


@pytest.fixture
def check() -> Callable[..., Config]:
    """Check a config as the tools do, with options; ``inputs=False`` as get_flops does."""

    def run(path: Path | str, *, inputs: bool = True, **options: object) -> Config:
        cfg = load_config(str(path), {key.replace("__", "."): v for key, v in options.items()})
        if inputs:
            check_inputs(cfg, *SPLITS)
        check_model(cfg, build_model(cfg), *SPLITS)
        return cfg

    return run


@pytest.fixture
def silent(recwarn) -> Callable[[], None]:
    """Fails on any warning of the checks."""

    def look() -> None:
        said = [str(w.message) for w in recwarn if w.category is UserWarning]
        # reason: mmdet and mmengine warn of their own while they build
        own = [text for text in said if "this is not meant" in text or "pixels when" in text]
        assert not own

    return look
