"""Tables of pages: made from records, checked, and honest where there is no record."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from mmvitaccel.errors import UserError
from mmvitaccel.records import record as records
from mmvitaccel.records.plan import Planned
from mmvitaccel.records.record import CHECKOUT, Record, path_of, write_record

ROWS = [
    dict(model="ViT", r=8, seconds=0.5, speedup=1.256, error=None, best=False),
    dict(model="ViT", r=13, seconds=0.25, speedup=2.0, error=0.05, best=True),
]
RECORD = Record(
    command="python benchmarks/tome.py --rounds 5",
    date="2026-01-31",
    seconds=125.4,
    commit="0123456789abcdef",
    uncommitted=False,
    machine=dict(cpu="A CPU", instructions="AVX2", cores=2, memory_gib=23, gpu=None, threads=2),
    versions=dict(torch="2.14.1"),
    others=0.014,
    rows=ROWS,
)
PLAN = {"tome": Planned("benchmarks/tome.py --rounds 5", 2), "other": Planned("tools/a.py", 1)}
PAGE = """# Page

<!-- table
record: tome
where: {best: true}
columns:
  model: model
  r: r
  seconds*1000: dense, ms | {:.0f}
  speedup: speed-up | {:.2f}x
-->
old
<!-- end of table -->

after
"""
MADE = """
| model | r | dense, ms | speed-up |
| --- | ---: | ---: | ---: |
| ViT | 13 | 250 | 2.00x |

`python benchmarks/tome.py --rounds 5`
(2026-01-31; commit 0123456789; 2:05 min; A CPU, AVX2; 2 cores, 23 GiB; no GPU; torch 2.14.1, \
2 threads; other processes took 1% of the CPU)

