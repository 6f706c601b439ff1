"""The list of supported families says what the methods do."""

from __future__ import annotations

import dataclasses

import pytest

from mmvitaccel.adapters.eventful.apply import apply_eventful
from mmvitaccel.adapters.hosts import listing
from mmvitaccel.adapters.hosts.find import ADAPTERS, find_adapter, locate
from mmvitaccel.core.eventful.gates.policy import TopK
from tests.adapters.conftest import HOSTS, host_param


def test_every_family_stands_in_a_row_of_its_package():
    rows = [line.strip("|").split("|") for line in listing.table_of_hosts().splitlines()]
    assert len({len(row) for row in rows}) == 1
    cells = {row[0].strip(): ", ".join(row[1:]) for row in rows}
    for adapter in ADAPTERS:
        package, _, family = adapter.name.partition(" ")
        assert family in cells[package]
        assert all(name in cells[package] for name in adapter.also)


@pytest.mark.parametrize("name", [host_param(name) for name in HOSTS])
def test_eventful_serves_what_the_list_says(name):
    model = HOSTS[name].build()
    model.eval()
    adapter = find_adapter(locate(model)[1])
    assert adapter in ADAPTERS
    if listing.how(adapter) == listing.ALONE:
        with pytest.raises(ValueError, match=r"takes a whole clip|attention branches only"):
            apply_eventful(model, TopK(3))
    else:
        apply_eventful(model, TopK(3)).remove()


def test_a_new_family_changes_the_table(monkeypatch):
    new = dataclasses.replace(ADAPTERS[0], name="mypackage MyViT", also=("Known",), takes_clip=True)
    monkeypatch.setattr(listing, "ADAPTERS", (new,))
    table = listing.table_of_hosts().splitlines()
    assert table[2:] == ["| mypackage |  |  | MyViT (Known) |"]
