"""Edited attention: which places of which windows change and how, what the model does with it, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from reelwright.pipeline.project import Project
from reelwright.stages.datasets.attention_edits import AttentionEdits
from reelwright.stages.fit.run_models import load_run_model
from reelwright.stages.predict import loaded_run
from reelwright.stages.predict.config import PredictConfig
from reelwright.stages.predict.work import publish, run_items
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.work import run
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.arrays.window_outputs import WindowOutputStore
from reelwright.storage.errors import ConfigError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.results.scores import read_scores
from reelwright.storage.tables.annotations import Annotation
from reelwright.storage.tables.attention_edits import AttentionEdit
from tests.small_project import read_rows, write_rows

GRID = 3
TABLE = "video_id,start_seconds,stop_seconds,weight,x0,y0,x1,y1,how\n"


@pytest.fixture
def maps(toy):
    """Two videos of 10 rows of half a second each, and a run on windows of 6 of their maps."""
    for number, name in enumerate("ab"):
        rows = np.random.default_rng(number).normal(size=(10, 4, GRID, GRID)).astype(np.float32)
        toy.write("emb", name, rows, name="map")
        toy.add(name, "train", Annotation(label=number), video_id=f"video {name}")
    work = toy.train_work(
        output="map", task="video", window={"length": 6}, epochs=1, batch_size=2,
        model={"name": "attention_branch", "width": 8, "layers": 1, "dropout": 0.0},
    )  # fmt: skip
    run(work, toy.reporter)
    return toy


def predicted(toy, tmp_path, text, *, key="edited", **config):
    (tmp_path / "edits.csv").write_text(TABLE + text, encoding="utf-8")
    edits = {"edit_attention": str(tmp_path / "edits.csv")} if text else {}
    work = toy.predict_work(key=key, keep=["attention"], window={"hop": 4}, **edits, **config)
    run_items(work, toy.reporter)
    return WindowOutputStore(toy.store.attention(key))


def test_attention_is_changed_where_the_table_says_and_the_scores_follow(maps, tmp_path):
    """Windows hold rows 0 to 5 and 4 to 9; rows 2 and 3 begin at 1 and 1.5 s, row 8 at 4 s."""
    before = predicted(maps, tmp_path, "", key="before").rows("a")
    text = "video a,1,2,0.5,,,,,\nvideo a,4,4.5,0.75,,,,,replace\nvideo a,0,0.5,0,0.3,0,1,0.4,\nvideo a,,,1.5,,,,,\n"
    found = predicted(maps, tmp_path, text)
    time, space = (before.output(name).astype(np.float32) for name in ("time", "space"))
    wanted = time.copy()
    wanted[0, 2:4] *= 0.5
    wanted[1, 4] = 0.75
    wanted = np.minimum(1, 1.5 * wanted)  # edits are made one after the other
    space[0, 0, 0, 1:] = 0
    np.testing.assert_allclose(found.rows("a").output("time"), wanted, atol=1e-6)
    np.testing.assert_allclose(found.rows("a").output("space"), space, atol=1e-3)
    module, _ = load_run_model(RunFolder(maps.store.run("run")), plugins={})
    rows = torch.from_numpy(EmbeddingStore(maps.store.embeddings("emb")).rows("a").output("map"))
    given = {}
    module.eval().gate.register_forward_pre_hook(
        lambda _gate, inputs: (inputs[0], inputs[1]._replace(**given)),
    )
    given |= {"time": torch.from_numpy(wanted), "space": torch.from_numpy(space)}
    with torch.inference_mode():
        windows = {"rows": torch.stack([rows[:6], rows[4:]]), "mask": torch.ones(2, 6, dtype=torch.bool)}
        logits = module(windows)["logits"]
    scores = read_scores(maps.store.predictions("edited"), "a").scores
    np.testing.assert_allclose(scores, logits.softmax(-1).numpy(), atol=1e-3)  # maps are kept as float16
    assert np.abs(scores - read_scores(maps.store.predictions("before"), "a").scores).max() > 1e-3
    untouched = [read_scores(maps.store.predictions(key), "b").scores for key in ("before", "edited")]
    assert np.array_equal(*untouched)


def test_weights_of_one_change_nothing(maps, tmp_path):
    predicted(maps, tmp_path, "", key="before")
    predicted(maps, tmp_path, "video a,,,1,,,,,\nvideo b,,,1,0,0,1,1,\n")
    for name in "ab":
        scores = [read_scores(maps.store.predictions(key), name).scores for key in ("before", "edited")]
        assert np.array_equal(*scores)


def test_rows_of_the_table_that_change_nothing_are_told(maps, tmp_path):
    predicted(maps, tmp_path, "video a,60,70,0,,,,,\nvideo a,0,70,0,,,,,\nvideo c,,,0,,,,,\n")
    assert [note for note in maps.reporter.notes if "edit_attention" in note] == [
        "warning: edit_attention: row 2 changes nothing: no row of a window lies in its time",
        "warning: edit_attention: not predicted are video c (of other splits, or without rows)",
    ]


def test_what_cannot_be_edited_is_refused_before_any_video(maps, tmp_path):
    with pytest.raises(ConfigError, match=r"row 2: the box covers the middle of no place .* 3 x 3 .* make it larger"):
        predicted(maps, tmp_path, "video a,,,0,0,0,0.1,0.1,\n")
    maps.videos.append({**maps.videos[0], "video_id": "copy of a"})
    with pytest.raises(ConfigError, match="video a and copy of a are copies of one video, which has one score; give"):
        predicted(maps, tmp_path, "video a,,,0,,,,,\n")
    assert not maps.store.node("edited").exists()
    both = "video a,,,0,,,,,\ncopy of a,,,0,,,,,\n"
    predicted(maps, tmp_path, both)
    work = maps.predict_work(key="edited", edit_attention=str(tmp_path / "edits.csv"), window={"hop": 4})
    publish(work, maps.store.predictions("published"))
    maps.videos[-1]["video_id"] = "another copy"  # since then
    with pytest.raises(ConfigError, match="are copies of one video"):
        publish(replace(work, payload=maps.payload()), maps.store.predictions("published"))


def test_a_place_in_time_is_of_several_rows_where_clips_are_rows():
    """Of an encoder of clips a window of 4 frames is one row: its middle is that of the clip, 2 s."""
    edit = AttentionEdit(line=2, start_seconds=1.9, stop_seconds=2.1, weight=0.25, replaces=True, box=None)
    box = replace(edit, line=3, weight=0.0, replaces=False, box=(0.0, 0.0, 0.5, 1.0))
    later = replace(edit, line=4, start_seconds=2.6, stop_seconds=9.0)
    edits = AttentionEdits({"d": [edit, box, later]})
    trial = {"attention.time": torch.full((1, 1), 0.5), "attention.space": torch.full((1, 1, 2, 2), 0.5)}

    def forward(changes):
        return {
            name: value * changes[f"attention_edit.{name.split('.')[1]}"][..., 0]
            + changes[f"attention_edit.{name.split('.')[1]}"][..., 1]
            for name, value in trial.items()
            if f"attention_edit.{name.split('.')[1]}" in changes
        }

    edits.check(forward, trial, length=4)
    seconds = np.arange(5.0)
    spans = Spans(seconds[:-1], seconds[1:], np.arange(4), np.arange(1, 5))
    found = edits.inputs(["d", "e"], [spans, spans], np.arange(4)[None].repeat(2, 0), np.ones((2, 4), bool))
    assert found["attention_edit.time"].tolist() == [[[0.0, 0.25]], [[1.0, 0.0]]]
    assert found["attention_edit.space"].shape == (2, 1, 2, 2, 2)
    assert found["attention_edit.space"][0, 0, :, :, 0].tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert edits.warnings(["d"]) == [
        "warning: edit_attention: row 4 changes nothing: no row of a window lies in its time"
    ]
    with pytest.raises(ConfigError, match="has 2 places in time for windows of 5 rows"):
        edits.check(
            lambda _: {name: torch.full((1, 2), 0.25) for name in trial},
            {"attention.time": torch.zeros(1, 2), "attention.space": torch.zeros(1, 2, 2, 2)},
            length=5,
        )


def test_models_without_attention_are_refused(pulse_toy, tmp_path):
    run(pulse_toy.train_work(epochs=1), pulse_toy.reporter)
    (tmp_path / "edits.csv").write_text("video_id,weight\nname of d0,0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"edit_attention: the model has no attention\.time that can be edited"):
        run_items(pulse_toy.predict_work(edit_attention=str(tmp_path / "edits.csv")), pulse_toy.reporter)
    trained = TrainConfig(embeddings=["e"], model={"name": "gru"})
    config = PredictConfig(run="t", edit_attention="edits.csv")
    with pytest.raises(
        ConfigError,
        match=r"edit_attention: gru has no attention that can be edited; attention_branch \(with branch: true",
    ):
        config.complete({"t": trained}, where="test")
    shown = TrainConfig(embeddings=["e"], model={"name": "attention_branch", "branch": "ungated"})
    with pytest.raises(ConfigError, match="edit_attention: attention_branch has no attention that can be edited"):
        config.complete({"t": shown}, where="test")
    with pytest.raises(ValueError, match="several crops show other parts; set crops: 1"):
        PredictConfig(run="t", frames="f", crops=3, edit_attention="edits.csv")


@pytest.mark.slow
def test_an_edit_runs_prediction_alone_and_a_second_run_no_model(copied, monkeypatch):
    """Maps, training and unedited scores stay; so does what was done under the same names and contents."""
    text = (copied / "reelwright.yaml").read_text(encoding="utf-8")
    (copied / "reelwright.yaml").write_text(
        text[: text.index("  train:\n")]
        + """
  maps: {uses: embed, frames: frames, encoder: timm/test_resnet, weights: none, outputs: [map], channels_last: false}
  train:
    uses: train
    embeddings: [maps]
    output: map
    task: majority
    window: {length: 4, hop: 2}
    model: {name: attention_branch, width: 8, layers: 1}
    epochs: 1
    val_splits: []
  said: {uses: predict, run: train, keep: [attention]}
  edited: {uses: predict, run: train, keep: [attention], edit_attention: edits.csv}
  looked: {uses: render, predictions: edited, against: said, best: 0, worst: 1, height: 64, sheet: 2}
