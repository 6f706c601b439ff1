"""The rooms of the package: what each folder may import, and that no two import each other."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

import mmvitaccel

PACKAGE = Path(mmvitaccel.__file__).parent
MOST_MODULES = 12  # of a folder, its __init__ not counted

GATES, MODES, MAPS = "core/eventful/gates", "core/eventful/modes", "core/eventful/maps"
MOTION = "core/eventful/motion"
STREAMS = "adapters/eventful/streams"
OWN_HOSTS = "adapters/hosts/own"
MODEL_PACKAGES = {"mmengine", "mmcv", "mmdet", "mmaction"}

# folder: (folders and top modules that it may import beside itself, packages beside torch)
# Named alone, a folder stands for itself, not for what lies in it.
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    # what a user gives to any of them, checked
    "arguments": (set(), set()),
    # the methods
    "core": (set(), set()),
    "core/macs": (set(), set()),
    "core/kernels": ({"core", "core/kernels/library", "core/macs"}, set()),
    "core/kernels/library": (set(), set()),
    "core/attention": ({"core/kernels"}, set()),
    "core/rlt": (set(), set()),
    "core/tome": ({"arguments", "core", "core/attention", "core/kernels"}, set()),
    "core/eventful": (
        {"arguments", "core", GATES, MODES, MOTION, "core/attention", "core/kernels"},
        set(),
    ),
    GATES: ({"arguments", "core/kernels"}, set()),
    MODES: ({"arguments", GATES, "core/attention", "core/kernels"}, set()),
    MAPS: ({GATES, MOTION, "core/kernels"}, set()),
    MOTION: ({"arguments"}, set()),
    # what they are put on
    "adapters": ({"arguments", "core", "core/attention", "core/kernels"}, set()),
    "adapters/hosts": (
        {"adapters", OWN_HOSTS, *(f"adapters/hosts/{p}" for p in ("mmaction", "mmcv", "mmdet"))}
        | {f"adapters/hosts/{p}" for p in ("mmpretrain", "rfdetr", "segment_anything", "timm")}
        | {"adapters/hosts/transformers"},
        set(),
    ),
    "adapters/hosts/mmaction": ({"adapters", "adapters/hosts/mmcv"}, set()),
    "adapters/hosts/mmcv": ({"adapters", MAPS}, set()),
    "adapters/hosts/mmdet": ({"adapters", "adapters/hosts/mmcv", MAPS}, set()),
    "adapters/hosts/mmpretrain": ({"adapters", "core/attention"}, set()),
    "adapters/hosts/rfdetr": ({"adapters"}, set()),
    "adapters/hosts/segment_anything": ({"adapters"}, set()),
    OWN_HOSTS: ({"adapters", "adapters/hosts/mmcv", "core/eventful", MAPS}, set()),
    "adapters/hosts/timm": ({"adapters", "core/attention"}, set()),
    "adapters/hosts/transformers": ({"adapters", "core/attention"}, set()),
    "adapters/tome": (
        {"adapters", "adapters/hosts", "arguments", "core/attention", "core/kernels"}
        | {"core/tome"},
        set(),
    ),
    "adapters/rlt": (
        {"adapters", "adapters/hosts", "adapters/hosts/transformers", "arguments"}
        | {"core/kernels", "core/rlt"},
        set(),
    ),
    STREAMS: ({"adapters", "core", "core/eventful", GATES, MOTION, "core/kernels"}, set()),
    "adapters/eventful": (
        {"adapters", "adapters/hosts", "adapters/tome", "core/eventful", GATES, MAPS, MODES, MOTION}
        | {"arguments", STREAMS, "core", "core/kernels"},
        set(),
    ),
    # what steers them while they run
    "budget": (
        {"adapters", "adapters/tome", "adapters/eventful", "arguments", "core/macs"},
        set(),
    ),
    # a user's mistakes in a sentence
    "errors": ({"text_files"}, set()),
    # the installed stack, which need not be there for its report
    "env": ({"compat", "core/kernels/library", "version"}, set()),
    "compat": (set(), {"mmengine", "mmcv", "mmaction"}),
    "compat/ops": (set(), {"mmcv"}),
    "compat/stand_ins": ({"compat", "compat/ops"}, set()),
    "compat/stand_ins/mmaction_drn": (set(), {"mmaction"}),
    # what OpenMMLab's registries know
    "models": (
        {"models/efficientvit", "models/vitdet", "models/vivit", "models/weights"}
        | {"arguments", "models/wrappers", "registry"},
        MODEL_PACKAGES,
    ),
    "models/weights": ({"arguments", "compat"}, MODEL_PACKAGES),
    "models/efficientvit": (
        {"core", "core/attention", "core/kernels", "core/kernels/library", "models/weights"}
        | {"arguments", "registry"},
        MODEL_PACKAGES,
    ),
    "models/vitdet": (
        {"arguments", "core", "core/attention", "models/weights", "registry"},
        MODEL_PACKAGES,
    ),
    "models/vivit": ({"arguments", "models/weights", "registry"}, MODEL_PACKAGES),
    "models/wrappers": (
        {"adapters", "adapters/hosts", "adapters/rlt", "adapters/tome", "adapters/eventful"}
        | {"arguments", "registry", "core/eventful", "core/tome", GATES, MODES, MOTION},
        MODEL_PACKAGES,
    ),
    "datasets": (
        {"arguments", "datasets/synthetic", "errors", "registry", "text_files", "video_reader"},
        MODEL_PACKAGES,
    ),
    "datasets/ilsvrc": ({"datasets", "text_files", "video_reader", "whole_files"}, set()),
    "datasets/synthetic": (set(), set()),
    # a metric reads the annotations in the format that the datasets define
    "metrics": ({"arguments", "datasets", "registry"}, {"mmengine", "mmdet", "mmaction"}),
    # a hook puts on a built model what the registered functions put on one that they build
    "hooks": (
        {"adapters", "adapters/rlt", "adapters/tome", "adapters/eventful", "models/wrappers"}
        | {"arguments", "registry", "budget", "core/macs", "core/tome", "pictures"}
        | {GATES, MODES, STREAMS},
        {"mmengine"},
    ),
    # a layout ends in the names of a model; one of them is of a data set
    "conversion": (
        {"conversion/efficientvit", "conversion/layout", "conversion/vitdet", "conversion/vivit"}
        | {"compat", "models/weights", "version", "whole_files"},
        set(),
    ),
    "conversion/layout": (set(), set()),
    "conversion/efficientvit": (
        {"conversion/layout", "models/efficientvit", "models/weights"},
        set(),
    ),
    "conversion/vitdet": ({"conversion/layout", "datasets"}, set()),
    "conversion/vivit": ({"conversion/layout"}, set()),
    # what the tools are made of
    "loaders": ({"compat", "errors", "video_reader"}, {"mmengine"}),
    "runner": (
        {"adapters", "arguments", "conversion", "errors", "loaders", "models/weights", "registry"}
        | {"models/wrappers", "runner/options", "whole_files"},
        {"mmengine"},
    ),
    "runner/options": ({"errors"}, {"mmengine"}),
    # compares what a config names before it runs; a model runs once, of no stream
    "fit": (
        {
            "core/eventful",
            "errors",
            "fit/coco",
            "fit/course",
            "fit/lines",
            "fit/settings",
            "fit/voc",
        }
        | {"models/weights", "registry", "runner", "text_files"},
        {"mmengine"},
    ),
    "fit/built": ({"errors", "fit", "fit/lines", "models/wrappers"}, {"mmengine"}),
    "fit/coco": (set(), set()),
    "fit/course": ({"errors", "registry"}, {"mmengine"}),
    "fit/lines": (set(), set()),
    "fit/settings": ({"errors", "registry"}, {"mmengine"}),
    "fit/voc": ({"errors", "text_files"}, set()),
    "deploy": (
        {"adapters", "core/kernels", "errors", "extras", "fit", "hooks", "models/weights"}
        | {"registry", "runner", "runner/options"},
        {"mmengine", "mmdet"},
    ),
    # pictures, upright and with their times, of whatever a user calls a video
    "video_reader": ({"errors"}, set()),
    "video": (
        {"core/eventful", "core/macs", "errors", "loaders", "models/weights", "registry"}
        | {"runner", "text_files", "video_reader", "whole_files"},
        {"mmengine"},
    ),
    "analysis": (
        {"adapters", "adapters/hosts", STREAMS, "core/attention", "core/eventful"}
        | {
            "analysis/sweep",
            "core/macs",
            "datasets/synthetic",
            "errors",
            "fit",
            "loaders",
            "models/efficientvit",
            "models/weights",
        }
        | {"runner", "video"},
        {"mmengine"},
    ),
    # one set of weights at many operating points
    "analysis/sweep": (
        {"adapters", "errors", "fit", "models/weights", "registry", "runner", "whole_files"},
        {"mmengine"},
    ),
    # one set of weights in several formats
    "analysis/formats": (
        {"adapters", "analysis/sweep", "core/kernels", "deploy", "errors", "extras", "fit"}
        | {"loaders", "models/efficientvit", "models/weights", "registry", "runner"},
        {"mmengine"},
    ),
    # a work directory as one page
    "analysis/report": ({"errors"}, set()),
    "pictures": (
        {"adapters", "adapters/tome", "adapters/eventful", "core/attention", "errors"}
        | {"models/wrappers", "registry", "runner", "video_reader"},
        {"mmengine"},
    ),
    "video_demo": (
        {"adapters/eventful", "budget", "core/macs", "errors", "extras", "fit"}
        | {
            "models/weights",
            "models/wrappers",
            "pictures",
            "runner",
            "video_reader",
            "whole_files",
        },
        {"mmengine"},
    ),
    # streams in service, of which the model's thread is one worker's
    "serving": (
        {"adapters/eventful", "budget", "errors", GATES, "models/wrappers", "pictures", "runner"},
        {"mmengine"},
    ),
    "serving/ray_app": ({"budget", "errors", "extras", "serving", "text_files"}, set()),
    # many videos, many workers
    "serving/batch": (
        {"errors", "extras", "loaders", "models/weights", "runner", "video_demo", "video_reader"}
        | {"serving/ray_app", "text_files", "whole_files"},
        set(),
    ),
    # the outermost layer: a server of what the tool for videos does
    "app": (
        {"budget", "datasets/synthetic", "errors", "extras", "runner", "video_demo"}
        | {"video_reader"},
        set(),
    ),
    # what tests and benchmarks share
    "records": ({"errors"}, set()),
    "testing": (
        {"adapters/eventful", GATES, "serving"}
        | {"deploy", "errors", "extras", "models/efficientvit", "models/vitdet", "models/vivit"}
        | {"registry", "runner", "video", "video_reader"},
        {"mmaction", "timm"},
    ),
    "testing/fuzz": (
        {"conversion", "datasets", "datasets/ilsvrc", "errors", "fit", "models/efficientvit"}
        | {"runner", "runner/options", "video_reader"},
        {"mmengine"},
    ),
    "demo": (
        {"analysis", "analysis/sweep", "datasets/synthetic", "errors", "pictures", "runner"}
        | {"video_demo", "video_reader", "whole_files"},
        {"mmengine"},
    ),
}
OUTSIDE = {"mmengine", "mmcv", "mmdet", "mmaction", "mmpretrain", "timm"}
# An adapter is a record of a host; using the host inside a function is no better.
NEVER_LATER = ("core", "adapters")
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def folder_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parent.as_posix()


def imported(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str, bool]]:
    """Line, dotted name, and whether it happens on import, of every import in a source.

    What is under ``if TYPE_CHECKING`` never runs and is left out.
    """
    tree = ast.parse(source)
    unrun = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test)
        for statement in outer.body
        for node in ast.walk(statement)
    }
    later = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if id(node) in unrun:
            continue
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


def place_of(name: str) -> str:
    """The folder that a dotted name below ``mmvitaccel`` lies in, or the name of a top module."""
    parts = name.split(".")[1:]
    folder = PACKAGE
    for depth, part in enumerate(parts):
        if not (folder / part).is_dir():
            return "/".join(parts[:depth]) or part
        folder = folder / part
    return "/".join(parts)


def imports_of(source: str, path: Path) -> Iterator[tuple[int, str, bool]]:
    """The imports of a file of the package, as :func:`imported` gives them."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    module = ".".join(["mmvitaccel", *(parts[:-1] if is_package else parts)])
    return imported(source, module, is_package)


