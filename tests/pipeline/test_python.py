"""`from reelwright import Project, Store, Model`: what people hold in a notebook has the numbers of the store."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import reelwright
from reelwright import Model, Project, Store
from reelwright.pipeline.api.model import _ids, _videos
from reelwright.stages.arrays import tables
from reelwright.stages.arrays.scores import Predictions
from reelwright.stages.decode.readers import open_reader
from reelwright.storage.errors import ConfigError, InputError, StageError, StoreError, UnusableMachineError
from reelwright.storage.results.runs import RunFolder
from tests.small_project import SPLITS


@pytest.fixture(scope="module")
def project(finished: Path) -> Project:
    return Project(finished)


@pytest.fixture(scope="module")
def scored(project: Project) -> tuple[np.ndarray, np.ndarray]:
    """Scores and times of the windows of video d, as the pipeline predicted them."""
    table = project.predictions("predict").windows()
    chosen = table.filter(pa.array([name == "d" for name in table["video_id"].to_pylist()]))
    found = Predictions.scores.fget(_Of(chosen))
    return found, np.stack([chosen[name].to_numpy() for name in ("start_seconds", "stop_seconds")], axis=1)


class _Of:
    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def windows(self) -> pa.Table:
        return self._table


@pytest.fixture(scope="module")
def model(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Exported and loaded."""
    return project.export_model("train", tmp_path_factory.mktemp("models") / "model")


def _frames(path: Path) -> np.ndarray:
    reader = open_reader(path, _Settings(), backend="pyav", num_threads=1)
    frames = np.stack([frame.pixels() for frame in reader.frames()])
    reader.close()
    return frames


class _Settings:
    square_pixels = False
    image_fps = 25.0
    image_tmpl = image_start = None


def test_the_package_says_what_it_is() -> None:
    assert reelwright.__version__.count(".") == 2
    assert {"Model", "Project", "Store", "__version__"} <= set(dir(reelwright))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = reelwright.Nothing


def test_a_project_is_its_file_or_its_folder(finished: Path, project: Project) -> None:
    assert Project(finished / "reelwright.yaml").nodes == project.nodes == tuple(project)
    assert project.status_table()["state"].tolist() == ["up to date"] * 5
    assert "up to date" in project._repr_html_()
    with pytest.raises(ConfigError, match="holds no reelwright"):
        Project(finished / ".reelwright")
    with pytest.raises(ConfigError, match="Did you mean 'embed'"):
        _ = project["embd"]


def test_labels_and_videos_are_tables(project: Project) -> None:
    labels = project.labels()
    assert len(labels) == 2 * len(SPLITS)
    first = labels.iloc[0].to_dict()
    assert first == first | {"video_id": "a", "split": "train", "kind": "segment", "label": "bright"}
    assert (first["start_seconds"], first["stop_seconds"]) == (0, 1)
    videos = project.videos()
    assert videos["video_id"].tolist() == list(SPLITS)
    assert videos["num_frames"].tolist() == [20] * 5


def test_embeddings_have_times_and_labels_in_every_form(project: Project) -> None:
    found = project["embed"]
    rows = found["a"]
    assert rows.rows.shape == (10, 96)
    np.testing.assert_allclose(rows.times[:2], [[0, 0.1], [0.2, 0.3]])
    assert rows.labels == ["bright"] * 5 + ["blue"] * 5
    assert torch.equal(rows.torch(), torch.from_numpy(rows.output("pooled")))
    table = rows.to_pandas()
    np.testing.assert_array_equal(table[[f"feature_{d}" for d in range(96)]].to_numpy(), rows.rows.astype(np.float32))
    assert table["label"].tolist() == rows.labels
    assert len(found.to_pandas()) == 50
    array = rows.to_xarray()
    assert array.dims == ("time", "feature")
    np.testing.assert_array_equal(array.sel(time=0.2).values, rows.rows[1])
    assert found.summary()["split"].tolist() == list(SPLITS.values())
    with pytest.raises(KeyError, match="no rows of video 'z'"):
        _ = found["z"]


def test_a_run_has_metrics_curves_and_its_weights(project: Project) -> None:
    run = project.run("train")  # up to date: nothing is done
    assert run.curves()["epoch"].tolist() == [1, 2]
    assert run.metrics["train_loss"] == run.curves()["train_loss"][1]
    assert run.weights.is_file()
    assert run.classes == ("blue", "bright")
    assert "train_loss" in run._repr_html_()
    with pytest.raises(ConfigError, match=r"has no curve 'train_los'\. Did you mean 'train_loss'"):
        run.plot("train_los")


