"""--nproc: one run trained by two processes, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_commands import reelwright


@pytest.mark.slow
def test_two_processes_train_one_run_and_need_no_second(folder: Path) -> None:
    first = reelwright(folder, "train", "--nproc", "2", "-S", "train.device=cpu")
    assert first.returncode == 0, first.stderr
    assert "2 processes share each batch" in first.stderr
    again = reelwright(folder, "train", "--nproc", "1")
    assert "nothing to do" in again.stdout  # how many processes is not in the key


@pytest.mark.slow
def test_other_stages_have_no_processes_to_share_a_batch(folder: Path) -> None:
    refused = reelwright(folder, "decode", "--nproc", "2")
    assert refused.returncode == 2
    assert "No such option: --nproc" in refused.stderr
