"""The map of embeddings: labels over time by hand, places of rows that lie in a plane already."""

import numpy as np
import pytest
from markupsafe import Markup

from reelwright.stages.evaluate.config import EvaluateConfig, MapSettings
from reelwright.stages.evaluate.embedding_map import (
    METHODS,
    UNKNOWN_LABEL,
    embedding_map,
    labels_of_rows,
    map_section,
    states_over_time,
)
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import ConfigError


def test_states_follow_from_steps():
    at = states_over_time((1, 0, 0), [(2.0, 3), (3.0, 7), (5.0, 2)])
    assert [at(seconds) for seconds in (0.0, 1.9, 2.0, 3.5, 6.0)] == ["100", "100", "110", "11x", "01x"]


def test_labels_of_rows_hold_until_the_next():
    at = labels_of_rows([1.0, 2.0, 3.0], ["a", None, "b"])
    assert [at(seconds) for seconds in (0.5, 1.5, 2.5, 9.0)] == [UNKNOWN_LABEL, "a", UNKNOWN_LABEL, "b"]


@pytest.fixture
def store(tmp_path):
    """One video of 40 rows, which lie on two lines of a plane in four dimensions."""
    place = np.zeros((40, 4), np.float32)
    place[:, 1] = np.arange(40)
    place[:, 3] = np.arange(40) % 2
    frames = np.arange(40)
    layout = RowLayout(outputs={"pooled": (4,)}, dtype="float32")
    writer = EmbeddingWriter.create(tmp_path / "rows.zarr", {"spec": {}}, layout=layout, item_attributes={})
    writer.begin("d" * 8, num_rows=40)
    spans = Spans(frames / 10, (frames + 1) / 10, frames, frames + 1)
    writer.write_shard("d" * 8, 0, arrays={"pooled": place}, spans=spans)
    writer.finish("d" * 8, num_rows=40)
    return EmbeddingStore(tmp_path / "rows.zarr")


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_places(store, method):
    settings = MapSettings(method=method, rows=20)
    places, labels = embedding_map(
        store, {"d" * 8: lambda seconds: "late" if seconds > 2 else "early"}, settings=settings
    )
    assert places.shape == (20, 2)
    assert places.min() == 0
    assert places.max() == 1
    assert labels == ["early"] * 10 + ["late"] * 10
    if method == "pca":  # the first axis is the one along which rows lie apart
        assert abs(np.corrcoef(places[:, 0], np.arange(20))[0, 1]) == pytest.approx(1.0, abs=1e-3)
    chart = map_section(places, labels, method=method, node="embed").parts[-1]
    assert isinstance(chart, Markup)
    assert chart.count("<circle") == 20
    assert "<title>late</title>" in chart


def test_a_store_without_these_videos_gives_no_map(store):
    assert embedding_map(store, {"other": str}, settings=MapSettings()) is None


def test_umap_is_asked_for_by_name(store, monkeypatch):
    monkeypatch.setattr("reelwright.stages.evaluate.embedding_map.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="needs the package umap-learn; install it, or choose pca or tsne"):
        embedding_map(store, {"d" * 8: str}, settings=MapSettings(method="umap"))


def test_the_map_is_in_the_key_only_where_it_is_asked_for():
    plain = EvaluateConfig(predictions="p")
    assert "map" not in plain.spec()
    assert plain.spec() != EvaluateConfig(predictions="p", map={"method": "tsne"}).spec()
    assert plain.spec() == EvaluateConfig(predictions="p", map={"method": "tsne"}, report=False).spec() | {
        "report": True,
        "thumbnails": 8,
        "report_videos": 50,
    }
    with pytest.raises(ValueError, match="draws no map"):
        EvaluateConfig(predictions="p", embeddings="e", map=None)
    drawn = EvaluateConfig(predictions="p", embeddings="e")
    assert drawn.spec() != EvaluateConfig(predictions="p", embeddings="e", map={"method": "tsne"}).spec()


def test_of_more_videos_than_rows_some_are_drawn(store, monkeypatch):
    """A row each, of videos spread evenly."""
    read = []
    monkeypatch.setitem(METHODS, "pca", lambda rows, _: rows[:, :2])

    class Store:
        def digests(self):
            return [str(number) for number in range(10)]

        def rows(self, digest):
            read.append(digest)
            return store.rows("d" * 8)

    labels = {str(number): lambda _: "a" for number in range(10)}
    found = embedding_map(Store(), labels, settings=MapSettings(method="pca", rows=5))
    assert len(found[1]) == 5
    assert read == ["0", "2", "4", "6", "8"]
