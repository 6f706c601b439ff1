"""The environment report: versions, verdicts and the commands that fix problems."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from mmvitaccel.compat.mmcv_build import requirement
from mmvitaccel.env import installed
from mmvitaccel.env.installed import number
from mmvitaccel.env.packages import MMCV_LIMITS, PACKAGES, Package
from mmvitaccel.env.report import render
from mmvitaccel.env.surroundings import inspect_mmcv_operators
from mmvitaccel.env.versions import Row, inspect_doubles, inspect_package

ROOT = Path(installed.__file__).parents[2]
COMMAND = [sys.executable, "-m", "mmvitaccel.env"]


def report(*extra_path: Path, bare: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the report; with ``bare``, only packages in ``extra_path`` are found."""
    path = os.pathsep.join(map(str, (*extra_path, ROOT)))
    command = [sys.executable, "-S", *COMMAND[1:]] if bare else COMMAND
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )


def fake(folder: Path, module: str, code: str) -> None:
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").write_text(code)


def distribution(folder: Path, name: str, version: str, module: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "top_level.txt").write_text(f"{module}\n")


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"{name} "))


def test_this_environment_can_do_the_main_job() -> None:
    done = report()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("The main job (train and test an EfficientViT detector) can run.\n")
    modules = ["mmdet.apis", "mmvitaccel.models"]
    modules += ["mmaction.apis"] if find_spec("mmaction") else []
    for module in modules:
        assert row(done.stdout, f"import {module}").split()[2:] == ["works", "ok"]
    assert import_module("mmdet").__version__ in row(done.stdout, "mmdet")


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
    fake(tmp_path, "mmdet", "raise AssertionError('MMCV==2.2.0 is used but incompatible')")
    distribution(tmp_path, "mmdet", "3.3.0", "mmdet")
    fake(tmp_path, "timm", "raise ValueError('some\\n reason')")
    fake(tmp_path, "pycocotools", "import matplotlib_is_missing")
    distribution(tmp_path, "onedl-mmcv", "2.2.0", "mmcv")
    done = report(tmp_path, bare=True)
    assert done.returncode == 1
    assert row(done.stdout, "torch").split() == ["torch", "2.14.1+cpu", "ok"]
    assert "untested  tested with 0.10.7" in row(done.stdout, "mmengine")
    assert "torch 2.14 needs torchvision 0.29" in row(done.stdout, "torch + torchvision")
    assert 'torch + torchvision: pip install "torchvision==0.29.*"' in done.stdout
    assert "2.2.0 (onedl-mmcv)" in row(done.stdout, "mmcv")
    refusal = "mmdet 3.3.0 refuses mmcv 2.2.0 and newer, and mmcv 2.2.0 is installed"
    assert row(done.stdout, "mmdet").endswith(f"wrong     {refusal}")
    assert "mmdet: pip uninstall -y onedl-mmcv && pip install mmcv-lite==2.1.0\n" in done.stdout
    assert "ValueError: some reason" in row(done.stdout, "timm")
    assert "No module named 'matplotlib_is_missing'" in row(done.stdout, "pycocotools")
    assert "stand-in" in row(done.stdout, "mmcv operators")


@pytest.mark.parametrize(
    ("module", "names", "install"),
    [
        ("mmcv", ["mmcv", "mmcv-lite"], "mmcv-lite==2.1.0"),
        ("mmengine", ["mmengine", "onedl-mmengine"], "mmengine==0.10.7"),
        ("mmdet", ["mmdet", "onedl-mmdetection"], "mmdet==3.3.0"),
    ],
)
def test_a_module_of_two_distributions_is_reported(
    monkeypatch, module: str, names: list[str], install: str
) -> None:
    monkeypatch.setattr(
        installed, "distributions_of", lambda name: names if name == module else ["a"]
    )
    (found,) = inspect_doubles()
    assert (found.name, found.found, found.stops) == (f"{module} twice", " + ".join(names), True)
    assert found.fix == f"pip uninstall -y {' '.join(names)} && pip install {install}"


def test_a_module_of_two_distributions_among_forks_becomes_the_fork(monkeypatch) -> None:
    names = ["mmcv-lite", "onedl-mmcv"]
    monkeypatch.setattr(
        installed, "distributions_of", lambda name: names if name == "mmcv" else [f"onedl-{name}"]
    )
    (found,) = inspect_doubles()
    assert found.fix == "pip uninstall -y mmcv-lite onedl-mmcv && pip install onedl-mmcv==2.3.6"


FORKS = {
    "mmengine": ("0.10.12", "onedl-mmengine"),
    "mmcv": ("2.3.6", "onedl-mmcv"),
    "mmdet": ("3.5.1", "onedl-mmdetection"),
}


@pytest.fixture
def forks(tmp_path: Path) -> Path:
    """A folder with fake packages of the forks named onedl-*."""
    for module, (version, name) in FORKS.items():
        fake(tmp_path, module, f"__version__ = {version!r}")
        distribution(tmp_path, name, version, module)
    return tmp_path