def outward(source: str, path: Path) -> list[str]:
    """Say which imports of a file its folder does not allow."""
    folder = folder_of(path)
    places, packages = ROOMS[folder]
    wrong = []
    for line, name, on_import in imports_of(source, path):
        top = name.partition(".")[0]
        if top == "mmvitaccel":
            allowed = place_of(name) in places | {folder}
        elif top in OUTSIDE:
            allowed = top in packages or (
                not on_import and folder.partition("/")[0] not in NEVER_LATER
            )
        else:
            allowed = True
        if not allowed:
            wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    return wrong


def graph_of(files: Iterable[tuple[Path, str]]) -> dict[str, set[str]]:
    """Which other folders each folder imports, inside functions too."""
    graph = defaultdict(set)
    for path, source in files:
        folder = folder_of(path)
        for _, name, _ in imports_of(source, path):
            if name.partition(".")[0] == "mmvitaccel" and place_of(name) != folder:
                graph[folder].add(place_of(name))
    return graph


def cycle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """One cycle of folders, its first repeated at the end; empty where there is none."""
    done: set[str] = set()

    def visit(folder: str, trail: list[str]) -> list[str]:
        if folder in trail:
            return [*trail[trail.index(folder) :], folder]
        if folder in done:
            return []
        found = next(
            filter(None, (visit(to, [*trail, folder]) for to in sorted(graph.get(folder, ())))), []
        )
        done.add(folder)
        return found

    return next(filter(None, (visit(folder, []) for folder in sorted(graph))), [])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_inwards(path: Path) -> None:
    assert outward(path.read_text(), path) == []


