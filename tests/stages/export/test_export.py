"""Exports say what the store says, in the forms of others, byte for byte the same each time."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest

from reelwright.pipeline.inspect.export import ExportRequest, export_node
from reelwright.pipeline.project import Project
from reelwright.stages.export.embeddings import ExportedVideo, export_npy, export_webdataset
from reelwright.stages.export.predictions import (
    PredictionExport,
    export_activitynet,
    export_csv,
    export_mstcn,
    segments,
)
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import ConfigError, StageError, StoreError
from reelwright.storage.results.predictions import PredictedVideo, PredictionInfo, PredictionSet, Scored, open_writer
from reelwright.storage.tables.names import file_names

CLASSES = ("idle", "cut", "pour it")


def write_predictions(folder, *, task="per_row", heads=()):
    """Two videos of four rows, every second frame at 10 frames a second: idle cut cut pour, and all cut."""
    info = PredictionInfo(key="k", run="r", task=task, classes=CLASSES, heads=heads)
    rows = np.arange(4)
    columns = {
        "row": rows,
        "start_seconds": rows / 5,
        "stop_seconds": rows / 5 + 0.1,
        "source_start": rows * 2,
    }
    windows = {
        "window": rows,
        "start_row": rows,
        "stop_row": rows + 1,
        "start_seconds": rows / 5,
        "stop_seconds": rows / 5 + 0.1,
        "time_seconds": rows / 5,
    }
    with open_writer(folder, info, with_rows=True) as writer:
        for name, split, labels in (("a/b", "test", [0, 1, 1, 2]), ("c", "train", [1, 1, 1, 1])):
            video = PredictedVideo(video_id=name, digest="d", split=split)
            scores = np.full((4, 3), 0.2, np.float32)
            scores[rows, labels] = 0.6
            if task == "multi_label":
                scores[2:, 0] = 0.9
            targets = np.array([0, 1, 1, -1 if name == "c" else 2])
            writer.write_windows(video, windows, Scored(scores=scores))
            writer.write_rows(video, columns, Scored(scores=scores, target_ids=targets))
            writer.write_video(video, num_windows=4, scored=Scored(scores=scores[:1]))
    return PredictionSet(folder)


def test_mstcn(tmp_path):
    predictions = write_predictions(tmp_path / "p")
    assert export_mstcn(predictions, tmp_path / "out", PredictionExport()) == 2
    read = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_text() for path in (tmp_path / "out").rglob("*.txt")
    }
    assert read == {
        "mapping.txt": "0 idle\n1 cut\n2 pour it\n",
        "predictions/a_b.txt": "idle\nidle\ncut\ncut\ncut\ncut\npour it\npour it\n",
        "groundTruth/a_b.txt": "idle\nidle\ncut\ncut\ncut\ncut\npour it\npour it\n",
        "predictions/c.txt": "cut\n" * 8,
    }
    assert export_mstcn(predictions, tmp_path / "rows", PredictionExport(per_row=True, splits={"test"})) == 1
    assert (tmp_path / "rows/predictions/a_b.txt").read_text() == "idle\ncut\ncut\npour it\n"
    several = write_predictions(tmp_path / "q", task="multi_label", heads=(("what", 2), ("how", 1)))
    with pytest.raises(StageError, match=r"one label a frame.*multi_label; take activitynet"):
        export_mstcn(several, tmp_path / "x", PredictionExport())


def test_activitynet(tmp_path):
    predictions = write_predictions(tmp_path / "p")
    assert export_activitynet(predictions, tmp_path / "out", PredictionExport(background="idle")) == 2
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert content["version"] == "VERSION 1.3"
    assert content["results"] == {
        "a/b": [
            {"label": "cut", "score": 0.6, "segment": [0.2, 0.6]},
            {"label": "pour it", "score": 0.6, "segment": [0.6, 0.7]},
        ],
        "c": [{"label": "cut", "score": 0.6, "segment": [0.0, 0.7]}],
    }
    with pytest.raises(StageError, match=r"background 'idel' is no class\. Did you mean 'idle'"):
        export_activitynet(predictions, tmp_path / "out", PredictionExport(background="idel"))


def test_csv_has_the_three_best_classes_of_every_video_and_its_path(tmp_path):
    """In a/b class 0 has 0.6, the others 0.2 each: of equal ones the lower id is first. Targets are of rows alone."""
    predictions = write_predictions(tmp_path / "p", task="video")
    paths = {"a/b": "/films/a b.mp4", "c": "s3://films/c.mp4"}
    assert export_csv(predictions, tmp_path / "out", PredictionExport(paths=paths)) == 2
    assert (tmp_path / "out/predictions.csv").read_text() == (
        'path label pred1 pred2 pred3\n"/films/a b.mp4"  0 1 2\ns3://films/c.mp4  1 0 2\n'
    )
    assert (tmp_path / "out/mapping.txt").read_text() == "0 idle\n1 cut\n2 pour it\n"
    assert export_csv(predictions, tmp_path / "test", PredictionExport(paths=paths, splits={"test"})) == 1
    several = write_predictions(tmp_path / "q", task="multi_label")
    with pytest.raises(StageError, match=r"one label a video.*multi_label; take activitynet"):
        export_csv(several, tmp_path / "x", PredictionExport(paths=paths))


def test_activitynet_of_heads_has_the_best_class_of_each_however_unlikely(tmp_path):
    """A head of many classes may give none of them a probability of 0.5."""
    predictions = write_predictions(tmp_path / "p", task="multi_label", heads=(("what", 2), ("how", 1)))
    export_activitynet(predictions, tmp_path / "out", PredictionExport())
    found = json.loads((tmp_path / "out/predictions.json").read_text())["results"]["a/b"]
    assert [entry["label"] for entry in found if entry["segment"][0] == 0] == ["idle", "pour it"]
    assert next(entry for entry in found if entry["label"] == "pour it")["score"] == pytest.approx(0.3)


def test_activitynet_of_sets_of_labels():
    present = np.array([[1, 0], [1, 1], [0, 1]], dtype=bool)
    scores = np.array([[0.5, 0], [0.7, 0.9], [0, 0.8]], np.float32)
    assert segments(present, np.array([0.0, 1, 2, 3]), scores, ["x", "y"]) == [
        {"label": "x", "score": 0.6, "segment": [0, 2]},
        {"label": "y", "score": 0.85, "segment": [1, 3]},
    ]


@pytest.fixture
def store(tmp_path):
    layout = RowLayout(outputs={"pooled": (3,)}, dtype="float32")
    writer = EmbeddingWriter.create(tmp_path / "e.zarr", {"spec": {}}, layout=layout)
    for number, digest in enumerate(("aa", "bb", "cc")):
        rows = np.arange(2)
        writer.begin(digest, num_rows=2)
        spans = Spans(rows / 2, rows / 2 + 0.5, rows, rows + 1)
        writer.write_shard(digest, 0, arrays={"pooled": np.full((2, 3), number, np.float32)}, spans=spans)
        writer.finish(digest, num_rows=2)
    return EmbeddingStore(tmp_path / "e.zarr")


VIDEOS = [
    ExportedVideo(video_id="../up", digest="aa", split="train", label="cut"),
    ExportedVideo(video_id="v1.part", digest="bb", split="test", label=""),
    ExportedVideo(video_id="c", digest="cc", split="test", label=""),
]


def test_npy(tmp_path, store):
    folder = tmp_path / "out"
    folder.mkdir()
    export_npy(store, VIDEOS, folder, output="pooled")
    assert sorted(path.name for path in folder.iterdir()) == [
        "_up.npy",
        "c.npy",
        "manifest.csv",
        "times.csv",
        "v1.part.npy",
    ]
    assert np.load(folder / "v1.part.npy").tolist() == [[1, 1, 1], [1, 1, 1]]
    assert (folder / "manifest.csv").read_text().splitlines()[:2] == [
        "video_id,path,split,label,rows",
        "../up,_up.npy,train,cut,2",
    ]
    assert (folder / "times.csv").read_text().splitlines()[2] == "../up,1,0.5,1.0,1,2"


def test_webdataset_shards(tmp_path, store):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        export_webdataset(store, VIDEOS, tmp_path / name, output="pooled", shard_bytes=800)
    shards = sorted((tmp_path / "one").iterdir())
    assert [path.name for path in shards] == ["shard-000000.tar", "shard-000001.tar"]
    for path in shards:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    with tarfile.open(shards[0]) as file:
        names = file.getnames()
        assert names[:4] == ["___up.json", "___up.npy", "___up.spans.npy", "v1_part.json"]
        assert json.load(file.extractfile("v1_part.json"))["video_id"] == "v1.part"
        spans = np.load(io.BytesIO(file.extractfile("v1_part.spans.npy").read()))
        assert spans.tolist() == [[0, 0.5], [0.5, 1]]
        assert {entry.mtime for entry in file} == {0}


NAMES = {
    "plain": (["a", "b-1"], {"a": "a", "b-1": "b-1"}),
    "up and away": (["../../etc/x"], {"../../etc/x": "_.._etc_x"}),
    "hidden": ([".x"], {".x": "x"}),
}


@pytest.mark.parametrize(("ids", "names"), NAMES.values(), ids=NAMES)
def test_file_names(ids, names):
    assert file_names(ids) == names


def test_file_names_are_of_one_video_each():
    ids = ["a/b", "a_b", "A_B", "", "x" * 300]
    names = file_names(ids)
    assert len({name.lower() for name in names.values()}) == 5
    assert all(0 < len(name) < 100 and "/" not in name for name in names.values())


@pytest.fixture
def project(tmp_path):
    (tmp_path / "feats").mkdir()
    for number in range(2):
        np.save(tmp_path / "feats" / f"v{number}.npy", np.eye(3, 2) + number)
    (tmp_path / "reelwright.yaml").write_text(
        "videos: {features: feats}\nstages:\n  feats: {uses: features, fps: 2}\n", encoding="utf-8"
    )
    return Project.open(tmp_path / "reelwright.yaml")


def test_export_of_a_node_and_back(tmp_path, project):
    request = ExportRequest(node="feats", form="npy", folder=tmp_path / "out")
    with pytest.raises(StoreError, match="Run it first"):
        export_node(project, request)
    assert project.run().exit_code == 0
    assert export_node(project, request) == 2
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert export_node(project, request) == 2  # our own folder is replaced
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
    (tmp_path / "scored.yaml").write_text(
        "videos: {manifest: scored.csv}\nlabels: {column: label, classes: [bad, good]}\nstages:\n"
        "  feats: {uses: features, fps: 2}\n"
        "  guess: {uses: import_predictions, embeddings: feats, activation: softmax}\n"
    )
    (tmp_path / "scored.csv").write_text("path,split,label\nfeats/v0.npy,train,good\nfeats/v1.npy,val,\n")
    scored = Project.open(tmp_path / "scored.yaml")
    assert scored.run().exit_code == 0
    csv = ExportRequest(node="guess", form="csv", folder=tmp_path / "csv", splits=("train", "val"))
    assert export_node(scored, csv) == 2
    assert (tmp_path / "csv/predictions.csv").read_text() == (
        f"path label pred1 pred2 pred3\n{tmp_path}/feats/v0.npy 1 0 1 \n{tmp_path}/feats/v1.npy  0 1 \n"
    )
    (tmp_path / "again.yaml").write_text(
        "videos: {manifest: out/manifest.csv}\nstages:\n  feats: {uses: features, times: out/times.csv}\n"
    )
    again = Project.open(tmp_path / "again.yaml")
    assert again.run().exit_code == 0
    np.testing.assert_array_equal(again.embeddings("feats")["v1"].output("pooled"), np.eye(3, 2) + 1)
    assert again.embeddings("feats")["v1"].spans.stop_seconds.tolist() == [0.5, 1, 1.5]

    refused = {
        "no such form.*Did you mean 'npy'": ExportRequest(node="feats", form="npi", folder=tmp_path / "x"),
        "makes embeddings; mstcn is made of predictions": ExportRequest(
            node="feats", form="mstcn", folder=tmp_path / "x"
        ),
        "no export of ours": ExportRequest(node="feats", form="npy", folder=tmp_path / "feats"),
    }
    for message, wrong in refused.items():
        with pytest.raises(ConfigError, match=message):
            export_node(project, wrong)
    with pytest.raises(StoreError, match="no video in the splits"):
        export_node(project, ExportRequest(node="feats", form="npy", folder=tmp_path / "x", splits=("val",)))
    assert not (tmp_path / "x").exists()
