"""Write the lock of the default stack for this platform: every distribution with its hash.

Run it as ``make lock``, on each platform that is to have a lock, after a pin has changed or to take
newer versions of what is not pinned.
"""

from __future__ import annotations

from resolve import DEFAULT, REQUIREMENTS, normalized, platform_name, resolve

HEADER = """\
# {sources}, resolved for {platform}.
# Versions and hashes are those that the Python Package Index gives for its files; wheels on a local
# disk were left out. Written by `make lock`, which also refreshes it; do not edit by hand.
# Install: pip install --require-hashes -r requirements/lock/{platform}.txt
"""


def line_of(item: dict) -> str:
    """Return the requirement line of one distribution of pip's report."""
    metadata, download = item["metadata"], item["download_info"]
    sha256 = download.get("archive_info", {}).get("hashes", {}).get("sha256")
    if not sha256:
        print(
            f"{metadata['name']} {metadata['version']}: the index gives no sha256 for "
            f"{download['url'].rpartition('/')[2]}; pin a release that has one."
        )
        raise SystemExit(2)
    name = normalized(metadata["name"])
    return f"{name}=={metadata['version']} --hash=sha256:{sha256}\n"


def main() -> None:
    """Resolve, then write ``requirements/lock/<platform>.txt``."""
    lines = [line_of(item) for item in resolve(*DEFAULT)]
    sources = ", ".join(f"requirements/{name}.txt" for name in DEFAULT)
    path = REQUIREMENTS / "lock" / f"{platform_name()}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER.format(sources=sources, platform=platform_name()) + "".join(lines))
    print(f"{path}: {len(lines)} distributions")


if __name__ == "__main__":
    main()