def test_every_folder_has_a_row_that_names_what_exists() -> None:
    assert {folder_of(path) for path in FILES} == set(ROOMS)
    top_modules = {path.stem for path in PACKAGE.glob("*.py")}
    for folder, (places, packages) in ROOMS.items():
        assert places <= set(ROOMS) | top_modules, folder
        assert packages <= OUTSIDE, folder


def test_no_row_allows_what_nobody_uses() -> None:
    used = graph_of((path, path.read_text()) for path in FILES)
    unused = {folder: places - used[folder] for folder, (places, _) in ROOMS.items()}
    assert {folder: places for folder, places in unused.items() if places} == {}


def test_no_folder_holds_more_than_a_dozen_modules() -> None:
    counts = {
        folder: sum(folder_of(p) == folder and p.stem != "__init__" for p in FILES)
        for folder in ROOMS
    }
    assert {folder: n for folder, n in counts.items() if n > MOST_MODULES} == {}


def test_no_two_folders_import_each_other() -> None:
    assert cycle_in(graph_of((path, path.read_text()) for path in FILES)) == []


def test_planted_cycle_is_found() -> None:
    planted = (PACKAGE / GATES / "planted.py", f"import mmvitaccel.{MODES.replace('/', '.')}.mode")
    files = [(path, path.read_text()) for path in FILES]
    cycle = cycle_in(graph_of([*files, planted]))
    assert cycle[0] == cycle[-1]
    assert {GATES, MODES} <= set(cycle)


