"""Optional packages: the sentence without one, and that every extra named has its pins."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmvitaccel import extras
from mmvitaccel.errors import UserError
from mmvitaccel.extras import require

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = {"myst_parser": "myst-parser", "sklearn": "scikit-learn"}


def pinned(extra: str) -> set[str]:
    """The distributions that ``requirements/<extra>.txt`` pins, every one to a version."""
    lines = (ROOT / "requirements" / f"{extra}.txt").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+", line) for line in lines), lines
    return {re.match(r"[\w.-]+", line)[0] for line in lines}


def extras_of_setup() -> tuple[str, ...]:
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "EXTRAS":
            return ast.literal_eval(node.value)
    raise AssertionError("setup.py has no EXTRAS")


def calls(source: str) -> Iterator[list[str]]:
    """The arguments of every ``require(...)`` and ``pytest.mark.extras(...)`` in a source."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        named = ast.unparse(node.func) in ("require", "pytest.mark.extras")
        # conftest's own call passes a marker's arguments on
        if named and all(isinstance(argument, ast.Constant) for argument in node.args):
            yield [argument.value for argument in node.args]


def test_installed_packages_pass():
    require("deploy", "torch", "numpy")


def test_one_missing_package():
    with pytest.raises(
        UserError,
        match=r"^no_such_thing is not installed: pip install 'mmvitaccel\[video\]' "
        r"\(in a checkout: pip install -r requirements/video\.txt\)$",
    ):
        require("video", "torch", "no_such_thing")


def test_several_missing_packages(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^onnx and onnxruntime are not installed: .*\[deploy\]"):
        require("deploy", "onnx", "onnxruntime")


@pytest.mark.parametrize("extra", extras_of_setup())
def test_extra_is_pinned(extra):
    assert pinned(extra)


def test_every_requirement_file_is_an_extra():
    files = {path.stem for path in (ROOT / "requirements").glob("*.txt")}
    assert files - {"default", "classic", "onedl"} == set(extras_of_setup())


def test_requirements_that_code_names_are_pinned():
    found = [
        arguments
        for folder in ("mmvitaccel", "tools", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if path != Path(__file__)
        for arguments in calls(path.read_text())
    ]
    assert ["deploy", "onnx", "onnxruntime"] in found
    for extra, *packages in found:
        assert extra in extras_of_setup(), extra
        assert {DISTRIBUTIONS.get(name, name) for name in packages} <= pinned(extra)


def run_marked(pytester: pytest.Pytester, package: str) -> pytest.RunResult:
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers = extras(extra, *packages): optional")
    pytester.makepyfile(
        f"import pytest\n@pytest.mark.extras('video', {package!r})\ndef test_a(): pass"
    )
    return pytester.runpytest_inprocess("-rs", "-p", "no:cacheprovider")


def test_marked_test_runs_with_its_package(pytester):
    run_marked(pytester, "torch").assert_outcomes(passed=1)


def test_marked_test_skips_without_its_package(pytester, monkeypatch):
    monkeypatch.setenv("MMVITACCEL_EXTRAS", "deploy")
    result = run_marked(pytester, "no_such_thing")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no_such_thing is not installed: pip install *video*"])


def test_marked_test_fails_where_its_extra_was_installed(pytester, monkeypatch):
    monkeypatch.setenv("MMVITACCEL_EXTRAS", "deploy video")
    run_marked(pytester, "no_such_thing").assert_outcomes(errors=1)


SHOW_TELEMETRY = """
import os, sys
from mmvitaccel.extras import require
require("serve")
names = ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "NNCF_CI",
         "RAY_USAGE_STATS_ENABLED")
print(*(os.environ[name] for name in names))
try:
    import openvino_telemetry
except ImportError as error:
    print(error)
"""


def telemetry(**variables: str) -> list[str]:
    """Settings after ``require`` in a process whose environment has only these of them."""
    known = ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "NNCF_CI")
    known += ("RAY_USAGE_STATS_ENABLED",)
    env = {name: value for name, value in os.environ.items() if name not in known} | variables
    done = subprocess.run(
        [sys.executable, "-c", SHOW_TELEMETRY], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_telemetry_is_off_before_the_import():
    settings, openvino = telemetry()
    assert settings == "False 1 1 0"
    assert openvino == "import of openvino_telemetry halted; None in sys.modules"


def test_who_wants_to_report_says_so_in_the_environment():
    assert telemetry(RAY_USAGE_STATS_ENABLED="1")[0] == "False 1 1 1"


@pytest.mark.extras("serve", "ray")
def test_ray_reports_nothing():
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not usage_stats_enabled()
