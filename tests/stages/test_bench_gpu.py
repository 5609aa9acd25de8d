"""`make bench-gpu` without a GPU: what it says, and the same script on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.benchmarks import gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="is of machines without a GPU")
def test_without_a_gpu_it_says_so_and_fails_only_where_one_was_promised(capsys):
    assert gpu.main([]) == 0
    assert capsys.readouterr().out.startswith("bench-gpu: torch finds no GPU on this machine; nothing was checked")
    assert gpu.main(["--must"]) == 1


def test_a_section_that_breaks_is_a_failed_check_and_the_others_go_on(monkeypatch, capsys, tmp_path):
    def broken(_setting):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gpu, "SECTIONS", {"broken": broken, "not finite": gpu.not_finite})
    assert gpu.main(["--device", "cpu", "--tiny", "--json", str(tmp_path / "found.json")]) == 1
    printed = capsys.readouterr().out
    assert "broke off" in printed
    assert "1 of 2 checks hold" in printed
    found = json.loads((tmp_path / "found.json").read_text())["findings"]
    assert [line["section"] for line in found if line["is_right"]] == ["not finite"]


@pytest.mark.slow
def test_all_of_it_on_a_cpu(capsys, tmp_path: Path):
    assert gpu.main(["--device", "cpu", "--tiny", "--json", str(tmp_path / "found.json")]) == 0, capsys.readouterr()
    found = json.loads((tmp_path / "found.json").read_text())["findings"]
    assert {line["section"] for line in found} == set(gpu.SECTIONS)
    assert sum(line["is_right"] is True for line in found) >= 12
