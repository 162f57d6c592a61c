"""How the site is built: `sphinx-build -W -b html docs docs/_build`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

from cdarts import __version__

project = "cdarts"
author = "the cdarts authors"
copyright = "the cdarts authors, MIT licence"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "docstrings", "flags", "pages"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_extensions", "_static", "figures"]
nitpicky = False
default_role = "code"

myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"cdarts {__version__}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
