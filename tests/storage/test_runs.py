"""The run folder: what completes it, and that its YAML is data."""

from __future__ import annotations

import pytest

from reelwright.storage.digests import file_digest
from reelwright.storage.errors import StoreError
from reelwright.storage.results.runs import RunFolder


def test_a_run_is_complete_when_its_weights_are_there(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write_config({"stage": "train", "classes": ("a", "b"), "window": {"length": 3}})
    folder.add_metrics({"epoch": 1, "train_loss": 0.5})
    folder.write_summary({"best": None})
    assert not folder.is_complete
    with pytest.raises(StoreError, match="training has not ended"):
        folder.weights_digest()
    folder.weights.write_bytes(b"weights")
    assert folder.is_complete
    assert folder.weights_digest() == file_digest(folder.weights)
    assert folder.config() == {"stage": "train", "classes": ["a", "b"], "window": {"length": 3}}
    assert folder.summary() == {"best": None}
    folder.clear()
    assert not folder.path.exists()


def test_metrics_are_lines_and_a_cut_one_is_left_out(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.metrics() == []
    for epoch in (1, 2, 3):
        folder.add_metrics({"epoch": epoch})
    with folder.metrics_file.open("a") as file:
        file.write('{"epoch": 4, "tra')
    assert folder.metrics() == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3}]
    folder.keep_metrics(folder.metrics()[:2])
    folder.add_metrics({"epoch": 3})
    assert [line["epoch"] for line in folder.metrics()] == [1, 2, 3]


def test_metrics_that_json_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        RunFolder(tmp_path).add_metrics({"loss": float("nan")})


BAD = {
    "code": ("!!python/object/apply:os.mkdir ['{marker}']\n", "no plain YAML"),
    "cut": ("classes: [a\n", "no plain YAML"),
    "list": ("- 1\n", "holds list, not a mapping"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_a_bad_config_is_refused_not_executed(tmp_path, text, message):
    marker = tmp_path / "executed"
    (tmp_path / "config.yaml").write_text(text.replace("{marker}", str(marker)))
    with pytest.raises(StoreError, match=message):
        RunFolder(tmp_path).config()
    assert not marker.exists()


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(StoreError, match="no run was trained here"):
        RunFolder(tmp_path).config()
    with pytest.raises(StoreError, match="training has not ended"):
        RunFolder(tmp_path).summary()
