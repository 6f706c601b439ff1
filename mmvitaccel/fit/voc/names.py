"""Which objects the XML files of a list have, by the names of their classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from mmvitaccel.errors import UserError
from mmvitaccel.text_files import read_lines_for_others

_MOST = 2000  # files, of which each takes a disk a millisecond or so


def object_names(list_path: str, folder: str) -> tuple[Counter[str], int]:
    """Count the names of objects in XML files, spread over the list where there are very many.

    Args:
        list_path: A file with the name of a picture a line, without a suffix.
        folder: Of the XML files, ``NAME.xml`` each.

    Returns:
        The objects by name, and how many files were looked at.

    Raises:
        UserError: A line is empty, the list is no text in UTF-8, or a file is not there, no XML or
            of a picture without a pixel.
    """
    lines = read_lines_for_others(list_path, UserError) or [""]
    names: Counter[str] = Counter()
    picked = _spread(lines)
    for number in picked:
        name = lines[number]
        if not name.strip():
            raise UserError(
                f"{list_path}, line {number + 1} is empty, where the name of a picture is expected;"
                " remove the line."
            )
        names.update(_names_of(Path(folder, f"{name}.xml"), list_path, number + 1))
    return names, len(picked)


def _spread(lines: Sequence[str]) -> Sequence[int]:
    """Places in a list: all of them, or some that are evenly apart; the last line is one."""
    step = -(-len(lines) // _MOST)
    return range(len(lines) - 1, -1, -step)[::-1]


def _names_of(path: Path, list_path: str, line: int) -> list[str]:
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise UserError(
            f"{list_path}, line {line}: {path} does not exist; put it there, or correct the line, "
            "data_prefix.sub_data_root or ann_subdir."
        ) from None
    # reason: an encoding that is not known raises one of the other two
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(f"{path} is no whole XML file ({error}); replace or remove it.") from error
    _check_size(root, path)
    return [element.findtext("name") or "" for element in root.findall("object")]


def _check_size(root: ElementTree.Element, path: Path) -> None:
    """Refuse a size without a pixel; a file need not tell it, and the picture is then asked."""
    if root.find("size") is None:
        return
    width, height = (root.findtext(f"size/{side}") or "nothing" for side in ("width", "height"))
    if not all(side.strip().isdecimal() and int(side) >= 1 for side in (width, height)):
        raise UserError(
            f"{path} says that its picture is {width} x {height} pixels (width x height), which "
            "none is; correct its size."
        )
