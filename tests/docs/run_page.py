"""Run the code blocks of a Markdown page, in order, in the folder that this is called in.

    python run_page.py PAGE

A block of Python is run in one namespace with those before it. One that begins with a comment that
is the name of a file, as ``# yours.py``, is written to that file instead. A block of bash is run by
bash; ``python`` is this one. Other blocks are text. An error names the page and its line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w/]+\.py)\n")


class Block(NamedTuple):
    """A code block; ``line`` is that of its first line in the page, from 1."""

    kind: str
    text: str
    line: int


def blocks_of(text: str) -> Iterator[Block]:
    """The code blocks of a page."""
    for match in BLOCK.finditer(text):
        yield Block(match["kind"], match["text"], text.count("\n", 0, match.start("text")) + 1)


def run(page: Path) -> None:
    """Run the page's blocks."""
    namespace = {"__name__": "__main__"}
    python = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{python}{os.pathsep}{os.environ['PATH']}"}
    sys.path.insert(0, "")
    for block in blocks_of(page.read_text()):
        file = FILE.match(block.text)
        if block.kind == "python" and file:
            Path(file[1]).write_text(block.text)
        elif block.kind == "python":
            # The line numbers of a traceback are then those of the page
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
        elif block.kind == "bash":
            print(f"{page}:{block.line}: bash", flush=True)
            subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], check=True, env=env)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
