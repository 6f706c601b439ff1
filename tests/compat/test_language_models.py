"""mmpretrain beside transformers 5."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mmvitaccel import compat


@pytest.mark.parametrize(("installed", "left"), [("4.57.1", True), ("5.24.0", False), (None, True)])
def test_language_models_are_left_out_from_transformers_5_on(installed, left, monkeypatch):
    def version(name):
        assert name == "transformers"
        if installed is None:
            raise importlib.metadata.PackageNotFoundError
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    module = SimpleNamespace(WITH_MULTIMODAL=True)
    compat._leave_out_language_models(module)
    assert module.WITH_MULTIMODAL is left


@pytest.mark.extras("hosts", "transformers")
def test_models_of_mmaction_are_imported_beside_it():
    pytest.importorskip("mmaction", reason="no mmaction2 here")
    code = "import mmvitaccel; from mmaction.models import VisionTransformer as V; print(V)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "VisionTransformer" in done.stdout, done.stderr


@pytest.mark.extras("hosts", "transformers")
def test_mmpretrain_and_mmdet_are_imported_beside_it():
    pytest.importorskip("mmpretrain", reason="no mmpretrain here")
    code = "import mmvitaccel, mmdet.models, mmpretrain.models; print(mmpretrain.models.DeiT3)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DeiT3" in done.stdout, done.stderr
