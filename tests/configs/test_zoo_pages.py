"""Pages and metafiles of every folder of configs: what they name is there, figures say of whom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LISTED = yaml.safe_load((ROOT / "model-index.yml").read_text())["Import"]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/**/README.md"))


def test_the_index_has_every_metafile():
    assert sorted(LISTED) == sorted(
        path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/**/metafile.yml")
    )


@pytest.mark.parametrize("path", LISTED)
def test_metafiles(path):
    content = yaml.safe_load((ROOT / path).read_text())
    collections = {collection["Name"] for collection in content["Collections"]}
    assert all((ROOT / c["README"]).is_file() for c in content["Collections"] if "README" in c)
    names = [model["Name"] for model in content["Models"]]
    assert len(set(names)) == len(names) > 0
    for model in content["Models"]:
        assert (ROOT / model["Config"]).is_file(), model["Config"]
        assert model["In Collection"] in collections
        assert all("Source" in result for result in model.get("Results") or ()), model["Name"]


@pytest.mark.parametrize("path", PAGES)
def test_pages_link_to_what_is_there(path):
    page = ROOT / path
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[\w-]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("path", PAGES)
def test_commands_on_pages_name_configs_and_tools_that_are_there(path):
    text = (ROOT / path).read_text()
    named = re.findall(r"(?<![\w/.])((?:configs|tools|benchmarks)/[\w./-]+\.(?:py|sh))\b", text)
    assert [name for name in named if not (ROOT / name).is_file()] == []