def test_beside_the_forks_a_missing_package_is_theirs(forks: Path) -> None:
    for path in forks.glob("mmdet*"):
        shutil.rmtree(path)
    for path in forks.glob("onedl_mmdetection*"):
        shutil.rmtree(path)
    done = report(forks, bare=True)
    assert "  mmdet: pip install onedl-mmdetection==3.5.1\n" in done.stdout


def test_beside_the_forks_an_old_one_gives_way_to_a_newer(monkeypatch) -> None:
    monkeypatch.setattr(installed, "distributions_of", lambda module: ["onedl-mmengine"])
    monkeypatch.setattr(installed, "version_of", lambda module: "0.6.0")
    (engine,) = (package for package in PACKAGES if package.module == "mmengine")
    assert inspect_package(engine).fix == "pip install onedl-mmengine==0.10.12"


def test_the_forks_are_those_of_the_requirements() -> None:
    pins = (ROOT / "requirements" / "onedl.txt").read_text().splitlines()
    found = [package.fork for package in PACKAGES if package.fork]
    assert found == [pin for pin in pins if pin.startswith("onedl-")]


REFUSAL = "mmaction2 1.2.0 refuses mmcv 2.2.0 and newer, and mmcv 2.3.6 is installed"


def test_the_forks_stop_nothing_and_mmaction2_is_said_not_to_fit(forks: Path) -> None:
    done = report(forks, bare=True)
    for module, (version, name) in FORKS.items():
        assert row(done.stdout, module).split()[:4] == [module, version, f"({name})", "untested"]
    assert row(done.stdout, "mmaction").endswith(f"not installed; optional; {REFUSAL}")
    assert "mmaction:" not in done.stdout


def test_mmaction2_beside_the_forks_is_wrong_and_stops_nothing(forks: Path) -> None:
    fake(forks, "mmaction", "raise AssertionError('MMCV==2.3.6 is used but incompatible')")
    distribution(forks, "mmaction2", "1.2.0", "mmaction")
    done = report(forks, bare=True)
    assert row(done.stdout, "mmaction").endswith(f"wrong     {REFUSAL}")
    assert (
        "  mmaction: pip uninstall -y onedl-mmengine onedl-mmcv onedl-mmdetection && "
        "pip install mmengine==0.10.7 mmcv-lite==2.1.0 mmdet==3.3.0\n"
    ) in done.stdout
    assert "mmaction" not in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("module", "version", "mmcv", "refused"),
    [
        ("mmdet", "3.3.0", "2.1.0", False),
        ("mmdet", "3.3.0", "2.2.0", True),
        ("mmdet", "3.5.1", "2.3.6", False),
        ("mmaction", "1.2.0", "2.1.0", False),
        ("mmaction", "?", "2.3.6", False),
        ("mmpretrain", "1.3.6", "2.3.6", False),
        ("mmpretrain", "1.3.6", "2.4.0", True),
    ],
)
def test_which_version_refuses_which_mmcv(
    monkeypatch, module: str, version: str, mmcv: str, refused: bool
) -> None:
    monkeypatch.setattr(installed, "version_of", lambda name: mmcv)
    assert MMCV_LIMITS[module].applies(version) is refused


def test_operators_compiled_for_another_torch(tmp_path: Path, monkeypatch) -> None:
    fake(tmp_path, "mmcv", "")
    (tmp_path / "mmcv" / "_ext.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    for name in [n for n in sys.modules if n.partition(".")[0] == "mmcv"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mmcv", _load(tmp_path / "mmcv"))
    monkeypatch.setattr(installed, "distributions_of", lambda module: ["mmcv"])
    (found,) = inspect_mmcv_operators()
    assert found.stops
    assert "ImportError: undefined symbol: _ZN3c10; mmcv was compiled for" in found.remark
    assert found.fix.endswith(f"--no-cache-dir --no-build-isolation {requirement()}")
    distribution(tmp_path, "onedl-mmcv", "2.3.5", "mmcv")
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = inspect_mmcv_operators()
    assert found.fix.endswith("--no-cache-dir --no-build-isolation onedl-mmcv==2.3.5")


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
    assert found.remark == "must be >= 98: a test"


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


def test_the_table_is_that_of_the_requirements_and_of_the_page_on_installing() -> None:
    names = {"cv2": "opencv-python", "mmcv": "mmcv-lite", "mmaction": "mmaction2"}
    # The whole suite has not run on requirements/onedl.txt.
    requirements = ("default", "classic", "mmpretrain")
    files = [(ROOT / "requirements" / f"{n}.txt").read_text() for n in requirements]
    page = (ROOT / "docs" / "start" / "install.md").read_text()
    for package in PACKAGES:
        pin = re.compile(rf"^{names.get(package.module, package.module)}==([\d.]+)$", re.MULTILINE)
        pins = [pin.search(text)[1] for text in files if pin.search(text)]
        assert pins, package.module
        for version in pins:
            assert any(version.startswith(tested) for tested in package.tested)
        for tested in package.tested:
            assert any(version.startswith(tested) for version in pins)
        if package.module not in ("cv2", "pycocotools"):
            assert all(tested in page for tested in package.tested)
        assert all(v in package.install for v in pins[:1])