""",
        encoding="utf-8",
    )

    def ran():
        result = Project.open(copied / "reelwright.yaml").run()
        assert result.exit_code == 0
        return [node.node for node in result.nodes if node.state == "ran"]

    (copied / "edits.csv").write_text("video_id,weight\nd,0\n", encoding="utf-8")
    assert ran() == ["maps", "train", "said", "edited", "looked"]
    opened = Project.open(copied / "reelwright.yaml")
    assert opened.attention("said")["d"].attributes["seen"]["crop"] == "center"
    assert not opened.attention("edited")["d"].output("time").any()
    assert opened.attention("edited")["e"].output("time").any()
    folder = opened.report("looked")
    assert {path.suffix for path in folder.rglob("*.*")} == {".mp4", ".jpg", ".parquet", ".html", ".json"}
    assert "true" in (folder / "index.html").read_text(encoding="utf-8")
    with monkeypatch.context() as patched:
        patched.setattr(loaded_run, "load_run_model", None)
        assert ran() == []
        (copied / "edits.csv").write_text("video_id,weight\nd,0.5\n", encoding="utf-8")
        opened = Project.open(copied / "reelwright.yaml")
        assert [plan.node.name for plan in opened.planner().plans() if plan.todo] == ["edited"]
    assert ran() == ["edited", "looked"]
    rows = read_rows(copied / "videos.csv")
    names = {"d": "e", "e": "d"}
    write_rows(
        copied / "videos.csv", [{**row, "video_id": names.get(row["video_id"], row["video_id"])} for row in rows]
    )
    assert "edited" in ran()  # the name d is another video now
    opened = Project.open(copied / "reelwright.yaml")
    halved, whole = (opened.attention(node)["d"].output("time") for node in ("edited", "said"))
    np.testing.assert_allclose(halved, 0.5 * whole, atol=1e-6)
    (copied / "edits.csv").write_text("video_id,weight\nf,0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"stages\.edited\.edit_attention: there is no video 'f'"):
        Project.open(copied / "reelwright.yaml").run()