"""


@pytest.fixture
def pages(load_benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results")
    return load_benchmark("pages")


@pytest.fixture
def tome(pages):
    write_record(path_of("tome"), RECORD)


def spec(**changes):
    lines = dict(record="tome", columns="{model: model}") | changes
    return "".join(f"{key}: {value}\n" for key, value in lines.items())


def test_a_table_and_where_it_is_from(pages, tome):
    rendered = pages.render_page(PAGE, "page", PLAN)
    assert rendered == PAGE.replace("old\n", MADE)
    assert pages.render_page(rendered, "page", PLAN) == rendered


def test_without_a_record_no_figure_stays(pages):
    rendered = pages.render_page(PAGE, "page", PLAN)
    assert "old" not in rendered and "| ViT |" not in rendered
    command = "python benchmarks/tome.py --rounds 5 --record tome"
    assert f"*Not measured on this tree yet; `{command}` does so.*" in rendered


def test_missing_values_are_empty_and_columns_of_text_are_on_the_left(pages, tome):
    columns = "{error: 'error | {:.3f}', seconds*1000: ms, model: '**model**', best: best}"
    assert pages.render_table(spec(columns=columns), PLAN).splitlines()[:4] == [
        "| error | ms | **model** | best |",
        "| ---: | ---: | --- | ---: |",
        "|  | 500.0 | ViT | False |",
        "| 0.050 | 250.0 | ViT | True |",
    ]


def test_rows_of_several_records_and_of_several_values(pages, tome):
    changed = replace(RECORD, command="python tools/a.py", uncommitted=True, others=None)
    write_record(path_of("other"), changed)
    text = pages.render_table(spec(record="[tome, other]", where="{r: [8]}"), PLAN)
    assert text.count("| ViT |") == 2
    assert "commit 0123456789 with uncommitted changes;" in text
    assert text.count("of the CPU") == 1
    path_of("other").unlink()
    text = pages.render_table(spec(record="[tome, other]", where="{r: [8]}"), PLAN)
    assert text.count("| ViT |") == 1 and "`python tools/a.py --record other` does so" in text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(record="tom"), r"record 'tom' is not in .*; did you mean 'tome'"),
        (
            dict(columns="{spedup: a}"),
            r"no column 'spedup'; did you mean 'speedup'.* has model, r",
        ),
        (dict(where="{r: 99}"), r"no row of record 'tome' has \{'r': 99\}"),
        (dict(columns="{model: 'a | {:.2f}'}"), r"column 'model': 'ViT' does not fit '\{:\.2f\}'"),
        (
            dict(rows="1"),
            r"has the keys \['columns', 'record'\] .*not \['columns', 'record', 'rows'\]",
        ),
        (dict(where="{"), r"comment is not YAML"),
    ],
)
def test_a_table_that_asks_for_what_is_not_there(pages, tome, changes, sentence):
    page = f"one\n\n<!-- table\n{spec(**changes)}-->\n<!-- end of table -->\n"
    with pytest.raises(UserError, match=rf"^page:3: .*{sentence}"):
        pages.render_page(page, "page", PLAN)


FIGURE = (
    '<!-- figure {record: tome, column: speedup, format: "{:.1f}", where: {r: 13}} -->'
    "%s<!-- end -->"
)


def test_figures_in_sentences(pages, tome):
    text = f"It is {FIGURE % 9} and {FIGURE % 8} times\n\n{PAGE}"
    rendered = pages.render_page(text, "page", PLAN)
    assert rendered.startswith(f"It is {FIGURE % '2.0'} and {FIGURE % '2.0'} times\n")
    assert "| ViT | 13 |" in rendered
    path_of("tome").unlink()
    rendered = pages.render_page(text, "page", PLAN)
    assert rendered.count("-->(not measured yet)<!-- end -->") == 2
    assert pages.render_page(rendered, "page", PLAN) == rendered


def test_a_figure_is_of_one_row(pages, tome):
    text = "one\nis " + FIGURE.replace("r: 13", "model: ViT") % 2
    with pytest.raises(UserError, match="page:2: 2 rows of record 'tome' fit; narrow 'where'"):
        pages.render_page(text, "page", PLAN)


def test_a_figure_does_not_begin_a_line(pages, tome):
    with pytest.raises(UserError, match="page: a line begins with a figure's comment"):
        pages.render_page(f"one\n  {FIGURE % 2}\n", "page", PLAN)


def test_the_list_of_hosts_is_that_of_the_adapters(pages, monkeypatch):
    page = "# Page\n\n<!-- hosts -->\nold\n<!-- end of hosts -->\n\nafter\n"
    monkeypatch.setattr(pages, "table_of_hosts", lambda: "| a |\n| --- |\n| b |")
    made = page.replace("old\n", "\n| a |\n| --- |\n| b |\n\n")
    assert pages.render_page(page, "page", PLAN) == made
    assert pages.render_page(made, "page", PLAN) == made
    monkeypatch.setattr(pages, "table_of_hosts", lambda: "| c |")
    assert pages.render_page(made, "page", PLAN) != made  # which fails --check


@pytest.mark.parametrize(
    "mark", ["<!-- end of table -->", "<!-- table\n-->", "<!-- end -->", "<!-- hosts -->"]
)
def test_a_mark_without_its_counterpart(pages, mark):
    with pytest.raises(UserError, match=rf"page: a '{mark.splitlines()[0]}' has no counterpart"):
        pages.render_page(f"text\n{mark}\n", "page", PLAN)


def test_the_command_writes_and_checks(pages, tome, tmp_path, monkeypatch, capsys):
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    monkeypatch.setattr(pages, "CHECKOUT", tmp_path)
    monkeypatch.setattr(pages, "pages", lambda: [page])
    monkeypatch.setattr(pages, "read_plan", lambda: PLAN)
    with pytest.raises(SystemExit, match="2"):
        pages.main(["--check"])
    assert "tables in README.md differ from benchmarks/results" in capsys.readouterr().err
    assert page.read_text() == PAGE
    pages.main([])
    assert page.read_text() == PAGE.replace("old\n", MADE)
    pages.main(["--check"])
    assert "not measured yet: python tools/a.py --record other" in capsys.readouterr().out
    write_record(path_of("tome"), replace(RECORD, rows=[ROWS[1] | dict(speedup=2.01)]))
    with pytest.raises(SystemExit, match="2"):
        pages.main(["--check"])


def test_the_pages_of_this_repository_agree_with_its_records(load_benchmark, capsys):
    load_benchmark("pages").main(["--check"])
    assert "pages agree with the records and the adapters" in capsys.readouterr().out


def test_every_planned_record_is_on_a_page(load_benchmark):
    module = load_benchmark("pages")
    text = "\n".join(path.read_text() for path in module.pages())
    asked = [yaml.safe_load(match["spec"])["record"] for match in module.BLOCK.finditer(text)]
    named = {name for one in asked for name in (one if isinstance(one, list) else [one])}
    assert named == set(module.read_plan())
    assert CHECKOUT / "configs" / "tome" / "README.md" in module.pages()
