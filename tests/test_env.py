"""The environment report: what is there, what fits, what does not and the command."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mmvitaccel import env
from mmvitaccel.env import PACKAGES, Package, Row, inspect_package, number, render

ROOT = Path(env.__file__).parent.parent
COMMAND = [sys.executable, "-m", "mmvitaccel.env"]


def report(*extra_path: Path, bare: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command; ``bare`` without any installed package but those in ``extra_path``."""
    path = os.pathsep.join(map(str, (*extra_path, ROOT)))
    command = [sys.executable, "-S", *COMMAND[1:]] if bare else COMMAND
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )


def fake(folder: Path, module: str, code: str) -> None:
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").write_text(code)


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"{name} "))


def test_this_environment_can_do_the_main_job() -> None:
    done = report()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("The main job (train and test an EfficientViT detector) can run.\n")
    for module in ("mmdet.apis", "mmvitaccel.models", "mmaction.apis"):
        assert row(done.stdout, f"import {module}").split()[2:] == ["works", "ok"]
    assert importlib.metadata.version("mmdet") in row(done.stdout, "mmdet")


def test_without_any_package_it_runs_and_says_what_to_install() -> None:
    done = report(bare=True)
    assert done.returncode == 1
    assert done.stderr == ""
    needed = [package for package in PACKAGES if package.needed]
    for package in needed:
        assert row(done.stdout, package.module).split()[1:] == ["-", "missing", "not", "installed"]
        assert f"  {package.module}: pip install {package.install}\n" in done.stdout
    names = ", ".join(package.module for package in needed)
    assert done.stdout.endswith(f"cannot run because of: {names}.\n")
    assert "setuptools<81" in row(done.stdout, "  pkg_resources:")


def test_versions_that_do_not_fit(tmp_path: Path) -> None:
    fake(tmp_path, "torch", "__version__ = '2.14.1+cpu'")
    fake(tmp_path, "torchvision", "__version__ = '0.27.0'")
    fake(tmp_path, "mmengine", "__version__ = '0.10.9'")
    fake(tmp_path, "mmcv", "__version__ = '2.2.0'")
    fake(tmp_path, "mmdet", "raise AssertionError('MMCV==2.2.0 is used but\\n incompatible')")
    fake(tmp_path, "pycocotools", "import matplotlib_is_missing")
    (tmp_path / "onedl_mmcv-2.2.0.dist-info").mkdir()
    (tmp_path / "onedl_mmcv-2.2.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: onedl-mmcv\nVersion: 2.2.0\n"
    )
    (tmp_path / "onedl_mmcv-2.2.0.dist-info" / "top_level.txt").write_text("mmcv\n")
    done = report(tmp_path, bare=True)
    assert done.returncode == 1
    assert row(done.stdout, "torch").split() == ["torch", "2.14.1+cpu", "ok"]
    assert "untested  tested with 0.10.7" in row(done.stdout, "mmengine")
    assert "torch 2.14 goes with torchvision 0.29" in row(done.stdout, "torch + torchvision")
    assert 'torch + torchvision: pip install "torchvision==0.29.*"' in done.stdout
    assert "2.2.0 (onedl-mmcv)" in row(done.stdout, "mmcv")
    assert "mmdet 3.3.0 and mmaction2 1.2.0 assert mmcv < 2.2.0" in row(done.stdout, "mmcv")
    assert "mmcv: pip uninstall -y onedl-mmcv && pip install mmcv-lite==2.1.0" in done.stdout
    assert "AssertionError: MMCV==2.2.0 is used but incompatible" in row(done.stdout, "mmdet")
    assert "No module named 'matplotlib_is_missing'" in row(done.stdout, "pycocotools")
    assert "stand-in" in row(done.stdout, "mmcv operators")


def test_both_mmcvs_are_reported(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mmcv", ModuleType("mmcv"))
    monkeypatch.setattr(env, "distributions_of", lambda module: ["mmcv", "mmcv-lite"])
    monkeypatch.setattr(env, "find_spec", lambda name: None)
    first = next(iter(env.inspect_mmcv_operators()))
    assert first.stops
    assert first.fix == "pip uninstall -y mmcv mmcv-lite && pip install mmcv-lite==2.1.0"


def test_operators_compiled_for_another_torch(tmp_path: Path, monkeypatch) -> None:
    fake(tmp_path, "mmcv", "")
    (tmp_path / "mmcv" / "_ext.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    for name in [n for n in sys.modules if n.partition(".")[0] == "mmcv"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mmcv", _load(tmp_path / "mmcv"))
    monkeypatch.setattr(env, "distributions_of", lambda module: ["mmcv"])
    (found,) = env.inspect_mmcv_operators()
    assert found.stops
    assert "ImportError: undefined symbol: _ZN3c10; mmcv was compiled for" in found.remark
    assert "--no-cache-dir --no-build-isolation mmcv==2.1.0" in found.fix


def _load(folder: Path) -> ModuleType:
    module = ModuleType("mmcv")
    module.__path__ = [str(folder)]
    return module


def test_optional_package_stops_nothing() -> None:
    missing = inspect_package(Package("surely_not_installed", (), "x", needed=False))
    assert (missing.verdict, missing.stops) == ("note", False)
    needed = inspect_package(Package("surely_not_installed", (), "x==1"))
    assert (needed.verdict, needed.stops, needed.fix) == ("missing", True, "pip install x==1")


def test_package_that_is_too_old() -> None:
    import packaging

    found = inspect_package(Package("packaging", (), "packaging==99", lowest="98", why="a test"))
    assert (found.found, found.verdict, found.stops) == (packaging.__version__, "wrong", True)
    assert found.remark == "wants >= 98: a test"


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.14.1+cu130", (2, 14, 1)), ("2.0.0rc4", (2, 0, 0)), ("1.0.0.dev1", (1, 0, 0)), ("?", ())],
)
def test_numbers_of_a_version(version: str, numbers: tuple[int, ...]) -> None:
    assert number(version) == numbers


def test_table_is_aligned() -> None:
    text = render([Row("a", "1.0", "ok"), Row("longer", "-", "missing", "why", "do it", True)])
    assert text.splitlines() == [
        "a       1.0  ok",
        "longer  -    missing   why",
        "",
        "To fix:",
        "  longer: do it",
        "",
        "The main job (train and test an EfficientViT detector) cannot run because of: longer.",
    ]


def test_the_table_is_that_of_the_requirements_and_of_the_readme() -> None:
    names = {"cv2": "opencv-python", "mmcv": "mmcv-lite", "mmaction": "mmaction2"}
    files = [(ROOT / "requirements" / f"{n}.txt").read_text() for n in ("default", "classic")]
    optional = (ROOT / "requirements" / "mmpretrain.txt").read_text()
    readme = (ROOT / "README.md").read_text()
    for package in PACKAGES:
        pin = re.compile(rf"^{names.get(package.module, package.module)}==([\d.]+)$", re.MULTILINE)
        pins = [pin.search(text)[1] for text in (*files, optional) if pin.search(text)]
        assert pins, package.module
        for version in pins:
            assert any(version.startswith(tested) for tested in package.tested)
        for tested in package.tested:
            assert any(version.startswith(tested) for version in pins)
        if package.module not in ("cv2", "pycocotools"):
            assert all(tested in readme for tested in package.tested)
        assert all(v in package.install for v in pins[:1])
