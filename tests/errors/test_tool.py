"""What tools say about their own arguments."""

from __future__ import annotations

from argparse import Namespace

import pytest

from mmvitaccel.errors import UserError, refuse_below


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (dict(max_steps=1), r"^--max-steps 1: give 2 or more\.$"),
        (dict(max_steps=[3, -1]), r"^--max-steps -1: give 2 or more\.$"),
    ],
)
def test_numbers_that_are_too_small_are_refused(given, sentence):
    with pytest.raises(UserError, match=sentence):
        refuse_below(Namespace(**given, rounds=5), 2, "rounds", "max-steps")


def test_other_numbers_and_what_is_left_out_pass():
    refuse_below(Namespace(rounds=2, threads=None, batch=[2, 8], frames=0), 2, "rounds", "threads")
    refuse_below(Namespace(rounds=2, threads=None, batch=[2, 8], frames=0), 2, "batch")
