"""The real data sets, which the package does not ship: where they lie, and the skip where they do not."""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("METAV_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")).resolve()
WHY_NOT = "the real data sets are not here; name their folder in METAV_DATA"
needs_real_data = pytest.mark.skipif(not FOLDER.is_dir(), reason=WHY_NOT)
