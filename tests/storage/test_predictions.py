"""Prediction tables: typed, readable by others, complete or not there."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reelwright.storage.errors import InputError
from reelwright.storage.files import replacing_folder
from reelwright.storage.results.predictions import (
    METADATA_KEY,
    PredictedVideo,
    PredictionInfo,
    PredictionSet,
    Scored,
    open_writer,
    schema_of,
    scores_matrix,
)

INFO = PredictionInfo(
    key="k1", run="r1", task="per_row", classes=("stand", "<b>fall</b>"), extra={"window": {"length": 2}}
)
SCORES = np.array([[0.25, 0.75], [0.5, 0.5], [0.875, 0.125]], np.float32)
VIDEOS = [
    PredictedVideo(video_id=f"v{index}", digest=f"d{index}", split=split) for index, split in enumerate(("val", "test"))
]


def window_columns() -> dict[str, np.ndarray]:
    first = np.arange(3)
    return {
        "window": first,
        "start_row": first,
        "stop_row": first + 2,
        "start_seconds": first * 0.5,
        "stop_seconds": first * 0.5 + 1.0,
        "time_seconds": first * 0.5 + 0.5,
    }


def row_columns() -> dict[str, np.ndarray]:
    rows = np.arange(3)
    return {"row": rows, "start_seconds": rows * 0.5, "stop_seconds": rows * 0.5 + 0.5, "source_start": rows * 12}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "predictions" / "k1"
    with open_writer(path, INFO, with_rows=True) as writer:
        for video in VIDEOS:
            writer.write_windows(video, window_columns(), Scored(scores=SCORES, target_ids=np.array([1, -1, 1])))
            writer.write_rows(video, row_columns(), Scored(scores=SCORES))
            writer.write_video(video, num_windows=3, scored=Scored(scores=SCORES[:1], target_ids=np.array([0])))
    return path


def test_the_order_of_heads_is_kept(tmp_path: Path) -> None:
    heads = (("verb", 1), ("noun", 1))
    info = PredictionInfo(key="k", run="r", task="multi_label", classes=("verb: take", "noun: cup"), heads=heads)
    with open_writer(tmp_path / "k", info) as writer:
        writer.write_windows(VIDEOS[0], window_columns(), Scored(scores=SCORES))
        writer.write_video(VIDEOS[0], num_windows=3, scored=Scored(scores=SCORES[:1]))
    assert PredictionSet(tmp_path / "k").info == info


def test_heads_of_an_older_version_have_no_order(tmp_path: Path) -> None:
    values = {"key": "k", "run": "r", "task": "multi_label", "classes": ["verb: take", "noun: cup"], "version": 1}
    written = json.dumps({**values, "extra": {"heads": {"noun": 1, "verb": 1}}}).encode()
    with pytest.raises(InputError, match=r"did not keep the order of the heads \(noun, verb\): run predict again"):
        PredictionInfo.from_metadata({METADATA_KEY: written}, path=tmp_path)


def test_duckdb_reads_it_as_it_is(folder: Path) -> None:
    query = f"select video_id, split, label, score, scores, target_id, target from '{folder}/windows.parquet' limit 3"
    assert duckdb.sql(query).fetchall() == [
        ("v0", "val", "<b>fall</b>", 0.75, [0.25, 0.75], 1, "<b>fall</b>"),
        ("v0", "val", "stand", 0.5, [0.5, 0.5], None, None),
        ("v0", "val", "stand", 0.875, [0.875, 0.125], 1, "<b>fall</b>"),
    ]


def test_pandas_reads_it_as_it_is(folder: Path) -> None:
    frame = pd.read_parquet(folder / "videos.parquet")
    assert frame["video_id"].tolist() == ["v0", "v1"]
    assert frame["label"].dtype == "category"
    assert frame["num_windows"].tolist() == [3, 3]
    assert frame["target"].tolist() == ["stand", "stand"]
    windows = pd.read_parquet(folder / "windows.parquet")
    assert windows["time_seconds"].tolist() == [0.5, 1.0, 1.5] * 2
    assert windows["scores"][2].tolist() == [0.875, 0.125]


@pytest.mark.parametrize("name", ["windows", "rows", "videos"])
def test_files_have_the_documented_types(folder: Path, name: str) -> None:
    schema = schema_of(name, 2)
    written = pq.read_schema(folder / f"{name}.parquet")
    assert written.remove_metadata().names == schema.names
    assert {field.name: field.type for field in written} == {field.name: field.type for field in schema}
    nullable = {field.name for field in written if field.nullable}
    assert nullable == {"target_id", "target", "targets"} & set(schema.names)


def test_metadata_says_which_run(folder: Path) -> None:
    assert PredictionSet(folder).info == INFO
    assert b'"run": "r1"' in pq.read_schema(folder / "rows.parquet").metadata[b"reelwright"]


def test_a_row_group_is_a_video(folder: Path) -> None:
    tables = list(PredictionSet(folder).by_video("windows", columns=["video_id", "window"]))
    assert [set(table["video_id"].to_pylist()) for table in tables] == [{"v0"}, {"v1"}]
    assert [table["window"].to_pylist() for table in tables] == [[0, 1, 2]] * 2


def test_scores_come_back_exactly(folder: Path) -> None:
    np.testing.assert_array_equal(scores_matrix(PredictionSet(folder).rows()), np.concatenate([SCORES, SCORES]))


def test_target_sets_are_null_where_unknown(tmp_path: Path) -> None:
    info = PredictionInfo(key="k", run="r", task="multi_label", classes=("a", "b"))
    sets = np.array([[True, False], [True, True], [False, False]])
    scored = Scored(scores=SCORES, targets=sets, known=np.array([True, False, True]))
    with open_writer(tmp_path / "p", info) as writer:
        writer.write_windows(VIDEOS[0], window_columns(), scored)
    found = PredictionSet(tmp_path / "p")
    assert found.windows()["targets"].to_pylist() == [[True, False], None, [False, False]]
    assert found.windows()["target"].to_pylist() == [None] * 3
    assert not found.has_rows


def test_no_video_gives_empty_tables_with_types(tmp_path: Path) -> None:
    with open_writer(tmp_path / "p", INFO):
        pass
    found = PredictionSet(tmp_path / "p")
    assert (found.windows().num_rows, found.videos().num_rows, list(found.by_video("windows"))) == (0, 0, [])
    assert scores_matrix(found.windows()).shape == (0, 2)
    assert duckdb.sql(f"select count(*) from '{tmp_path}/p/windows.parquet'").fetchall() == [(0,)]


def test_a_failed_write_leaves_the_old_predictions(folder: Path) -> None:
    before = (folder / "windows.parquet").read_bytes()
    with pytest.raises(RuntimeError, match="killed"), open_writer(folder, INFO) as writer:  # noqa: PT012
        writer.write_windows(VIDEOS[0], window_columns(), Scored(scores=SCORES))
        raise RuntimeError("killed")
    assert (folder / "windows.parquet").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_new_write_replaces_all_files(folder: Path) -> None:
    with open_writer(folder, INFO):
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["videos.parquet", "windows.parquet"]


def test_replacing_folder_gives_an_empty_folder(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "a" / "b") as temporary:
        assert list(temporary.iterdir()) == []
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("scored", "columns", "message"),
    [
        (Scored(scores=SCORES[:, :1]), {}, "scores have 1 columns, but there are 2 classes"),
        (Scored(scores=SCORES), {"start_row": None}, r"lack the columns \['start_row'\]"),
    ],
    ids=["number of classes", "missing column"],
)
def test_wrong_tables_are_refused(tmp_path: Path, scored: Scored, columns: dict[str, None], message: str) -> None:
    given = {name: values for name, values in window_columns().items() if name not in columns}
    with pytest.raises(ValueError, match=message), open_writer(tmp_path / "p", INFO) as writer:
        writer.write_windows(VIDEOS[0], given, scored)
    assert list(tmp_path.iterdir()) == []


def test_rows_need_a_writer_with_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="with_rows=True"), open_writer(tmp_path / "p", INFO) as writer:
        writer.write_rows(VIDEOS[0], row_columns(), Scored(scores=SCORES))


def test_missing_predictions_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run predict first"):
        PredictionSet(tmp_path)


def test_missing_rows_say_which_tables_are_there(tmp_path: Path) -> None:
    with open_writer(tmp_path / "p", INFO):
        pass
    with pytest.raises(InputError, match=r"predict again; there are videos.parquet, windows.parquet"):
        PredictionSet(tmp_path / "p").rows()


def test_a_foreign_file_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"label": ["a"]}), tmp_path / "windows.parquet")
    with pytest.raises(InputError, match="it was not written by predict"):
        _ = PredictionSet(tmp_path).info