def test_predictions_and_reports_are_tables(project: Project) -> None:
    found = project["predict"]
    assert found.scores.shape == (35, 2)
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, atol=1e-6)
    table = found.to_pandas()
    np.testing.assert_array_equal(table[["score.blue", "score.bright"]].to_numpy(), found.scores)
    assert len(found.to_pandas("videos")) == 5
    with pytest.raises(ConfigError, match="allowed are windows, rows, videos"):
        found.to_pandas("frames")
    report = project["scores"]
    assert report.page.is_file()
    assert "headline" in report.metrics


def test_windows_are_those_that_the_trainer_takes(project: Project) -> None:
    found = project.windows("train")
    item = found[0]
    rows = project["embed"][item["video_id"]]
    np.testing.assert_array_equal(item["rows"].numpy(), rows.rows[:4].astype(np.float32))
    assert [found.classes[label] for label in item["target"].tolist()] == rows.labels[:4]
    assert item["mask"].all()
    loader = torch.utils.data.DataLoader(found, batch_size=5)
    assert [len(batch["rows"]) for batch in loader] == [5, 5, 2]
    batches = list(found.batches(epoch=1))
    assert sum(len(targets) for _, targets in batches) == len(found)
    assert not torch.equal(batches[0][0]["rows"], torch.stack([found[place]["rows"] for place in range(8)]))
    with pytest.raises(ConfigError, match="reads the splits train, not test"):
        project.windows("train", split="test")
    with pytest.raises(ConfigError, match="embed is a embed node; windows of rows are those of train"):
        project.windows("embed")
    with pytest.raises(IndexError):
        found[12]


def test_windows_above_the_memory_have_a_file_of_their_own(finished: Path, project: Project) -> None:
    """Two notebooks may ask for the same windows at once: neither empties the file that the other one has mapped."""
    mapped = Project(project.file.path, overrides=["train.memory_bytes=1"])
    scratch = finished / ".reelwright" / "store" / "scratch"
    scratch.mkdir(exist_ok=True)
    of_another = scratch / f"{project['train'].key}.windows.rows"
    of_another.write_bytes(b"mapped elsewhere")
    found, known = mapped.windows("train"), project.windows("train")
    assert all(torch.equal(found[place]["rows"], known[place]["rows"]) for place in range(len(known)))
    assert of_another.read_bytes() == b"mapped elsewhere"
    of_another.unlink()
    assert not list(scratch.iterdir())


def test_rows_get_the_scores_of_predict(project: Project, model: Model, scored: Any) -> None:
    scores, times = scored
    rows = project["embed"]["d"]
    given = model.rows(rows.rows, times=rows.times)
    np.testing.assert_allclose(given.scores, scores, atol=1e-6)
    np.testing.assert_allclose(given.times, times)
    tokens = rows.rows[:, None] + np.array([-1, 1], np.float32)[:, None]  # averaged as in training
    np.testing.assert_allclose(model.rows(tokens).scores, scores, atol=1e-5)
    alone = Model.load(project["train"].path).rows(rows.torch())
    np.testing.assert_allclose(alone.scores, scores, atol=1e-6)
    assert np.isnan(alone.times).all()
    assert len(given.to_pandas("rows")) == 10
    assert given.to_pandas("videos")["label"].tolist() == given.videos()["label"].to_pylist()


