"""Settings of the documentation site: ``make docs`` builds it into docs/_build/html.

The source is the whole checkout, since the pages of configs/ belong to the site and pages link to
each other as they lie there. Nothing is fetched: no inventories, no fonts, no scripts.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from mmvitaccel.version import __version__  # noqa: E402

project = "mmvitaccel"
release = version = __version__
copyright = "the authors of mmvitaccel; Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_pages"]
root_doc = "docs/index"

PAGES = {"configs", "docs", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
include_patterns = ["*.md", "configs/**README.md", "docs/**.md"]
exclude_patterns = [path.name for path in ROOT.iterdir() if path.name not in PAGES]
exclude_patterns += ["docs/_build"]

myst_heading_anchors = 4
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 90  # longer ones get a line for each argument
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True  # attributes are no targets: several classes have one called size

# A docstring that names something of this package in full has to name what the reference holds.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!mmvitaccel\.).*")]

html_theme = "furo"
html_title = f"mmvitaccel {__version__}"
html_extra_path = ["_root"]
html_copy_source = False
