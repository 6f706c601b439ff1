"""Write the pages' tables: measured figures from benchmarks/results, hosts from their adapters.

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

A single figure in a sentence is the one row that fits, in YAML on one line, after a word (Markdown
ends a paragraph at a comment that begins a line):

    is <!-- figure {record: tome, column: r, format: "{}", where: {batch: 1}} -->8<!-- end -->

The families of transformers that the methods serve stand between ``<!-- hosts -->`` and
``<!-- end of hosts -->``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import yaml

from mmvitaccel.adapters.hosts.listing import table_of_hosts
from mmvitaccel.errors import UserError, closest, one_sentence_errors
from mmvitaccel.records.plan import Planned, read_plan
from mmvitaccel.records.record import CHECKOUT, Record, path_of, read_record

START, END = "<!-- table", "<!-- end of table -->"
BLOCK = re.compile(rf"^{START}\n(?P<spec>.*?)^-->\n(?P<table>.*?)^{END}$", re.MULTILINE | re.DOTALL)
KEYS = {"record", "where", "columns"}
FIGURE_START, FIGURE_END = "<!-- figure", "<!-- end -->"
FIGURE = re.compile(rf"{FIGURE_START} (?P<spec>.*?) -->[^\n]*?{FIGURE_END}")
HOSTS_START, HOSTS_END = "<!-- hosts -->", "<!-- end of hosts -->"
HOSTS = re.compile(rf"^{HOSTS_START}\n.*?^{HOSTS_END}$", re.MULTILINE | re.DOTALL)
FIGURE_KEYS = {"record", "column", "format", "where"}


def render_page(text: str, page: str, plan: Mapping[str, Planned]) -> str:
    """The text of a page with all of its tables as the records have them.

    Raises:
        UserError: A table asks for what is not there; the message begins with page and line.
    """

    def placed(match: re.Match[str], render: Callable[..., str]) -> str:
        line = match.string.count("\n", 0, match.start()) + 1
        try:
            return render(match["spec"], plan)
        except UserError as error:
            raise UserError(f"{page}:{line}: {error}") from error

    def table(match: re.Match[str]) -> str:
        return f"{START}\n{match['spec']}-->\n\n{placed(match, render_table)}\n\n{END}"

    def figure(match: re.Match[str]) -> str:
        return f"{FIGURE_START} {match['spec']} -->{placed(match, render_figure)}{FIGURE_END}"

    # Figures first, so that their lines are those of the file
    rendered = BLOCK.sub(table, FIGURE.sub(figure, text))
    hosts = f"{HOSTS_START}\n\n{table_of_hosts()}\n\n{HOSTS_END}"
    rendered = HOSTS.sub(lambda match: hosts, rendered)
    outside = HOSTS.sub("", FIGURE.sub("", BLOCK.sub("", text)))
    if re.search(rf"^[ >*-]*{FIGURE_START} ", BLOCK.sub("", text), re.MULTILINE):
        raise UserError(f"{page}: a line begins with a figure's comment; begin it with a word.")
    for mark in (START, END, FIGURE_START, FIGURE_END, HOSTS_START, HOSTS_END):
        if mark in outside:
            raise UserError(f"{page}: a '{mark}' has no counterpart; see benchmarks/pages.py.")
    return rendered


def render_table(spec: str, plan: Mapping[str, Planned]) -> str:
    """The Markdown of one table and of where its figures are from.

    Args:
        spec: The YAML of its first comment.
        plan: Every record that there may be.
    """
    asked = read_spec(spec, {"record", "columns"}, KEYS)
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


def render_figure(spec: str, plan: Mapping[str, Planned]) -> str:
    """The text of one figure of a sentence; says so where its record was not made yet."""
    asked = read_spec(spec, {"record", "column", "format"}, FIGURE_KEYS)
    record = find_record(asked["record"], plan)
    if record is None:
        return "(not measured yet)"
    rows = choose(record.rows, asked.get("where"), asked["record"])
    if len(rows) > 1:
        raise UserError(f"{len(rows)} rows of record {asked['record']!r} fit; narrow 'where'.")
    return show(cell(rows[0], asked["column"]), asked["format"], asked["column"])


def read_spec(spec: str, needed: Set[str], allowed: Set[str]) -> dict[str, Any]:
    """The YAML of a comment, checked."""
    try:
        asked = yaml.safe_load(spec)
    except yaml.YAMLError as error:
        raise UserError(f"the comment is not YAML: {error}") from error
    if not isinstance(asked, dict) or not needed <= set(asked) <= allowed:
        raise UserError(
            f"this comment has the keys {sorted(needed)} and perhaps {sorted(allowed - needed)}, "
            f"not {sorted(asked) if isinstance(asked, dict) else asked!r}."
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
    docs = sorted((CHECKOUT / "docs").rglob("*.md"))
    return [CHECKOUT / "README.md", *docs, *sorted((CHECKOUT / "configs").rglob("README.md"))]


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
            f"tables in {', '.join(differ)} differ from benchmarks/results or from the adapters; "
            "run 'make pages'."
        )
    agree = "pages agree with the records and the adapters"
    print(f"written: {', '.join(differ)}" if differ else agree)


if __name__ == "__main__":
    main()
