"""``python -m mmvitaccel TOOL ARGS...``: run a stock OpenMMLab tool with the compatibility patches.

Some OpenMMLab tools import mmdet's operators before they read the ``custom_imports`` of a config.
With mmcv-lite they fail unless mmvitaccel was imported first. TOOL is a path, or the
name of an installed tool such as ``mmdet/test`` or ``mmaction/train``. Several processes:
``torchrun --nproc_per_node N -m mmvitaccel mmdet/train CONFIG --launcher pytorch``.
"""

from __future__ import annotations

import difflib
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

USAGE = "usage: python -m mmvitaccel TOOL ARGS..."
PACKAGES = ("mmdet", "mmaction", "mmpretrain", "mmvitaccel")


def tools_folder(package: str) -> Path | None:
    """Return the folder of a package's tools, or None.

    Args:
        package: Import name; it is not imported.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    # Wheels have the tools inside the package, checkouts beside it.
    return next((f for f in (root / ".mim" / "tools", root.parent / "tools") if f.is_dir()), None)


def known_tools() -> dict[str, Path]:
    """Return every installed tool by its short name, ``package/path/to/tool``."""
    known = {}
    for package in PACKAGES:
        folder = tools_folder(package)
        for path in sorted(folder.rglob("*.py")) if folder else ():
            known[f"{package}/{path.relative_to(folder).with_suffix('').as_posix()}"] = path
    return known


def find_tool(name: str) -> Path:
    """Return the script to run.

    Args:
        name: A path, or a short name.

    Raises:
        ValueError: There is no such script; the message lists the known ones.
    """
    if Path(name).is_file():
        return Path(name)
    known = known_tools()
    short = name.removesuffix(".py")
    if short in known:
        return known[short]
    package = short.partition("/")[0]
    if package in PACKAGES and find_spec(package) is None:
        raise ValueError(
            f"'{name}': {package} is not installed; python -m mmvitaccel.env says what to install."
        )
    main_tools = [tool for tool in known if tool.count("/") == 1]
    close = difflib.get_close_matches(short, known, n=1)
    raise ValueError(
        f"There is no file and no tool '{name}'{f', did you mean {close[0]}' if close else ''}; "
        f"the tools are {', '.join(main_tools) or 'none'} and others that --help lists."
    )


def main(arguments: list[str]) -> int | None:
    """Run a tool as ``python TOOL ARGS...`` would; its exit status is passed on.

    Args:
        arguments: The tool, then its own arguments.

    Returns:
        An exit status if no tool was run.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{USAGE}\n\nTOOL is the path of a script or one of:")
        print("\n".join(f"  {name}" for name in known_tools()))
        return 0 if arguments else 2
    try:
        tool = find_tool(arguments[0])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    sys.argv = [str(tool), *arguments[1:]]
    sys.path.insert(0, str(tool.resolve().parent))  # a script finds the modules beside it
    runpy.run_path(str(tool), run_name="__main__")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
