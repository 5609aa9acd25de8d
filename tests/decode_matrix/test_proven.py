"""Each kind of file for which a fast backend is used is in the matrix; it gives FFmpeg's frames of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelwright.stages.decode.readers.proven import PROVEN
from tests.decode_matrix.proven import FAST, files, kinds


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_proven_is_borne_out(tmp_path: Path) -> None:
    found = kinds(files(tmp_path), only=frozenset().union(*PROVEN.values()))
    for backend in FAST:
        assert {kind: all(found[backend].get(kind, [False])) for kind in PROVEN[backend]} == dict.fromkeys(
            PROVEN[backend], True
        )
