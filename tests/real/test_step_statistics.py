"""The figures by which the preset `realistic` was chosen are those of MECCANO's labels, of train and val."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.step_statistics import MECCANO, MECCANO_FPS, recordings_of, statistics_of


def test_figures_are_those_of_the_labels(real_data: Path) -> None:
    recordings = recordings_of(real_data / "psr" / "MECCANO_PSR_Annotations", fps=MECCANO_FPS)
    assert len(recordings) == 13
    assert statistics_of(recordings) == pytest.approx(MECCANO, rel=0.01)
