"""Lets the front page name pages that a version may not have: lines ``name*`` of its lists without such a page go."""

import re

from sphinx.application import Sphinx


def _keep_what_exists(app: Sphinx, name: str, content: list[str]) -> None:
    if name == "index":
        content[0] = re.sub(
            r"^(\w+\*)\n", lambda line: line[0] if any(app.srcdir.glob(f"{line[1]}.md")) else "", content[0], flags=re.M
        )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _keep_what_exists)
    return {"parallel_read_safe": True}
