"""Effects of options if they were written in the config's files.

A config is a program: ``epochs = 12`` at its top is used in ``max_epochs=epochs`` when the file is
run, so overriding it later has no effect. To find the affected settings, the files are read again
with the option inserted after each assignment of its variable, and both results are compared.
"""

from __future__ import annotations

import ast
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config
from mmengine.config import config as mmengine_reader

_Path = tuple[str, ...]
_LOCK = threading.Lock()


def read_again(path: str, options: Mapping[str, Any]) -> Config:
    """Read a config with the options inserted in its files.

    Args:
        path: A Python file, in mmengine's older or its lazy style.
        options: Dotted keys to values; each is applied after every assignment of its variable.
    """
    with _LOCK, _options_in_the_source(options), warnings.catch_warnings():
        # mmengine resolves `package::` with pkg_resources, which warns whoever imports it.
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        return Config.fromfile(path)


def differences(before: Any, after: Any, path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    """Keys, as tuples, with different values, and their values in the second config."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from differences(before.get(key), after.get(key), (*path, str(key)))
    elif _are_lists_of_dicts(before, after):
        for index, (one, other) in enumerate(zip(before, after)):
            yield from differences(one, other, (*path, str(index)))
    elif not _equal(before, after):
        yield path, after


def value_at(value: Any, path: Sequence[str]) -> Any:
    """The item at a path inside a value; None if it does not exist."""
    for key in path:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def set_at(value: Any, path: Sequence[str], new: Any) -> Any:
    """A copy of a value with a changed item at a path; unchanged if the path does not exist.

    Called from the modified source.
    """
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        changed = dict(value)
        changed[key] = set_at(value.get(key, {}), rest, new)
        return changed
    if isinstance(value, list) and key.isdigit() and int(key) < len(value):
        return [set_at(x, rest, new) if i == int(key) else x for i, x in enumerate(value)]
    return value


def _are_lists_of_dicts(before: Any, after: Any) -> bool:
    """Whether single items can be set: not in tuples, and not in lists of numbers."""
    lists = all(isinstance(x, list) for x in (before, after)) and len(before) == len(after)
    return lists and all(isinstance(x, (dict, list)) for x in before)


def _equal(before: Any, after: Any) -> bool:
    # In the lazy style, types are new objects at each reading
    return before == after or (type(before) is type(after) and repr(before) == repr(after))


class _Insert(ast.NodeTransformer):
    """Inserts ``name = set_at(name, path, value)`` after every assignment of ``name``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = [(*key.split("."),) for key in options]
        self.values = list(options.values())

    def visit_Assign(self, node: ast.Assign) -> Any:
        return self._after(node, node.targets)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        return self._after(node, [node.target])

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        return self._after(node, [node.target])

    def visit_For(self, node: ast.For) -> Any:
        self.generic_visit(node)
        node.body = [*self._added(node, [node.target]), *node.body]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        return node

    def _after(self, node: ast.stmt, targets: Sequence[ast.expr]) -> list[ast.stmt]:
        return [node, *self._added(node, targets)]

    def _added(self, node: ast.stmt, targets: Sequence[ast.expr]) -> list[ast.stmt]:
        names = {name for target in targets for name in _stored(target)}
        added = [
            ast.parse(
                f"{name} = __import__({__name__!r}, fromlist=['set_at'])"
                f".set_at({name}, {rest!r}, {value!r})"
            ).body[0]
            for (name, *rest), value in zip(self.options, self.values)
            if name in names
        ]
        return [ast.copy_location(statement, node) for statement in added]


def _stored(target: ast.expr) -> Iterator[str]:
    """Variables set by an assignment, including ``a, (b, *c) = ...``."""
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


@contextmanager
def _options_in_the_source(options: Mapping[str, Any]) -> Iterator[None]:
    """Make mmengine parse config files with the options inserted.

    mmengine resolves bases in two styles and from packages, and parses each file with
    ``ast.parse``, which is replaced while the files are read.
    """

    def parse(source: Any, *args: Any, **kwargs: Any) -> Any:
        tree = _Insert(options).visit(ast.parse(source, *args, **kwargs))
        return ast.fix_missing_locations(tree)

    own = mmengine_reader.ast
    mmengine_reader.ast = SimpleNamespace(**{**vars(ast), "parse": parse})
    try:
        yield
    finally:
        mmengine_reader.ast = own