def test_frames_in_memory_get_the_scores_of_predict(
    finished: Path, project: Project, model: Model, scored: Any
) -> None:
    """All frames of the file at its own rate, and those that decode stored."""
    scores, times = scored
    frames = _frames(finished / "d.mp4")
    given = model(frames, fps=10)
    np.testing.assert_allclose(given.scores, scores, atol=1e-6)
    np.testing.assert_allclose(given.times, times)
    np.testing.assert_allclose(model(frames, times=np.arange(20) / 10).scores, scores, atol=1e-6)
    stored = project["frames"]["d"]
    assert repr(project["frames"]) == "<stored rows of 5 videos: a, b, c, d, e>"
    assert model.fps == 5
    np.testing.assert_allclose(model(stored.read(0, stored.num_rows)).scores, scores, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model(np.zeros((4, 8, 8, 3))), r"frames are float64 \(4, 8, 8, 3\)"),
        (lambda model: model(np.zeros((0, 8, 8, 3), np.uint8)), "T >= 1"),
        (lambda model: model(np.zeros((4, 8, 8, 3), np.uint8), fps=0), "above 0"),
        (lambda model: model(np.zeros((4, 8, 8, 3), np.uint8), fps=5, times=[0, 1, 2, 3]), "not both"),
        (lambda model: model(np.zeros((4, 8, 8, 3), np.uint8), times=[0, 1, 1, 2]), "4 ascending seconds"),
        (lambda model: model.rows(np.zeros((4, 95))), r"takes \(T, 96\)"),
        (lambda model: model.rows(np.full((4, 96), np.nan)), "NaN"),
        (lambda model: model.rows(np.zeros((4, 96)), times=np.zeros(4)), r"\(4, 2\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_a_sentence(model: Model, call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(model)


def test_video_files_get_the_scores_of_predict(finished: Path, model: Model, scored: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    with pytest.warns(UserWarning, match=r"bad\.mp4"):
        found = model.predict([finished / "d.mp4", tmp_path / "bad.mp4"], store=tmp_path / "store")
    np.testing.assert_allclose(found.scores, scored[0], atol=1e-6)
    assert found.classes == model.classes == ("blue", "bright")


def test_a_model_takes_settings_of_predict(project: Project, model: Model, tmp_path: Path) -> None:
    project.export_model("train", tmp_path / "model")
    rows = project["embed"]["d"].rows
    whole = model.rows(rows).scores
    for coarse in (
        project["train"].model(overrides="window.hop=2"),
        Model.load(tmp_path / "model", overrides=["window.hop=2"]),
    ):
        np.testing.assert_array_equal(coarse.rows(rows).scores, whole[::2])
    with pytest.raises(ConfigError, match="is a run alone; give an exported model"):
        Model.load(project["train"].path, overrides=["window.hop=2"])


def test_frames_that_are_not_stored_are_not_an_empty_table(project: Project) -> None:
    streamed = Project(project.file.path, overrides=["frames.materialize=false"])
    with pytest.raises(StoreError, match="frames stores no frames \\(materialize: false\\)"):
        streamed["frames"]


def test_a_run_alone_knows_no_way_from_a_video(project: Project, finished: Path) -> None:
    alone = Model.load(project["train"].path)
    with pytest.raises(ConfigError, match="whose encoder is not known: give it rows"):
        alone(np.zeros((4, 8, 8, 3), np.uint8), fps=5)
    with pytest.raises(ConfigError, match="no way from a video"):
        alone.predict(finished / "d.mp4")
    with pytest.raises(ConfigError, match="holds no model"):
        Model.load(finished)


def test_a_finetuned_run_alone_warns_that_it_takes_all_frames(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rate is known to the project and to an exported model, not to the folder of the run."""
    folder = RunFolder(shutil.copytree(project["train"].path, tmp_path / "run"))
    folder.write_config({**folder.config(), "stage": "finetune"})
    alone = Model.load(folder.path)
    monkeypatch.setattr(alone, "_loaded", _Taken)
    with pytest.warns(UserWarning, match="run alone, which does not say at which rate"):
        assert alone(np.zeros((4, 8, 8, 3), np.uint8), fps=5) == 4
    with pytest.raises(InputError, match="fps or times"):
        alone(np.zeros((4, 8, 8, 3), np.uint8))


class _Taken:
    reads_frames = True  # as of what finetune trains

    def of_frames(self, frames: np.ndarray, **_: Any) -> int:
        return len(frames)


def test_a_list_of_videos_may_hold_urls_and_failures_are_said_where_none_has_scores(
    model: Model, tmp_path: Path
) -> None:
    listed = Path(_videos(["s3://bucket/a.mp4", "b.mp4"], tmp_path)).read_text().splitlines()
    here = Path("b.mp4").absolute()
    assert listed == ["path,video_id", "s3://bucket/a.mp4,s3://bucket/a", f"{here},{here.with_suffix('')}"]
    assert _ids(["/x/a/1.mp4", "/x/b/1.mp4"]) == ["a/1", "b/1"]
    assert _ids(["/x/1.mp4", "/x/1.avi"]) == ["1.mp4", "1.avi"]
    assert _ids(["/x/a/1.mp4"]) == ["1"]
    (tmp_path / "bad.mp4").write_text("no video")
    with pytest.warns(UserWarning, match="no video that FFmpeg knows"), pytest.raises(StageError):
        model.predict([tmp_path / "bad.mp4"], store=tmp_path / "store")


def test_a_store_says_what_is_in_it(finished: Path, project: Project) -> None:
    store = Store(finished / ".reelwright" / "store")
    assert "1 embeddings" in repr(store)
    key = store.embeddings()["key"][0]
    rows = store.embeddings(key[:6])
    digest = next(iter(rows))
    assert rows[digest].rows.shape == (10, 96)
    assert rows[digest].labels == [None] * 10
    assert sorted(store.videos()["digest"]) == sorted(rows)
    assert "train" in store.runs()["node"].tolist()
    run = store.run(project["train"].key[:8])
    assert run.metrics == project["train"].metrics
    assert store.sizes().set_index("folder")["bytes"]["embeddings"] > 1000
    with pytest.raises(ConfigError, match="fits 0 run"):
        store.run("zzz")
    with pytest.raises(StoreError, match="is no store"):
        Store(finished)


def test_pictures_are_figures(project: Project) -> None:
    figures = [project["embed"].plot(), project["train"].plot(), project["predict"].plot("d")]
    assert [len(figure.axes) for figure in figures] == [1, 1, 1]
    legend = {text.get_text() for text in figures[0].axes[0].get_legend().get_texts()}
    assert legend == {"blue", "bright"}
    drawn = figures[2].axes[0].lines[0].get_xdata()  # a point a row, at its middle
    np.testing.assert_allclose(drawn, project["embed"]["d"].times.mean(axis=1))
    assert "matplotlib.pyplot" not in sys.modules  # no global state, no window
    with pytest.raises(ConfigError, match="name one of a, b, c, d, e"):
        project["predict"].plot()
    with pytest.raises(ConfigError, match="Did you mean 'pca'"):
        project["embed"].plot(method="pcaa")


def test_without_optional_packages_what_to_install_is_said(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tables.find_spec
    monkeypatch.setattr(
        tables, "find_spec", lambda name: None if name in {"pandas", "xarray", "matplotlib"} else real(name)
    )
    assert isinstance(project.labels(), pa.Table)
    assert isinstance(project["predict"].to_pandas(), pa.Table)
    for use, extra in ((project["embed"]["a"].to_xarray, "xarray"), (project["train"].plot, "plots")):
        with pytest.raises(UnusableMachineError, match=rf"pip install 'reelwright\[{extra}\]'"):
            use()


NETWORKS = """
  slow: {uses: decode, fps: 3.3333, short_side: 40, codec: jpeg, workers: 1}
  second: {uses: embed, frames: slow, encoder: timm/test_resnet, weights: none, batch_size: 8, channels_last: false}
  both:
    {uses: train, embeddings: [embed, second], task: majority, window: {length: 4, hop: 2}, epochs: 1, batch_size: 8,
     model: {name: gru, width: 8}, val_splits: []}
  tune: {uses: finetune, frames: frames, spatial: embed, temporal: train, epochs: 1, batch_size: 4, val_splits: []}
  clips:
    {uses: finetune, frames: frames, model: {name: st_abn, depth: 18}, preprocess: {size: [32, 32], resize: 32},
     task: majority, window: {length: 4, hop: 3}, epochs: 1, batch_size: 8, val_splits: [], device: cpu}
  predict_both: {uses: predict, run: both}
  predict_tune: {uses: predict, run: tune, frame_batch_size: 8}
  predict_clips: {uses: predict, run: clips}
"""


@pytest.mark.slow
def test_other_networks_get_the_scores_of_predict_too(copied: Path) -> None:
    """Rows of two encoders at two rates, one through JPEG; encoder and model of one run; clips of frames."""
    path = copied / "reelwright.yaml"
    path.write_text(path.read_text() + NETWORKS)
    project = Project(path)
    (video,) = project.videos().query("video_id == 'd'")["path"]
    frames = _frames(Path(video))
    for node in ("both", "tune", "clips"):
        expected = project.run(f"predict_{node}").to_pandas().query("video_id == 'd'")
        given = project[node].model()(frames, fps=10)
        names = [f"score.{name}" for name in given.classes]
        np.testing.assert_allclose(given.scores, expected[names].to_numpy(), atol=1e-5, err_msg=node)
        np.testing.assert_allclose(given.times, expected[["start_seconds", "stop_seconds"]].to_numpy())
    rows = [project[node]["d"] for node in ("embed", "second")]
    middles = [each.times.mean(axis=1) for each in rows]  # none is as near to two rows of the other node
    near = [int(np.abs(middles[1] - middle).argmin()) for middle in middles[0]]
    joined = np.concatenate([rows[0].rows, rows[1].rows[near]], axis=1)
    expected = project["predict_both"].to_pandas().query("video_id == 'd'")
    found = project["both"].model().rows(joined)
    np.testing.assert_allclose(found.scores, expected[["score.blue", "score.bright"]].to_numpy(), atol=1e-5)
    with pytest.raises(ConfigError, match="sees clips of frames, not rows"):
        project["clips"].model().rows(joined)
    with pytest.raises(InputError, match="task majority scores windows, not rows"):
        found.to_pandas("rows")  # as of the node's predictions, which have none
    with pytest.raises(InputError, match="frames at several rates; fps or times must say"):
        project["both"].model()(frames)  # which rate they have already is not known
