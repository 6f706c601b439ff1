"""The command that compiles mmcv's operators is of the mmcv that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from mmvitaccel.compat import mmcv_build
from mmvitaccel.compat.stand_ins import mmcv_ext

FLAGS = "--no-cache-dir --no-build-isolation"


@pytest.fixture(params=[None, "2.3.6"])
def fork(request, monkeypatch) -> str | None:
    """The version of the fork that is installed; None for mmcv-lite."""

    def version(name: str) -> str:
        if name == "onedl-mmcv" and request.param:
            return request.param
        raise PackageNotFoundError(name)

    monkeypatch.setattr(mmcv_build.importlib.metadata, "version", version)
    return request.param


def test_an_operator_without_replacement_says_what_to_install(fork) -> None:
    with pytest.raises(NotImplementedError) as caught:
        mmcv_ext.border_align_forward()
    said = str(caught.value)
    assert said.startswith("mmcv operator 'border_align_forward': the mmcv here has no compiled")
    if fork:
        assert "pip uninstall -y onedl-mmcv && " in said
        assert said.endswith(f"pip install {FLAGS} onedl-mmcv==2.3.6")
        assert "torch 2.12" not in said
    else:
        assert "(torch 2.12 or older and a C++ compiler): pip uninstall -y mmcv-lite && " in said
        assert said.endswith(f"pip install {FLAGS} mmcv==2.1.0")


def test_operators_for_another_torch(fork) -> None:
    wanted = "onedl-mmcv==2.3.6" if fork else "mmcv==2.1.0"
    assert mmcv_build.rebuild_command() == (
        f"pip install --force-reinstall --no-deps {FLAGS} {wanted}"
    )
