"""What the site adds to Sphinx: pages written from the registries, links to folders.

``docs/reference/api.md`` and ``types.md`` hold an introduction; the names below it are read from
``__all__`` of the modules and from the registries while the site is built, so that none is missing.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

import mmvitaccel
from mmvitaccel import registry
from mmvitaccel.core.tome.matchings import MATCHINGS

# Those whose public names the reference lists.
MODULES = tuple(f"mmvitaccel{part}" for part in ("", ".serving", ".video_demo", ".video_reader"))
API, TYPES = "docs/reference/api", "docs/reference/types"
# Where a config names what is in a registry of mmvitaccel.registry.
ABOUT = {
    "MODELS": "Models and their parts: `type='mmvitaccel.NAME'` in `model`.",
    "HOOKS": "Hooks: `type='mmvitaccel.NAME'` in `custom_hooks` or `default_hooks`.",
    "DATASETS": "Data sets: `type='mmvitaccel.NAME'` of a loader's `dataset`.",
    "DATA_SAMPLERS": "Samplers: `type='mmvitaccel.NAME'` of a loader's `sampler`.",
    "TRANSFORMS": "Steps of a data set's `pipeline`: `type='mmvitaccel.NAME'`.",
    "METRICS": "Metrics: `type='mmvitaccel.NAME'` of an evaluator.",
    "OPTIM_WRAPPERS": "`type='mmvitaccel.NAME'` of `optim_wrapper`.",
    "POLICIES": "What eventful gates let through: `policy=dict(type='NAME')` of Eventful.",
    "IMPORTANCES": "How much tokens matter: `importance=dict(type='NAME')` of Weighted.",
    "REFRESHES": "Which later frames are computed whole: `refresh=dict(type='NAME')` of Eventful.",
    "MOTIONS": "How a stream's memory follows a camera: `motion=dict(type='NAME')` of Eventful.",
    "MATCHINGS": "What ToMe merges: `matching=dict(type='NAME')` of ToMe.",
}


def registries() -> dict[str, dict[str, type]]:
    """The types that a config can name, by what they are."""
    found = {}
    for name, value in vars(registry).items():
        if isinstance(value, registry.Registry) and value.scope == registry.SCOPE:
            value.import_from_location()
            found[name] = dict(sorted(value.module_dict.items()))
    return {**found, "MATCHINGS": dict(sorted(MATCHINGS.items()))}


def path_of(cls: type) -> str:
    """The name under which the reference has a class: the public one, else where it lies."""
    public = cls.__name__ in mmvitaccel.__all__ and getattr(mmvitaccel, cls.__name__) is cls
    return f"mmvitaccel.{cls.__name__}" if public else f"{cls.__module__}.{cls.__qualname__}"


def listed(kind: str, path: str, *options: str) -> str:
    """Markdown that shows the docstring of a class or a function."""
    return "\n".join(["```{eval-rst}", f".. auto{kind}:: {path}", *options, "```\n\n"])


def write_types() -> Iterator[str]:
    """Every registered type with its arguments, registry by registry."""
    for name, types in registries().items():
        about = ABOUT.get(name, "`type='NAME'`.")
        yield f"## {name}\n\n{about}\n\n"
        for type_name, cls in types.items():
            yield f"### {type_name}\n\n{listed('class', path_of(cls))}"


def write_api() -> Iterator[str]:
    """Every public name that no config names, module by module."""
    configured = {cls for types in registries().values() for cls in types.values()}
    for module in MODULES:
        yield f"## {module}\n\n"
        for name in sorted(import_module(module).__all__):
            value = getattr(import_module(module), name)
            if name.startswith("__") or value in configured:
                continue
            kind = "class" if inspect.isclass(value) else "function"
            members = ("   :members:",) if kind == "class" else ()
            yield f"### {name}\n\n{listed(kind, f'{module}.{name}', *members)}"


def write_reference(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the generated part below the introduction of a page of the reference."""
    generated = {API: write_api, TYPES: write_types}.get(docname)
    if generated is not None:
        source[0] += "\n" + "".join(generated())


def resolve_folders(app: Sphinx, doctree: nodes.document) -> None:
    """Let a link to a folder lead to its README, or be text where it holds code alone."""
    for link in list(doctree.findall(addnodes.pending_xref)):
        if link["reftype"] != "myst" or link["refdomain"] is not None:
            continue
        path, _, anchor = link["reftarget"].partition("#")
        folder = Path(app.env.relfn2path(path, link["refdoc"])[1])
        if not folder.is_dir():
            continue
        page = app.env.path2doc(str(folder / "README.md"))
        if page in app.env.found_docs:
            link["refdomain"], link["reftarget"], link["reftargetid"] = "doc", page, anchor
        else:
            link.replace_self(link[0])


def is_of_signature(app: Sphinx, domain: Any, node: addnodes.pending_xref) -> bool | None:
    """Say nothing of a type in a signature that the reference does not hold: it is internal."""
    return True if "refwarn" not in node else None  # what a role makes has that attribute


def setup(app: Sphinx) -> dict[str, Any]:
    """Register them."""
    app.connect("source-read", write_reference)
    app.connect("doctree-read", resolve_folders)
    app.connect("warn-missing-reference", is_of_signature)
    return dict(version="1", parallel_read_safe=True, parallel_write_safe=True)
