"""The rooms of the package: what each may import. Fails on an outward import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmvitaccel

PACKAGE = Path(mmvitaccel.__file__).parent
ROOMS = {
    # room: (rooms inside it, OpenMMLab packages and others that it may import on top of torch)
    "core": ({"core"}, set()),
    "adapters": ({"core", "adapters"}, set()),
    "compat": ({"compat"}, {"mmengine", "mmcv", "mmaction"}),
    "models": ({"core", "adapters", "compat", "models"}, {"mmengine", "mmcv", "mmdet", "mmaction"}),
    # a hook puts on a built model what the registered functions put on one that they build
    # a layout ends in the names of a model; one of them is of a data set
    "conversion": ({"compat", "models", "datasets", "conversion"}, set()),
    "hooks": ({"core", "adapters", "compat", "models", "hooks"}, {"mmengine"}),
    "datasets": ({"core", "compat", "datasets"}, {"mmengine", "mmcv", "mmdet", "mmaction"}),
    # a metric reads the annotations in the format that the datasets define
    "metrics": ({"core", "compat", "datasets", "metrics"}, {"mmengine", "mmdet", "mmaction"}),
}
SHARED = {"registry", "version"}
OUTSIDE = {"mmengine", "mmcv", "mmdet", "mmaction", "mmpretrain", "timm"}
HERE = sorted(p for room in ROOMS for p in (PACKAGE / room).rglob("*.py"))


def imported(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str, bool]]:
    """Line, dotted name, and whether it happens on import, of every import in a source."""
    tree = ast.parse(source)
    later = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")
            if node.level:
                base = base[: len(base) - node.level + is_package]
                base += node.module.split(".") if node.module else []
            else:
                base = node.module.split(".")
            names = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        for name in names:
            yield node.lineno, name, id(node) not in later


def is_checking_types(source: str, line: int) -> bool:
    """Whether a line is under ``if TYPE_CHECKING``, which never runs."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return node.body[0].lineno <= line <= node.body[-1].end_lineno
    return False


def outward(source: str, path: Path) -> list[str]:
    """Say which imports of a file its room does not allow."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    rooms, packages = ROOMS[parts[0]]
    is_package = parts[-1] == "__init__"
    module = ".".join(["mmvitaccel", *(parts[:-1] if is_package else parts)])
    wrong = []
    for line, name, on_import in imported(source, module, is_package):
        top, _, rest = name.partition(".")
        room = rest.partition(".")[0]
        if top == "mmvitaccel":
            shared = SHARED if packages else {"version"}
            allowed = room in rooms | shared
        elif top in OUTSIDE:
            # reason: an adapter is a record of a host; using one inside a function is no better.
            allowed = top in packages or (not on_import and parts[0] not in ("core", "adapters"))
        else:
            allowed = True
        if not allowed and not is_checking_types(source, line):
            wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    return wrong


@pytest.mark.parametrize("path", HERE, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_inwards(path: Path) -> None:
    assert outward(path.read_text(), path) == []


def test_every_room_is_looked_at() -> None:
    rooms = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    # engine is what the tools share: it may use every room.
    assert rooms - {"engine"} == set(ROOMS)
    assert all(any(PACKAGE / room in p.parents for p in HERE) for room in ROOMS)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("core", "import mmengine"),
        ("core", "from mmvitaccel.adapters import attach"),
        ("core", "from mmvitaccel.registry import MODELS"),
        ("core", "from ..hooks import x"),
        ("core", "from .. import models"),
        ("core", "def f():\n    import mmvitaccel.models"),
        ("adapters", "import timm.models"),
        ("adapters", "def f():\n    from timm.models import create_model"),
        ("models", "from mmvitaccel.hooks import x"),
        ("models", "import timm"),
        ("hooks", "import mmdet.structures"),
        ("hooks", "from mmvitaccel import metrics"),
    ],
)
def test_outward_import_is_found(room: str, source: str) -> None:
    found = outward(source, PACKAGE / room / "some_file.py")
    assert len(found) == 1
    assert found[0].startswith(f"{room}/some_file.py:")


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("core", "import torch.nn as nn\nfrom .window import partition"),
        ("adapters", "from mmvitaccel.core.tome import match"),
        ("models", "from mmdet.registry import MODELS\nfrom mmvitaccel.registry import SCOPE"),
        ("models", "def f():\n    import timm"),
        ("models", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import timm"),
        ("hooks", "from mmengine.hooks import Hook"),
    ],
)
def test_inward_import_is_allowed(room: str, source: str) -> None:
    assert outward(source, PACKAGE / room / "some_file.py") == []
