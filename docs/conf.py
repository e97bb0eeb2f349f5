"""The documentation site: `sphinx-build -W --keep-going docs build/site`."""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
sys.path.insert(0, str(FOLDER / "extensions"))
if any((ROOT / "metav" / f"_core{suffix}").is_file() for suffix in EXTENSION_SUFFIXES):
    sys.path.insert(0, str(ROOT))
else:  # `pip install ".[docs]"` compiled another copy, which the sources here would hide
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]

from metav.support.versions import version_of  # noqa: E402

project = "metav"
author = "the authors of metav"
copyright = "the authors of metav, Apache-2.0"
version = release = version_of()

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_click",
    "sphinx_copybutton",
    "docstring_lists",
    "click_help",
    "c_header",
    "repository_links",
]
source_suffix = {".md": "markdown"}
smartquotes = False
highlight_language = "text"
default_role = "py:obj"  # what docstrings write in backticks: a link where it names something that is documented

myst_heading_anchors = 4
autodoc_member_order = "bysource"
# the reference documents what needs these, and is read where they are not installed
autodoc_mock_imports = [name for name in ("accelerate", "mlflow", "tensorboard", "wandb") if find_spec(name) is None]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autosummary_generate = False
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
add_module_names = True
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"metav {version}"
html_static_path = ["style"]
html_css_files = ["metav.css"]
html_copy_source = False
html_show_sphinx = False
