"""Predictions of toy runs: windows, rows and videos, targets by name, and videos that cannot be done."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from reelwright.stages.base.work import InputRef
from reelwright.stages.predict.work import publish, run_items
from reelwright.stages.train.work import run
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.errors import ConfigError, StageError, StoreError
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.results.predictions import PredictionSet, scores_matrix
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.results.scores import read_scores
from reelwright.storage.tables.annotations import Annotation


def _trained(toy, **config):
    run(toy.train_work(**{"epochs": 1, "model": {"name": "linear"}, **config}), toy.reporter)


def _predicted(toy, work, folder="published"):
    run_items(work, toy.reporter)
    publish(work, toy.store.predictions(folder))
    return PredictionSet(toy.store.predictions(folder))


def test_a_trained_run_is_right_about_a_video_it_has_not_seen(pulse_toy):
    run(pulse_toy.train_work(epochs=8, optimizer={"lr": 0.01}, schedule={"warmup_epochs": 0.5}), pulse_toy.reporter)
    found = _predicted(pulse_toy, pulse_toy.predict_work())
    windows = found.windows().to_pandas()
    assert list(windows.video_id.unique()) == [entry["video_id"] for entry in pulse_toy.videos]
    test = windows[windows.split == "test"]
    assert len(test) == 120 - 12 + 1
    assert (test.label == test.target).mean() > 0.85
    first = test.iloc[0][["start_row", "stop_row", "start_seconds", "stop_seconds", "time_seconds"]]
    assert first.tolist() == [0, 12, 0.0, 6.0, 5.5]
    assert (found.info.key, found.info.run, found.info.task) == ("published", "run", "last_row")
    rows = found.rows().to_pandas()
    assert rows[rows.split == "test"].row.tolist() == list(range(11, 120))
    assert pq.ParquetFile(found.folder / "windows.parquet").num_row_groups == 5


@pytest.mark.parametrize("task", ["video", "last_row", "majority", "per_row", "multi_label"])
def test_every_task_is_predicted(pulse_toy, task):
    _trained(pulse_toy, task=task)
    found = _predicted(pulse_toy, pulse_toy.predict_work(window={"hop": 5}))
    windows, videos = found.windows(), found.videos()
    # The grid ends at row 117 of 120; one window more ends with row 119.
    assert windows.num_rows == 5 * (len(range(0, 120 - 12 + 1, 5)) + 1)
    assert windows["stop_row"].to_pylist()[21:23] == [117, 120]
    scores = scores_matrix(windows)
    if task == "multi_label":
        assert windows["target_id"].null_count == windows.num_rows
        assert all(sum(entry) >= 1 for entry in windows["targets"].to_pylist())
    else:
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
        assert windows["target_id"].null_count == 0
    mine = np.array(windows["video_digest"].to_pylist()) == "d3"
    of_video = scores_matrix(videos.filter(np.array(videos["video_digest"].to_pylist()) == "d3"))
    np.testing.assert_allclose(of_video[0], scores[mine].mean(axis=0), rtol=1e-5)
    assert videos["num_windows"].to_pylist() == [23] * 5


def test_rows_are_the_mean_over_the_windows_that_hold_them(toy):
    """A linear model of single rows says the same of a row in every window; a smoothing one is averaged by hand."""
    toy.pulses("d0", "train", num_rows=7)
    _trained(toy, task="per_row", window={"length": 3}, model={"name": "ms_tcn", "layers": 2})
    work = toy.predict_work(window={"hop": 2})
    run_items(work, toy.reporter)
    dense = toy.predict_work(key="dense")
    run_items(dense, toy.reporter)
    sparse, all_windows = (read_scores(toy.store.predictions(key), "d0") for key in ("scores", "dense"))
    assert sparse.start_row.tolist() == [0, 2, 4]
    assert sparse.num_windows.tolist() == [1, 1, 2, 1, 2, 1, 1]
    assert all_windows.num_windows.tolist() == [1, 2, 3, 3, 3, 2, 1]
    # The window's own score is that of its last row; row 6 is held by the last window alone.
    np.testing.assert_array_equal(all_windows.scores[-1], all_windows.row_scores[6])
    np.testing.assert_array_equal(sparse.scores[-1], sparse.row_scores[6])
    np.testing.assert_allclose(sparse.row_scores.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_batches_and_company_change_nothing(pulse_toy):
    pulse_toy.videos = pulse_toy.videos[:2]
    for number, num_rows in enumerate((3, 12, 30)):
        pulse_toy.pulses(f"short{number}", "test", num_rows=num_rows, seed=50 + number)
    for task in ("last_row", "per_row"):
        _trained(pulse_toy, task=task, key=task, model={"name": "gru"})
        for size in (1, 7, 256):
            run_items(pulse_toy.predict_work(key=f"{task}{size}", run=task, batch_size=size), pulse_toy.reporter)
        for digest in ("d0", "short0", "short2"):
            found = [read_scores(pulse_toy.store.predictions(f"{task}{size}"), digest) for size in (1, 7, 256)]
            for other in found[1:]:
                np.testing.assert_allclose(other.scores, found[0].scores, atol=1e-6)
                np.testing.assert_array_equal(other.num_windows, found[0].num_windows)


def test_a_short_video_has_one_padded_window_or_is_skipped(pulse_toy):
    pulse_toy.pulses("short", "test", num_rows=5)
    _trained(pulse_toy)
    found = _predicted(pulse_toy, pulse_toy.predict_work())
    short = found.windows().to_pandas().query("video_digest == 'short'")
    assert short[["start_row", "stop_row"]].to_numpy().tolist() == [[0, 5]]
    assert found.rows().to_pandas().query("video_digest == 'short'").row.tolist() == [4]
    for key, window in {"no pad": {"pad": False}, "left out": {"short": "leave_out"}}.items():
        found = _predicted(pulse_toy, pulse_toy.predict_work(key=key, window=window), f"{key} published")
        assert "short" not in found.windows()["video_digest"].to_pylist()
        row = ItemLedger(pulse_toy.store.node(key)).load()["short"]
        assert (row.status, row.cause) == ("skipped", "too_short")
        assert row.message == "5 rows are fewer than the 12 of a window; set window.short: pad or repeat"
    assert [note for note in pulse_toy.reporter.notes if note.startswith("warning")] == 2 * [
        (
            "warning: 1 video(s) have fewer rows than the 12 of a window and are left out: name of short (5); "
            "window.short: pad or repeat takes them in"
        )
    ]


LEFT = {
    # 120 rows in windows of 12; in the last case 0 2 4 ... 118, and off the grid 109 111 ... 119
    "the end": ("last_row", {"hop": 11, "to_end": False}, 9, "are in no window; window.to_end: true takes"),
    "hop above length": ("last_row", {"hop": 20}, 40, "are in no window; window.hop: 12 or less takes"),
    "both": (
        "per_row", {"hop": 25, "to_end": False}, 60,
        "have no score; window.to_end: true and window.hop: 12 or less takes",
    ),
    "between the rows of a window": (
        "per_row", {"length": 6, "hop": 2, "dilation": 2}, 54, "have no score; window.hop: 1 takes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("task", "window", "num_left", "words"), LEFT.values(), ids=LEFT)
def test_rows_that_no_window_scores_are_told(pulse_toy, task, window, num_left, words):
    _trained(pulse_toy, task=task, window={"length": 1} if "dilation" in window else {"length": 12})
    pulse_toy.reporter.notes.clear()
    run_items(pulse_toy.predict_work(window=window), pulse_toy.reporter)
    for row in ItemLedger(pulse_toy.store.node("scores")).load().values():
        scores = read_scores(pulse_toy.store.predictions("scores"), row.digest)
        inside = set().union(*(range(*span) for span in zip(scores.start_row, scores.stop_row, strict=True)))
        unscored = int((scores.num_windows == 0).sum()) if task == "per_row" else 120 - len(inside)
        assert unscored == num_left
        assert row.message == f"{num_left} of 120 rows {words} them in"
    (warning,) = [note for note in pulse_toy.reporter.notes if note.startswith("warning")]
    assert warning.startswith(f"warning: {5 * num_left} of 600 rows of 5 video(s) {words.split(';')[0]}: name of d")


def test_nothing_is_said_where_every_row_is_in_a_window(pulse_toy):
    pulse_toy.pulses("short", "test", num_rows=5)
    _trained(pulse_toy, task="per_row")
    pulse_toy.reporter.notes.clear()
    run_items(pulse_toy.predict_work(window={"hop": 12}), pulse_toy.reporter)
    assert [note for note in pulse_toy.reporter.notes if note.startswith("warning")] == []
    assert {row.message for row in ItemLedger(pulse_toy.store.node("scores")).load().values()} == {""}


@pytest.mark.parametrize("task", ["last_row", "per_row"])
def test_repeated_rows_are_real_to_the_model_and_counted_once(toy, task):
    """Of 3 rows a window of 5 is rows 0 1 2 2 2: as of a video that has these five rows."""
    toy.pulses("long", "train", num_rows=9)
    rows = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    for digest, places in {"three": [0, 1, 2], "five": [0, 1, 2, 2, 2]}.items():
        toy.write("emb", digest, rows[places])
        toy.add(digest, "test", Annotation())
    _trained(toy, task=task, window={"length": 5, "short": "repeat"}, model={"name": "gru"})
    run_items(toy.predict_work(), toy.reporter)
    run_items(toy.predict_work(key="padded", window={"short": "pad"}), toy.reporter)
    three, five = (read_scores(toy.store.predictions("scores"), digest) for digest in ("three", "five"))
    assert (three.start_row.tolist(), three.stop_row.tolist()) == ([0], [3])
    if task == "per_row":
        assert three.num_windows.tolist() == [1, 1, 1]
        np.testing.assert_allclose(three.row_scores, five.row_scores[:3], atol=1e-6)
    else:
        np.testing.assert_allclose(three.scores, five.scores, atol=1e-6)
        padded = read_scores(toy.store.predictions("padded"), "three")
        assert np.abs(padded.scores - three.scores).max() > 1e-4


def test_one_bad_video_does_not_stop_the_others(pulse_toy):
    _trained(pulse_toy)
    rows = np.ones((20, 6), np.float32)
    rows[3, 2] = np.nan
    pulse_toy.write("emb", "bad", rows)
    pulse_toy.add("bad", "test", Annotation(), video_id="has NaN")
    pulse_toy.add("gone", "test", Annotation(), video_id="never embedded")
    work = pulse_toy.predict_work()
    run_items(work, pulse_toy.reporter)
    ledger = ItemLedger(pulse_toy.store.node("scores"))
    rows = ledger.load()
    assert {digest: (row.status, row.cause) for digest, row in rows.items() if not row.is_done} == {
        "bad": ("failed", "not_finite"),
        "gone": ("failed", "no_embeddings"),
    }
    assert len(ledger.done()) == 5
    assert {row.digest for row in pulse_toy.reporter.rows} == set(rows)
    publish(work, pulse_toy.store.predictions("published"))
    assert PredictionSet(pulse_toy.store.predictions("published")).videos().num_rows == 5


def test_copies_and_names_share_scores(pulse_toy):
    _trained(pulse_toy)
    copy = {**pulse_toy.videos[0], "video_id": "a copy", "split": "test"}
    pulse_toy.videos.append(copy)
    found = _predicted(pulse_toy, pulse_toy.predict_work())
    assert len(pulse_toy.reporter.rows) == 5
    videos = found.videos().to_pandas().set_index("video_id")
    assert videos.loc["a copy"].scores.tolist() == videos.loc["name of d0"].scores.tolist()
    assert videos.loc["a copy"].split == "test"


def test_targets_are_matched_by_class_name(pulse_toy):
    _trained(pulse_toy)
    work = pulse_toy.predict_work()
    run_items(work, pulse_toy.reporter)
    publish(work, pulse_toy.store.predictions("same"))
    payload = {**work.payload, "classes": ["pulse", "bang"]}  # what was quiet is called pulse now, what was pulse, bang
    publish(replace(work, payload=payload), pulse_toy.store.predictions("other"))
    same, other = (PredictionSet(pulse_toy.store.predictions(name)).windows().to_pandas() for name in ("same", "other"))
    assert set(other.label) <= {"quiet", "pulse"}
    assert (other.target[same.target == "quiet"] == "pulse").all()
    assert other.target[same.target == "pulse"].isna().all()


def test_unlabelled_videos_have_unknown_targets(pulse_toy):
    for task in ("last_row", "multi_label"):
        _trained(pulse_toy, task=task, key=task)
        work = pulse_toy.predict_work(key=f"{task} scores", run=task)
        videos = [{**entry, "annotation": Annotation().plain()} for entry in work.payload["videos"]]
        found = _predicted(pulse_toy, replace(work, payload={**work.payload, "videos": videos}), f"{task} published")
        assert found.windows()["target_id"].null_count == found.windows().num_rows
        assert found.windows()["targets"].null_count == found.windows().num_rows


def test_the_windows_of_another_length(pulse_toy):
    _trained(pulse_toy, model={"name": "gru"})
    found = _predicted(pulse_toy, pulse_toy.predict_work(window={"length": 4, "dilation": 3, "hop": 3}))
    first = found.windows().to_pandas().iloc[:2]
    assert first[["start_row", "stop_row"]].to_numpy().tolist() == [[0, 10], [3, 13]]
    assert found.info.extra == {"window": {"length": 4, "hop": 3, "dilation": 3}}


REFUSED = {
    "no run": ({"run": "nothing"}, {}, StoreError, "no run was trained here"),
    "length": (
        {},
        {"window": {"length": 13}},
        ConfigError,
        "window.length: 13 is not allowed for this model, trained with 12",
    ),
    "other rows": ({"stores": ("other",)}, {}, StageError, "trained on rows of 6 features, these have 2"),
    "both": ({}, {"frames": "frames"}, ConfigError, "from embeddings or from frames, not both"),
    "device": ({}, {"device": "cuda:77"}, ConfigError, "device: 'cuda:77', but"),
}


@pytest.mark.parametrize(("inputs", "config", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(pulse_toy, inputs, config, kind, message):
    _trained(pulse_toy, model={"name": "mlp"})
    for entry in pulse_toy.videos:
        pulse_toy.write("other", entry["digest"], np.ones((20, 2), np.float32))
    with pytest.raises(kind, match=message):
        run_items(pulse_toy.predict_work(**inputs, **config), pulse_toy.reporter)


def test_a_run_that_has_not_ended_is_refused(pulse_toy):
    _trained(pulse_toy)
    (pulse_toy.store.run("run") / "model.safetensors").unlink()
    with pytest.raises(StoreError, match="training has not ended"):
        run_items(pulse_toy.predict_work(), pulse_toy.reporter)


def test_nothing_to_publish(pulse_toy):
    _trained(pulse_toy)
    with pytest.raises(StoreError, match="no video has scores"):
        publish(pulse_toy.predict_work(), pulse_toy.store.predictions("published"))


def test_a_run_of_net_changes_is_published_with_them(pulse_toy):
    """The rows' labels come and go; a window in which they did both has the empty set."""
    _trained(pulse_toy, task="multi_label", labels_of_window="net_change")
    windows = _predicted(pulse_toy, pulse_toy.predict_work(window={"hop": 5})).windows()
    sets = {tuple(entry) for entry in windows["targets"].to_pylist()}
    assert sets == {(False, False), (True, True)}  # of two classes both change, or none


