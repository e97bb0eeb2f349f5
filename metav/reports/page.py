"""One HTML page for one verdict: what was found, the picture, and what the fingerprint was made from."""

from __future__ import annotations

import io

from metav.errors import InputError
from metav.fingerprints.fingerprint import Fingerprint
from metav.reports.score_plot import plot_scores
from metav.support.files import PathLike, path_text, write_atomically
from metav.support.versions import version_of
from metav.verdicts.verdict import Verdict

_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>metav: {{ verdict.decision }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 0 0 2rem; }
caption { text-align: left; font-weight: 600; padding: 0.4rem 0; }
th { text-align: left; font-weight: 500; color: #595959; white-space: nowrap; vertical-align: top; }
th { padding: 0.3rem 1rem 0.3rem 0; }
td { padding: 0.3rem 0; overflow-wrap: anywhere; }
tr { border-top: 1px solid #e6e6e6; }
svg { width: 100%; height: auto; }
footer { color: #595959; font-size: 0.9rem; }
</style>
</head>
<body>
<h1>Was this model derived from the owner's?</h1>
{{ verdict._repr_html_() | safe }}
{{ picture | safe }}
{{ fingerprint._repr_html_() | safe }}
<footer>
A match says that the suspect was derived from the owner's model; it does not say how it was come by.
Written by metav {{ version }}.
</footer>
</body>
</html>
"""


def write_page(fingerprint: Fingerprint, verdict: Verdict, path: PathLike) -> None:
    """Write the page into one file that needs no other.

    Raises InputError where it cannot be written.
    """
    from jinja2 import Environment

    target = path_text(path)
    drawn = io.StringIO()
    plot_scores(fingerprint, verdict).figure.savefig(drawn, format="svg")
    picture = drawn.getvalue()
    text = (
        Environment(autoescape=True)
        .from_string(_TEMPLATE)
        .render(
            verdict=verdict,
            fingerprint=fingerprint,
            picture=picture[picture.index("<svg") :],
            version=version_of(),
        )
    )
    try:
        write_atomically(target, text.encode())
    except OSError as error:
        raise InputError(
            f"the page cannot be written to {target} ({error.strerror or error}); choose a file in an existing folder"
        ) from error
