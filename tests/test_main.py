"""``python -m mmvitaccel TOOL ARGS...`` runs a script after the layer, as python would."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import mmvitaccel
from mmvitaccel.__main__ import find_tool, known_tools, main

ROOT = Path(mmvitaccel.__file__).parent.parent


def run(*arguments: str, bare: bool = False, **options: object) -> subprocess.CompletedProcess[str]:
    flags = ["-S"] if bare else []
    return subprocess.run(
        [sys.executable, *flags, "-m", "mmvitaccel", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


def test_script_runs_as_python_would_run_it(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("value = 'found'")
    script = tmp_path / "tool.py"
    script.write_text(
        "import sys, beside\n"
        "from mmvitaccel.compat.fallback import StandInFinder\n"
        "applied = any(isinstance(f, StandInFinder) for f in sys.meta_path)\n"
        "print(__name__, sys.argv, beside.value, applied)\n"
        "sys.exit(7)\n"
    )
    done = run(str(script), "--lr", "0.1", bare=True, cwd="/")
    assert done.stdout.strip() == f"__main__ {[str(script), '--lr', '0.1']} found True"
    assert done.returncode == 7
    assert done.stderr == ""


def test_error_of_a_script_keeps_its_traceback(tmp_path: Path) -> None:
    script = tmp_path / "tool.py"
    script.write_text("raise KeyError('what went wrong')")
    done = run(str(script), bare=True)
    assert done.returncode == 1
    assert "KeyError: 'what went wrong'" in done.stderr


def test_stock_test_tool_gets_past_its_imports() -> None:
    # On mmcv-lite this tool of mmdet fails in `import mmdet.evaluation` without the layer.
    done = run("mmdet/test", "missing_config.py", "missing.pth")
    assert "No module named 'mmcv._ext'" not in done.stderr
    assert "missing_config.py" in done.stderr.splitlines()[-1]
    assert done.returncode == 1


def test_short_names_are_of_installed_tools() -> None:
    pytest.importorskip("mmaction")
    tools = Path(find_spec("mmdet").origin).parent / ".mim" / "tools"
    assert find_tool("mmdet/test") == tools / "test.py"
    assert find_tool("mmdet/train.py") == tools / "train.py"
    nested = find_tool("mmdet/analysis_tools/get_flops")
    assert nested == tools / "analysis_tools" / "get_flops.py"
    tools = Path(find_spec("mmaction").origin).parent / ".mim" / "tools"
    assert find_tool("mmaction/train") == tools / "train.py"


def test_unknown_tool_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mmdet/tset"]) == 2
    said = capsys.readouterr().err
    assert "no tool 'mmdet/tset', did you mean mmdet/test;" in said
    assert "mmdet/test, " in said
    assert ("mmaction/train" in said) == (find_spec("mmaction") is not None)
    assert said.count("\n") == 1


def test_tool_of_a_missing_package() -> None:
    done = run("mmdet/test", bare=True)
    assert done.returncode == 2
    assert done.stderr == (
        "'mmdet/test': mmdet is not installed; python -m mmvitaccel.env says what to install.\n"
    )


def test_help_lists_every_tool(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name}\n" in listed for name in known_tools())
    assert main([]) == 2