@pytest.mark.parametrize("is_here", [True, False], ids=["rows of training there", "and gone"])
def test_rows_of_another_encoder_are_refused_though_they_are_as_wide(pulse_toy, is_here):
    toy = pulse_toy
    _trained(toy)
    values = RunFolder(toy.store.run("run")).config()
    values["inputs"]["embeddings"][0]["config"] = {"encoder": "timm/a"}
    RunFolder(toy.store.run("run")).write_config(values)
    layout = RowLayout(outputs={"pooled": (6,)}, dtype="float32")
    for key, encoder, weights in (("same", "timm/a", "1"), ("tuned", "timm/a", "2"), ("other", "timm/b", "3")):
        made_by = {"spec": key, "encoder": encoder, "weights_digest": weights}
        EmbeddingWriter.create(toy.store.embeddings(key), made_by, layout=layout)
    if is_here:
        values["inputs"]["embeddings"][0]["key"] = "same"
        RunFolder(toy.store.run("run")).write_config(values)
    else:
        shutil.rmtree(toy.store.embeddings("emb"))
    run_items(replace(toy.predict_work(key="over same", stores=("same",)), items=()), toy.reporter)
    for key in ("tuned", "other") if is_here else ("other",):
        work = replace(toy.predict_work(key=f"over {key}", stores=(key,)), items=())
        with pytest.raises(ConfigError, match=rf"{key} has rows of timm/.*run train was trained on those of timm/a"):
            run_items(work, toy.reporter)
    with pytest.raises(ConfigError, match=r"run train was trained on 1 embeddings \(emb\), these are 2"):
        run_items(replace(toy.predict_work(key="both", stores=("same", "same")), items=()), toy.reporter)


@pytest.mark.parametrize(
    ("trained", "own", "note"),
    [
        ({"fps": 5.0}, {"fps": 5.0}, ""),
        ({"fps": 5.0}, {"fps": 25.0}, "emb is of fps 25, but run train was trained on fps 5: a window spans another"),
        ({"stride": 2}, {}, "emb is of all frames, but run train was trained on stride 2"),
        (None, {"fps": 25.0}, ""),
    ],
    ids=str,
)
def test_another_rate_than_that_of_training_is_told(pulse_toy, trained, own, note):
    def of_frames(config):
        frames = () if config is None else (InputRef(node="frames", stage="decode", key="f", config=config),)
        return {"embeddings": (InputRef(node="emb", stage="embed", key="emb", inputs={"frames": frames}),)}

    work = pulse_toy.train_work(epochs=1, model={"name": "linear"})
    run(replace(work, inputs=of_frames(trained)), pulse_toy.reporter)
    work = pulse_toy.predict_work()
    run_items(replace(work, inputs={**work.inputs, **of_frames(own)}), pulse_toy.reporter)
    warnings = [text for text in pulse_toy.reporter.notes if "trained on" in text]
    assert len(warnings) == bool(note)
    assert all(note in text for text in warnings)
