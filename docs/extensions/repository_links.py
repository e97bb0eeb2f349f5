"""Links of a page to files of the repository that are no pages of the site become the paths of these files.

On a code host such a link opens the file; the site does not know where it is hosted.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?:\.\./)+[^)\s#]+)(?:#[^)\s]*)?\)")


def told_by_path(text: str, page: Path, folder: Path) -> str:
    """Return the text of a page in which links out of the site's folder are paths from the repository's root."""

    def told(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(page.parent / match[2]))
        if target.is_relative_to(folder):
            return match[0]
        path = target.relative_to(folder.parent).as_posix()
        same = match[1].strip("`") in (path, target.name)
        return f"`{path}`" if same else f"{match[1]} (`{path}` in the repository)"

    return LINK.sub(told, text)


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = told_by_path(source[0], Path(app.env.doc2path(page)), Path(app.srcdir))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
