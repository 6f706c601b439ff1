"""Write the pages' tables of measured figures from the records in benchmarks/results.

    python benchmarks/pages.py            # what `make pages` does
    python benchmarks/pages.py --check    # what `make lint` does: fail if a page differs

A table stands between two comments. The first is YAML and says which record (or records, one after
the other), which rows and which columns; what follows is generated:

    <!-- table
    record: eventful-1024
    where: {mode: exact}
    columns:
      k: k
      dense_ms: dense, ms | {:.0f}
      seconds*1000: eventful, ms | {:.0f}
    -->
    ...
    <!-- end of table -->

``where`` keeps rows whose column has that value, or one of a list. A column is named as in the
rows, may be multiplied by a number, and has a title and, behind ``|``, a format. Where a record has
not been made yet, the page says so and names the command: no figure stands there that was measured
on another tree. `benchmarks/records.yaml` lists every record with its command.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mmvitaccel.errors import UserError, closest, one_sentence_errors
from mmvitaccel.records.plan import Planned, read_plan
from mmvitaccel.records.record import CHECKOUT, Record, path_of, read_record

START, END = "<!-- table", "<!-- end of table -->"
BLOCK = re.compile(rf"^{START}\n(?P<spec>.*?)^-->\n(?P<table>.*?)^{END}$", re.MULTILINE | re.DOTALL)
KEYS = {"record", "where", "columns"}


def render_page(text: str, page: str, plan: Mapping[str, Planned]) -> str:
    """The text of a page with all of its tables as the records have them.

    Raises:
        UserError: A table asks for what is not there; the message begins with page and line.
    """

    def render(match: re.Match[str]) -> str:
        line = text.count("\n", 0, match.start()) + 1
        try:
            table = render_table(match["spec"], plan)
        except UserError as error:
            raise UserError(f"{page}:{line}: {error}") from error
        return f"{START}\n{match['spec']}-->\n\n{table}\n\n{END}"

    rendered = BLOCK.sub(render, text)
    outside = BLOCK.sub("", text)
    for mark in (START, END):
        if mark in outside:
            raise UserError(f"{page}: a '{mark}' has no counterpart; see benchmarks/pages.py.")
    return rendered


def render_table(spec: str, plan: Mapping[str, Planned]) -> str:
    """The Markdown of one table and of where its figures are from.

    Args:
        spec: The YAML of its first comment.
        plan: Every record that there may be.
    """
    asked = read_spec(spec)
    names = asked["record"] if isinstance(asked["record"], list) else [asked["record"]]
    parts = [(name, find_record(name, plan)) for name in names]
    made = [(name, record) for name, record in parts if record is not None]
    rows = [row for name, record in made for row in choose(record.rows, asked.get("where"), name)]
    texts = [markdown(rows, asked["columns"])] if rows else []
    texts += [
        not_yet(plan[name].full_command(name)) if record is None else source(record)
        for name, record in parts
    ]
    return "\n\n".join(texts)


def read_spec(spec: str) -> dict[str, Any]:
    """The YAML of a table's first comment, checked."""
    try:
        asked = yaml.safe_load(spec)
    except yaml.YAMLError as error:
        raise UserError(f"the table's comment is not YAML: {error}") from error
    if not isinstance(asked, dict) or not {"record", "columns"} <= set(asked) <= KEYS:
        raise UserError(
            f"a table's comment has the keys 'record', 'columns' and perhaps 'where'; this has "
            f"{sorted(asked) if isinstance(asked, dict) else asked!r}."
        )
    return asked


def find_record(name: str, plan: Mapping[str, Planned]) -> Record | None:
    """The record of a name that the plan knows; None where it was not made yet."""
    if name not in plan:
        raise UserError(
            f"record {name!r} is not in benchmarks/records.yaml{closest(name, plan)}; correct the "
            "name, or add it with its command."
        )
    path = path_of(name)
    return read_record(path) if path.is_file() else None


def choose(
    rows: Sequence[Mapping[str, Any]], where: Mapping[str, Any] | None, name: str
) -> list[Mapping[str, Any]]:
    """The rows whose columns have the values that are asked for."""
    chosen = list(rows)
    for column, value in (where or {}).items():
        allowed = value if isinstance(value, list) else [value]
        chosen = [row for row in chosen if cell(row, column) in allowed]
    if not chosen:
        raise UserError(f"no row of record {name!r} has {where}; correct 'where'.")
    return chosen


def cell(row: Mapping[str, Any], column: str) -> Any:
    """A value of a row, multiplied where the column's name says so."""
    name, _, factor = column.partition("*")
    if name not in row:
        raise UserError(
            f"the record has no column {name!r}{closest(name, row)}; it has {', '.join(row)}."
        )
    value = row[name]
    return value * float(factor) if factor and value is not None else value


def markdown(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Rows as a Markdown table; columns of numbers are aligned to the right."""
    heads, rules, cells = [], [], []
    for column, text in columns.items():
        title, _, form = (part.strip() for part in text.partition("|"))
        values = [cell(row, column) for row in rows]
        numbers = all(isinstance(value, (int, float, type(None))) for value in values)
        heads.append(title)
        rules.append("---:" if numbers else "---")
        cells.append([show(value, form or "{}", column) for value in values])
    lines = [heads, rules, *zip(*cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(value: Any, form: str, column: str) -> str:
    """A value in its format; nothing for None."""
    if value is None:
        return ""
    try:
        return form.format(value)
    except (ValueError, IndexError, KeyError) as error:
        raise UserError(f"column {column!r}: {value!r} does not fit {form!r} ({error}).") from error


def source(record: Record) -> str:
    """Where figures are from: command, day, commit, machine and what matters of the software."""
    machine, versions = record.machine, record.versions
    about = [
        record.date,
        f"commit {record.commit[:10]}"
        + (" with uncommitted changes" if record.uncommitted else ""),
        f"{int(record.seconds) // 60}:{int(record.seconds) % 60:02d} min",
        f"{machine['cpu']}, {machine['instructions']}",
        f"{machine['cores']} cores, {machine['memory_gib']} GiB",
        machine["gpu"] or "no GPU",
        f"torch {versions['torch']}, {machine['threads']} threads",
    ]
    if record.others is not None:
        about.append(f"other processes took {record.others:.0%} of the CPU")
    return f"`{record.command}`\n({'; '.join(about)})"


def not_yet(command: str) -> str:
    """What stands where a record was not made yet."""
    return f"*Not measured on this tree yet; `{command}` does so.*"


def pages() -> list[Path]:
    """Pages that may hold tables."""
    return [CHECKOUT / "README.md", *sorted((CHECKOUT / "configs").rglob("README.md"))]


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing, fail if a page differs"
    )
    args = parser.parse_args(argv)
    plan, differ = read_plan(), []
    for path in pages():
        name = path.relative_to(CHECKOUT).as_posix()
        text = path.read_text()
        rendered = render_page(text, name, plan)
        if rendered != text:
            differ.append(name)
            if not args.check:
                path.write_text(rendered)
    for name, planned in plan.items():
        if not path_of(name).is_file():
            print(f"not measured yet: {planned.full_command(name)}")
    if args.check and differ:
        sys.stdout.flush()
        raise UserError(
            f"tables in {', '.join(differ)} differ from benchmarks/results; run 'make pages'."
        )
    print("pages agree with the records" if not differ else f"written: {', '.join(differ)}")


if __name__ == "__main__":
    main()