def test_longer_cycle_is_found() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c", "d"}, "d": {"a"}}) == ["a", "b", "d", "a"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("core/tome", "import mmengine"),
        ("core/tome", "from mmvitaccel.adapters import attach"),
        ("core/tome", "from mmvitaccel.core.eventful.gates.gate import Gate"),
        ("core/tome", "from mmvitaccel.registry import MODELS"),
        ("core/tome", "from ...hooks import x"),
        ("core/tome", "from ... import models"),
        ("core/tome", "def f():\n    import mmvitaccel.models"),
        (GATES, "from mmvitaccel.core.eventful.stream import Stream"),
        ("adapters", "from mmvitaccel.adapters.hosts import find"),
        ("adapters", "import timm.models"),
        ("adapters", "def f():\n    from timm.models import create_model"),
        ("models/vitdet", "from mmvitaccel.models.wrappers.tome import ToMe"),
        ("models", "from mmvitaccel.hooks import x"),
        ("models", "import timm"),
        ("hooks", "import mmdet.structures"),
        ("hooks", "from mmvitaccel import metrics"),
        ("runner", "from mmvitaccel.analysis import flops"),
    ],
)
def test_outward_import_is_found(folder: str, source: str) -> None:
    found = outward(source, PACKAGE / folder / "some_file.py")
    assert len(found) == 1
    assert found[0].startswith(f"{folder}/some_file.py:")


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("core/tome", "import torch.nn as nn\nfrom .schedule import r_per_block"),
        ("adapters/tome", "from mmvitaccel.core.tome.merge import match"),
        ("models", "from mmdet.registry import MODELS\nfrom mmvitaccel.registry import SCOPE"),
        ("models", "def f():\n    import timm"),
        ("models", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import timm"),
        ("hooks", "from mmengine.hooks import Hook"),
    ],
)
def test_inward_import_is_allowed(folder: str, source: str) -> None:
    assert outward(source, PACKAGE / folder / "some_file.py") == []
