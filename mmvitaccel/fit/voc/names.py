"""Counting of the objects in VOC's XML files by class name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from mmvitaccel.errors import UserError
from mmvitaccel.text_files import read_lines_for_others

_MAX_FILES = 2000  # reading a file takes about a millisecond


def object_names(list_path: str, folder: str) -> tuple[Counter[str], int]:
    """Count the names of objects in XML files; of a long list, in a sample spread over it.

    Args:
        list_path: Path of a file with one picture name per line, without a suffix.
        folder: Folder of the XML files ``NAME.xml``.

    Returns:
        The number of objects by name, and the number of files that were read.

    Raises:
        UserError: If a line is empty, the list is not UTF-8 text, or a file is missing, is not XML
            or has a size of 0.
    """
    lines = read_lines_for_others(list_path, UserError) or [""]
    names: Counter[str] = Counter()
    picked = _spread(lines)
    for number in picked:
        name = lines[number]
        if not name.strip():
            raise UserError(
                f"{list_path}, line {number + 1} is empty, but the name of a picture is expected; "
                "remove the line."
            )
        names.update(_names_of(Path(folder, f"{name}.xml"), list_path, number + 1))
    return names, len(picked)


def _spread(lines: Sequence[str]) -> Sequence[int]:
    """Return the indices of all lines, or of at most 2000 evenly spaced ones with the last line."""
    step = -(-len(lines) // _MAX_FILES)
    return range(len(lines) - 1, -1, -step)[::-1]


def _names_of(path: Path, list_path: str, line: int) -> list[str]:
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise UserError(
            f"{list_path}, line {line}: {path} does not exist; put it there, or correct the line, "
            "data_prefix.sub_data_root or ann_subdir."
        ) from None
    # LookupError and ValueError: an unknown encoding.
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(f"{path} is not a valid XML file ({error}); replace it.") from error
    _check_size(root, path)
    return [element.findtext("name") or "" for element in root.findall("object")]


def _check_size(root: ElementTree.Element, path: Path) -> None:
    """Refuse a size of 0. The size is optional; mmdet then reads the picture's own."""
    if root.find("size") is None:
        return
    width, height = (root.findtext(f"size/{side}") or "nothing" for side in ("width", "height"))
    if not all(side.strip().isdecimal() and int(side) >= 1 for side in (width, height)):
        raise UserError(
            f"{path} says that its picture is {width} x {height} pixels (width x height), but both "
            "must be 1 or more; correct its size."
        )
