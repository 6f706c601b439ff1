"""Text that people bring, as it comes from other systems and editors, in every reader of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmvitaccel.datasets.epic_kitchens import COLUMNS
from mmvitaccel.errors import UserError
from mmvitaccel.text_files import decode_text, read_lines, read_lines_for_others, read_text


def _epic(path: Path) -> Any:
    from mmvitaccel.datasets import EpicKitchens

    prefix = dict(video="videos")
    return EpicKitchens(str(path), [], prefix, lazy_init=True).load_data_list()


def _features(path: Path) -> Any:
    from mmvitaccel.datasets import SpatialFeatures

    return SpatialFeatures(ann_file=str(path), lazy_init=True).load_data_list()


def _cocovid(path: Path) -> Any:
    from mmvitaccel.datasets.cocovid import read_cocovid

    return read_cocovid(str(path))


def _release(path: Path) -> Any:
    from mmvitaccel.datasets.ilsvrc.layout import read_list

    return read_list(path)


def _videos(path: Path) -> Any:
    from mmvitaccel.serving.batch.sources import find_videos

    return find_videos(path)


def _labels(path: Path) -> Any:
    from mmvitaccel.video.stream_report import read_names

    return read_names(path)


IMAGE = dict(id=1, file_name="caf\u00e9.jpg", height=4, width=4, video_id=1, frame_id=0)
CATEGORY = dict(id=1, name="car")
ROWS = [f"{name},P01,P01_01,00:00:01.0,00:00:02.0,1,9,3,4" for name in ("P\u00e9_0", "P_1")]
#: A file's name, its text with letters beyond ASCII, and what reads it.
READERS: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "csv of EPIC-Kitchens": ("epic.csv", "\n".join([",".join(COLUMNS), *ROWS]), _epic),
    "index of features": ("index.json", json.dumps(dict(samples=[], of="\u732b"), indent=1,
                                                   ensure_ascii=False), _features),
    "CocoVID": ("vid.json", json.dumps(dict(images=[IMAGE], categories=[CATEGORY]), indent=1,
                                       ensure_ascii=False), _cocovid),
    "list of a release": ("val.txt", "val/caf\u00e9/000000 1\nval/b/000001 2", _release),
    "list of videos": ("videos.txt", "caf\u00e9.mp4\nb c.mp4", _videos),
    "names of classes": ("labels.txt", "caf\u00e9\nhot dog", _labels),
}  # fmt: skip

SPELLINGS: dict[str, Callable[[str], bytes]] = {
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "CRLF and mark": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "blank lines at the end": lambda text: f"{text}\n\n  \n\t\n\n".encode(),
    "CR and blank lines": lambda text: f"{text}\n\n\n".replace("\n", "\r").encode(),
}

REFUSED: dict[str, tuple[Callable[[str], bytes], str]] = {
    "UTF-16": (lambda text: text.encode("utf-16"), "is text in UTF-16, as its byte order mark"),
    "UTF-16 big": (lambda text: b"\xfe\xff" + text.encode("utf-16-be"), "is text in UTF-16, as"),
    "UTF-32": (lambda text: text.encode("utf-32"), "is text in UTF-32, as its byte order mark"),
    "UTF-16 bare": (lambda text: text.encode("utf-16-le"), "a zero byte at .* UTF-16 without"),
    "Latin-1": (lambda text: text.encode() + b"\xe9\n", "is not UTF-8 text: byte"),
    "GBK": (lambda text: text.encode() + "\u72d7".encode("gbk"), "is not UTF-8 text: byte"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("reader", READERS)
def test_other_marks_and_line_ends_change_nothing(tmp_path, reader, spelling):
    name, text, read = READERS[reader]
    path = tmp_path / name
    path.write_bytes(text.encode())
    plain = read(path)
    path.write_bytes(SPELLINGS[spelling](text))
    assert read(path) == plain


@pytest.mark.parametrize("encoding", REFUSED)
@pytest.mark.parametrize("reader", READERS)
def test_another_encoding_is_named_with_the_file(tmp_path, reader, encoding):
    name, text, read = READERS[reader]
    encode, said = REFUSED[encoding]
    path = tmp_path / name
    path.write_bytes(encode(text))
    with pytest.raises((ValueError, UserError), match=f"{name}.*{said}.*save it as.* UTF-8"):
        read(path)


def test_a_text_comes_without_mark_and_with_plain_line_ends(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa\r\nb\rc\n\x0cd\u2028e\x85f\n \n".encode())
    assert read_text(path) == "a\nb\nc\n\x0cd\u2028e\x85f\n \n"
    # form feeds and the like are no ends of lines: they may be within a name
    assert read_lines(path) == ["a", "b", "c", "\x0cd\u2028e\x85f"]
    path.write_bytes(b"")
    assert read_lines(path) == [] and read_lines_for_others(path) == []


def test_the_byte_and_its_line_are_told():
    with pytest.raises(ValueError, match=r"^a\.txt is not UTF-8 text: byte 8 is 0xe9, in line 3"):
        decode_text(b"ab\r\ncd\re\xe9", "a.txt")
    with pytest.raises(UserError, match=r"a\.txt has a zero byte at 2"):
        decode_text(b"ab\0", "a.txt", UserError)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbfa 0\n", "begins with a byte order mark, which becomes part of the first"),
        (b"a 0\nb 1\rc 2\n", r"has a carriage return \(CR\) without a line feed \(LF\) in line 2"),
        ("a 0\n".encode("utf-16"), "is text in UTF-16"),
        (b"\xff\n", "is not UTF-8 text: byte 0 is 0xff, in line 1"),
    ],
)
def test_what_another_package_would_misread_is_refused(tmp_path, content, said):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"list\.txt {said}"):
        read_lines_for_others(path, UserError)


def test_what_another_package_reads_alike_is_taken(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"a 0\r\nb\x0c 1\n\n")
    assert read_lines_for_others(path) == ["a 0", "b\x0c 1", ""]
