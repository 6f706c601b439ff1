"""The sentences that refuse arguments, and what is accepted."""

import numpy as np
import pytest
import torch

from mmvitaccel.arguments import (
    config,
    flag,
    init_config,
    number,
    numbers,
    one_of,
    path,
    sequence,
    text,
    whole_number,
    whole_numbers,
    with_methods,
)

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.uint8(3), np.float32(3)])
def test_a_whole_number_comes_back_as_an_int(value):
    found = whole_number("Owner", "k", value, least=3, most=3)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5)])
def test_a_number_comes_back_as_a_float(value):
    found = number("Owner", "share", value, above=0, below=1)
    assert (found, type(found)) == (0.5, float)


@pytest.mark.parametrize(
    "value", [(1, 2), [1, 2], range(1, 3), np.array([1, 2]), torch.Size([1, 2])]
)
def test_a_sequence_of_numbers_comes_back_as_a_tuple(value):
    found = whole_numbers("Owner", "sizes", value, least=1, count=2)
    assert found == tuple(map(int, value)) and {type(each) for each in found} == {int}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, r"Owner: k=0 must be a whole number of tokens, at least 1; why\."),
        (1.5, r"Owner: k=1\.5 must be a whole number of tokens, at least 1; why\."),
        (NAN, r"Owner: k=nan must be a whole number of tokens, at least 1; why\."),
        (INF, r"Owner: k=inf must be a whole number of tokens, at least 1; why\."),
        (True, r"Owner: k=True must be .*, at least 1, not a bool; why\."),
        (np.True_, r"Owner: k=.*True.* must be .*, at least 1, not a bool"),
        ("8", r"Owner: k='8' must be a whole number of tokens, at least 1, not a str; why\."),
        (None, r"Owner: k=None must be .*, at least 1, not None; why\."),
        (int, r"Owner: k=<class 'int'> must be .*, at least 1, not the class int; why\."),
        ([8], r"Owner: k=\[8\] must be .*, at least 1, not a list; why\."),
    ],
)
def test_what_is_no_whole_number_is_named_with_what_is_allowed(value, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        whole_number("Owner", "k", value, least=1, of="tokens", why="why")


@pytest.mark.parametrize(
    ("value", "ends", "said"),
    [
        (2, dict(least=-1, most=1), r"x=2 must be within \[-1, 1\]\."),
        (1.0, dict(least=0, below=1), r"x=1\.0 must be at least 0 and below 1\."),
        (0, dict(above=0), r"x=0 must be a number above 0\."),
        (-1, dict(least=0), r"x=-1 must be a number, at least 0\."),
        (NAN, {}, r"x=nan must be a number\."),
        (INF, dict(above=0), r"x=inf must be a number above 0, and finite\."),
        ("0.5", dict(least=0, below=1), r"x='0\.5' must be at least 0 and below 1, not a str\."),
        (False, dict(least=0), r"x=False must be a number, at least 0, not a bool\."),
        (1j, {}, r"x=1j must be a number, not a complex\."),
    ],
)
def test_what_is_no_number_of_a_range_is_named(value, ends, said):
    with pytest.raises(ValueError, match=f"^Owner: {said}$"):
        number("Owner", "x", value, **ends)


def test_infinity_and_none_are_taken_where_they_have_a_meaning():
    assert number("Owner", "x", INF, least=0, or_infinite=True) == INF
    assert number("Owner", "x", None, least=0, or_none=True) is None
    assert whole_number("Owner", "k", None, least=0, or_none=True) is None
    with pytest.raises(ValueError, match="k=0 must be a whole number, at least 1, or None"):
        whole_number("Owner", "k", 0, least=1, or_none=True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((1, 2, 3), r"must be two whole numbers, at least 1\."),
        ((1, 0), r"\(1, 0\) must be two whole numbers, at least 1\."),
        (["1", 2], r"\['1', 2\] must be"),
        ("12", r"'12' must be two whole numbers, at least 1, not a str\."),
        ({1: 2, 3: 4}, "not a dict"),
        ({1, 2}, "not a set"),
        (7, "not an int"),
        (torch.tensor(7), "not a Tensor"),
        (np.array(7), "not a ndarray"),
    ],
)
def test_what_is_no_pair_of_whole_numbers_is_named(value, said):
    with pytest.raises(ValueError, match=f"^Owner: sizes=.*{said}"):
        whole_numbers("Owner", "sizes", value, least=1, count=2)


def test_a_sequence_may_be_empty_where_that_has_a_meaning():
    assert whole_numbers("Owner", "sizes", [], or_empty=True) == ()
    for check in (whole_numbers, numbers, sequence):
        with pytest.raises(ValueError, match=r"sizes=\[\] must be .*one or more"):
            check("Owner", "sizes", [])
    with pytest.raises(ValueError, match=r"x=\[0\.5, inf\] must be one or more numbers"):
        numbers("Owner", "x", [0.5, INF])


@pytest.mark.parametrize("value", ["False", "True", 0, 1, None, [], np.int64(1)])
def test_a_flag_is_true_or_false_alone(value):
    assert flag("Owner", "with_cp", np.True_) is True and flag("Owner", "with_cp", False) is False
    with pytest.raises(ValueError, match=r"^Owner: with_cp=.* must be True or False, not "):
        flag("Owner", "with_cp", value)


def test_texts_paths_and_names(tmp_path):
    assert text("Owner", "target", "neck") == "neck" and path("Owner", "out", tmp_path)
    assert text("Owner", "target", None, or_none=True) is None
    assert one_of("Owner", "mode", "a", ("a", "b")) == "a"
    with pytest.raises(ValueError, match=r"^Owner: target='' must be a module's path\.$"):
        text("Owner", "target", "", what="a module's path")
    with pytest.raises(ValueError, match=r"^Owner: out=7 must be a path, or None, not an int\.$"):
        path("Owner", "out", 7, or_none=True)
    for value in ("c", [], None):
        with pytest.raises(ValueError, match=r"^Owner: mode=.* must be one of a, b"):
            one_of("Owner", "mode", value, ("a", "b"))


def test_objects_and_configs():
    assert with_methods("Owner", "base", "text", "join") == "text"
    with pytest.raises(ValueError, match=r"base=.*the method join, not the class str; give one"):
        with_methods("Owner", "base", str, "join", why="give one")
    with pytest.raises(ValueError, match="base=8 must be an object with the methods a and b"):
        with_methods("Owner", "base", 8, "a", "b")
    assert config("Owner", "neck", dict(type="FPN")) == dict(type="FPN")
    with pytest.raises(ValueError, match=r"neck='FPN' must be a config, dict\(type=...\), not a s"):
        config("Owner", "neck", "FPN")
    assert init_config("Owner", [dict(type="Xavier")]) == [dict(type="Xavier")]
    with pytest.raises(ValueError, match=r"Owner: init_cfg='a\.pth' must be a config"):
        init_config("Owner", "a.pth")


def test_an_overlong_value_is_cut():
    with pytest.raises(ValueError, match=r"k='x+\.\.\.x+' must") as error:
        whole_number("Owner", "k", "x" * 10_000)
    assert len(str(error.value)) < 400
