"""Missing modules are answered for; what is installed comes first; importing stays light."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType

import pytest

import mmvitaccel
from mmvitaccel.compat import apply
from mmvitaccel.compat.fallback import STAND_INS, StandInFinder
from mmvitaccel.compat.import_hooks import after_import
from mmvitaccel.compat.mmcv_build import requirement
from mmvitaccel.compat.packages import (
    get_installed_path,
    is_installed,
    package2module,
    replace_look_up,
)

ROOT = str(Path(mmvitaccel.__file__).parent.parent)


def run(code: str, bare: bool = False) -> str:
    """Run code in a fresh interpreter that finds this checkout; return what it printed.

    ``bare`` is without any installed package.
    """
    done = subprocess.run(
        [
            sys.executable,
            *(["-S"] if bare else []),
            "-c",
            f"import sys; sys.path.insert(0, {ROOT!r})\n{code}",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stand_in(name: str, under: str) -> ModuleType:
    """Execute a stand-in under another name, also where the real module is installed."""
    spec = StandInFinder().find_spec(name)
    assert spec is not None
    spec.loader.name = spec.name = under
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_importing_is_light_and_repeatable() -> None:
    heavy = run(
        "import mmvitaccel, mmvitaccel.compat\n"
        "before = list(sys.meta_path)\n"
        "mmvitaccel.compat.apply()\n"
        "assert sys.meta_path == before\n"
        "print({'torch', 'mmengine', 'mmcv', 'mmdet', 'mmaction', 'timm'} & set(sys.modules))"
    )
    assert heavy.strip() == "set()"


def test_mmcv_finds_its_operators() -> None:
    from mmcv.utils.ext_loader import check_ops_exist, load_ext

    assert check_ops_exist()
    assert load_ext("_ext", ["nms", "roi_align_forward", "carafe_forward"]).nms


def test_stand_ins_are_packaged() -> None:
    package = Path(mmvitaccel.__file__).parent
    for source in STAND_INS.values():
        for folder in source.relative_to(package).parents:
            assert (package / folder / "__init__.py").is_file(), folder


def test_stand_ins_come_last() -> None:
    apply()
    positions = [i for i, f in enumerate(sys.meta_path) if isinstance(f, StandInFinder)]
    assert len(positions) == 1
    assert positions[0] > sys.meta_path.index(PathFinder)


def test_installed_modules_win(tmp_path: Path) -> None:
    for name in STAND_INS:  # packages of the same names, whose last parts really exist
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            folder = tmp_path.joinpath(*parts[:depth])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "__init__.py").write_text("installed = True")
    out = run(
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import importlib, mmvitaccel\n"
        f"print([importlib.import_module(name).installed for name in {list(STAND_INS)}])"
    )
    assert out.strip() == str([True] * len(STAND_INS))


@pytest.mark.parametrize("name", STAND_INS)
def test_stand_in_has_a_real_spec(name: str) -> None:
    spec = StandInFinder().find_spec(name)
    assert spec.name == name
    assert Path(spec.origin).is_file()
    assert spec.has_location


def test_rooms_say_what_they_need(tmp_path: Path) -> None:
    failures = (
        "for name in ('core', 'models', 'registry'):\n"
        "    try:\n"
        "        importlib.import_module('mmvitaccel.' + name)\n"
        "    except ModuleNotFoundError as error:\n"
        "        print(error, error.name)\n"
    )
    hint = "not installed here; run `python -m mmvitaccel.env` to see what to install."
    out = run(f"import importlib, mmvitaccel\n{failures}", bare=True)
    assert out.splitlines() == [
        f"mmvitaccel.core needs torch, {hint} torch",
        f"mmvitaccel.models needs torch and mmengine, {hint} torch",
        f"mmvitaccel.registry needs torch and mmengine, {hint} torch",
    ]
    # With torch alone the methods are there, for timm's models.
    (tmp_path / "torch.py").touch()
    out = run(
        f"sys.path.insert(0, {str(tmp_path)!r})\nimport importlib, mmvitaccel\n{failures}",
        bare=True,
    )
    assert out.splitlines() == [
        f"mmvitaccel.models needs mmengine, {hint} mmengine",
        f"mmvitaccel.registry needs mmengine, {hint} mmengine",
    ]


def test_finder_answers_for_nothing_else() -> None:
    assert StandInFinder().find_spec("mmcv._extension") is None
    assert find_spec("surely_not_installed") is None


def test_missing_operator_raises_when_called() -> None:
    ext = stand_in("mmcv._ext", "some_ext")
    op = ext.carafe_forward  # being there is what mmcv.ops checks on import
    with pytest.raises(
        NotImplementedError,
        match=rf"'carafe_forward'.*pip install --no-cache-dir --no-build-isolation {requirement()}",
    ):
        op(1, 2, group=3)
    with pytest.raises(AttributeError, match="__wrapped__"):
        ext.__wrapped__  # noqa: B018


def test_environment_report_of_mmcv() -> None:
    ext = stand_in("mmcv._ext", "some_ext")
    assert "stand-in" in ext.get_compiler_version()
    assert "stand-in" in ext.get_compiling_cuda_version()


def test_drn_says_why_it_cannot_be_built() -> None:
    pytest.importorskip("mmaction")
    import mmaction.models  # noqa: F401
    from mmaction.registry import MODELS

    with pytest.raises(NotImplementedError, match="DRN: the installed mmaction2 was packaged"):
        MODELS.build({"type": "mmaction.DRN"})


def test_backport_is_the_standard_library() -> None:
    backport = stand_in("importlib_metadata", "some_backport")
    assert backport.distribution is importlib.metadata.distribution
    assert backport.PackageNotFoundError is importlib.metadata.PackageNotFoundError


def test_after_import_acts_once_the_module_has_run(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "late_module.py").write_text("value = 1\ndef reload_me(): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    seen = []
    after_import("late_module", lambda module: seen.append(module.value))
    assert seen == []
    module = importlib.import_module("late_module")
    assert seen == [1]
    assert Path(module.__spec__.origin) == tmp_path / "late_module.py"
    after_import("late_module", lambda module: seen.append("now"))
    assert seen == [1, "now"]
    monkeypatch.delitem(sys.modules, "late_module")


def test_after_import_leaves_a_missing_module_missing(monkeypatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    after_import("surely_not_installed", pytest.fail)
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        importlib.import_module("surely_not_installed")


def test_look_up_without_pkg_resources() -> None:
    import mmdet

    assert is_installed("mmdet")
    assert not is_installed("surely_not_installed")
    assert get_installed_path("mmdet") == str(Path(mmdet.__file__).parent)
    with pytest.raises(importlib.metadata.PackageNotFoundError, match="surely_not_installed"):
        get_installed_path("surely_not_installed")


def test_look_up_of_a_package_whose_distribution_has_another_name() -> None:
    mmaction = pytest.importorskip("mmaction")
    assert is_installed("mmaction2")  # a distribution's name
    assert is_installed("mmaction")  # a package's name
    assert get_installed_path("mmaction2") == str(Path(mmaction.__file__).parent)
    assert package2module("mmaction2") == "mmaction"


def test_look_up_is_replaced_where_mmengine_holds_it(monkeypatch) -> None:
    import mmengine.config.config
    import mmengine.hub.hub
    from mmengine.utils import package_utils

    holders = (package_utils, mmengine.utils, mmengine.config.config, mmengine.hub.hub)
    for holder in holders:
        monkeypatch.setattr(holder, "get_installed_path", package_utils.get_installed_path)
    for holder in (*holders[:2], mmengine.config.config):
        monkeypatch.setattr(holder, "is_installed", package_utils.is_installed)
    monkeypatch.setattr(package_utils, "package2module", package_utils.package2module)
    replace_look_up(package_utils)
    assert all(holder.get_installed_path is get_installed_path for holder in holders)
    assert mmengine.config.config.is_installed is is_installed


def test_mmdet_bases_resolve_without_pkg_resources(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text("_base_ = ['mmdet::_base_/default_runtime.py']")
    out = run(
        "sys.modules['pkg_resources'] = None\n"
        "import importlib.util\n"
        "find_spec = importlib.util.find_spec\n"
        "importlib.util.find_spec = "
        "lambda n, *a: None if n == 'pkg_resources' else find_spec(n, *a)\n"
        "import mmvitaccel\n"
        "from mmengine.config import Config\n"
        f"print(Config.fromfile({str(config)!r}).default_scope)"
    )
    assert out.splitlines()[-1] == "mmdet"
