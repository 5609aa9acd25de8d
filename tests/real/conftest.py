"""Where the real data lie: REELWRIGHT_REAL_DATA, or ../shared/data beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "REELWRIGHT_REAL_DATA"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; skips where there is none, fails where it was promised."""
    promised = os.environ.get(VARIABLE)
    if promised:
        folder = Path(promised)
        if not folder.is_dir():
            pytest.fail(f"{VARIABLE} is {promised!r}, which is no folder; unset it or point it at the real data.")
        return folder
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data beside the repository; set {VARIABLE} to their folder.")
    return folder
