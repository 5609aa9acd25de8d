"""A trained model on its own: predicting bare videos with a node or with an exported folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.pipeline.inspect.comparison import run_rows
from reelwright.pipeline.inspect.trained_model import export_model, pipeline_of_model, pipeline_of_run
from reelwright.pipeline.plan.history import History
from reelwright.pipeline.project import Project
from reelwright.stages.fit.run_models import load_run_model
from reelwright.storage.errors import ConfigError, InputError, StoreError
from reelwright.storage.results.predictions import scores_matrix
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store
from tests.small_project import write_rows, write_video

pytestmark = pytest.mark.usefixtures("finished")


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the small project; read only."""
    return export_model(Project.open(finished / "reelwright.yaml"), "train", tmp_path_factory.mktemp("models") / "m")


def _predict(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["predict", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_bare_videos_get_the_scores_that_the_pipeline_gives(
    finished: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without labels or a pipeline file, in a store that has nothing; the same from a node, and a second time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REELWRIGHT_STORE", raising=False)
    expected = Project.open(finished / "reelwright.yaml").predictions("predict").windows()
    pattern = str(finished / "[de].mp4")
    _predict("--run", exported, "--videos", pattern, "--out", "s.parquet")
    found = pq.read_table("s.parquet")
    wanted = expected.filter(np.isin(expected["video_id"].to_pylist(), ["d", "e"]))
    assert found["video_id"].to_pylist() == wanted["video_id"].to_pylist()
    assert found["time_seconds"].to_pylist() == wanted["time_seconds"].to_pylist()
    np.testing.assert_allclose(scores_matrix(found), scores_matrix(wanted), atol=1e-4)
    assert found["target"].null_count == len(found)
    again = _predict("--run", exported, "--videos", pattern, "--out", "s.csv")
    assert "ran" not in again.split()
    table = pyarrow.csv.read_csv("s.csv")
    np.testing.assert_allclose(table["score.bright"].to_numpy(), scores_matrix(found)[:, 1], atol=1e-6)
    _predict("--run", exported, "--videos", pattern, "--out", "s.json")
    results = json.loads(Path("s.json").read_text())["results"]
    assert list(results) == ["d", "e"]
    assert {entry["label"] for entry in results["d"]} <= {"blue", "bright"}
    history = History.of(Store.at(tmp_path / ".reelwright" / "store"))
    assert [record.stage for record in history.runs] == ["import_model"]
    assert run_rows(history) == []  # nothing was trained or scored here; `compare` said that training had not ended


def test_of_a_node_its_own_rows_are_taken_from_the_store(finished: Path, copied: Path) -> None:
    file = pipeline_of_model("train", str(finished / "d.mp4"), config=copied / "reelwright.yaml")
    plans = {plan.node.name: plan.state for plan in Project(file).status()}
    assert plans["frames"] == plans["embed"] == "up to date", plans
    assert plans["train"] == "stale"
    assert Project(file).run().exit_code == 0
    assert Project(file).predictions("predictions").videos()["video_id"].to_pylist() == ["d"]


def test_a_run_may_be_called_as_the_node_that_predicts_is(finished: Path, copied: Path) -> None:
    path = copied / "reelwright.yaml"
    text = path.read_text().replace("  train:\n", "  predictions:\n").replace("run: train", "run: predictions")
    path.write_text(text)
    file = pipeline_of_model("predictions", str(finished / "d.mp4"), config=path)
    assert [(name, config.stage) for name, config in file.nodes.items()][-1] == ("predictions_", "predict")
    assert {plan.state for plan in Project(file).status() if plan.node.name == "predictions"} == {"stale"}


def test_a_changed_file_of_an_exported_model_is_refused(finished: Path, copied: Path, tmp_path: Path) -> None:
    out = export_model(Project.open(copied / "reelwright.yaml"), "train", tmp_path / "model")
    weights = out / "runs" / "train" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    file = pipeline_of_model(str(out), str(finished / "d.mp4"), [f"store={tmp_path / 'store'}"])
    result = Project(file).run()
    assert result.exit_code == 1
    assert "is not the file that was exported" in "".join(str(node.message) for node in result.nodes)


def test_a_changed_pipeline_of_an_exported_model_is_refused(finished: Path, copied: Path, tmp_path: Path) -> None:
    """As are weights of encoders and plug-ins, which no run is made of."""
    out = export_model(Project.open(copied / "reelwright.yaml"), "train", tmp_path / "model")
    path = out / "pipeline.yaml"
    path.write_text(path.read_text().replace("fps: 5", "fps: 6"))
    with pytest.raises(InputError, match=r"pipeline\.yaml is not the file that was exported"):
        pipeline_of_model(str(out), str(finished / "d.mp4"))


def test_with_a_pipeline_file_a_model_is_a_node_of_it(
    finished: Path, copied: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the folders here are called."""
    (copied / "train").symlink_to(exported)
    monkeypatch.chdir(copied)
    file = pipeline_of_model("train", str(finished / "d.mp4"), config=copied / "reelwright.yaml")
    assert file.path.parent == copied


def test_an_export_takes_the_place_of_an_export_and_of_nothing_else(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.open(copied / "reelwright.yaml")
    out = export_model(project, "train", tmp_path / "model")
    before = (out / "model.json").read_text()
    assert export_model(project, "train", out) == out
    assert (out / "model.json").read_text() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no exported model"):
        export_model(project, "train", tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ConfigError, match="is the working folder"):
        export_model(project, "train", Path())


def test_what_has_no_model_is_refused_with_a_sentence(copied: Path, tmp_path: Path) -> None:
    path = copied / "reelwright.yaml"
    with pytest.raises(ConfigError, match=r"embed is a embed node, which trains nothing. Runs here: train"):
        export_model(Project.open(path), "embed", tmp_path / "m")
    with pytest.raises(StoreError, match="'train' has no trained model"):
        export_model(Project.open(path, overrides=["train.epochs=3"]), "train", tmp_path / "m")
    assert not (tmp_path / "m").exists()
    with pytest.raises(ConfigError, match="is no folder that"):
        pipeline_of_model(str(tmp_path), str(copied))


def test_an_encoder_alone_gives_no_scores(copied: Path, tmp_path: Path) -> None:
    """A run of pretrain, which has a task of its own and no model of rows."""
    project = Project.open(copied / "reelwright.yaml")
    key = next(plan.key for plan in project.status() if plan.node.name == "train")
    folder = RunFolder(project.file.store.run(key))
    values = {name: value for name, value in folder.config().items() if name != "model"} | {"task": "pretrain"}
    (folder.path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"gives no scores\. Embed with it"):
        export_model(project, "train", tmp_path / "m")
    with pytest.raises(ConfigError, match="is an encoder without a model of rows"):
        load_run_model(folder, plugins={})


def test_videos_that_fail_keep_no_other_from_its_scores(finished: Path, copied: Path, tmp_path: Path) -> None:
    """However many they are: nothing is learned or concluded from all of them."""
    (tmp_path / "new").mkdir()
    shutil.copyfile(finished / "d.mp4", tmp_path / "new" / "d.mp4")
    for name in "xyz":
        (tmp_path / "new" / f"{name}.mp4").write_text(name)
    file = pipeline_of_model("train", str(tmp_path / "new"), config=copied / "reelwright.yaml")
    assert Project(file).run().exit_code == 3
    assert Project(file).predictions("predictions").videos()["video_id"].to_pylist() == ["d"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "train", "--videos", "."], "go together"),
        (["--videos", ".", "--out", "s.csv"], "go together"),
        (["--run", "train", "--videos", ".", "--out", "s.txt"], "the ending says the form"),
        (["--run", "train", "--videos", ".", "--out", "nowhere/s.csv"], "there is no folder"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_any_work(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(app, ["predict", *arguments], catch_exceptions=False)


@pytest.mark.slow
def test_a_fine_tuned_model_of_plug_ins_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoder and temporal model of one run, the code of both in a file beside the pipeline file."""
    source = tmp_path / "there"
    source.mkdir()
    for seed, name in enumerate("ab"):
        write_video(source / f"{name}.mp4", seed=seed)
    write_rows(source / "videos.csv", [{"video_id": n, "path": f"{n}.mp4", "split": "train", "l": n} for n in "ab"])
    (source / "net.py").write_text(
        "from torch import nn\n"
        "from reelwright.models.contracts import VideoModel\n"
        "from reelwright.models.encoders.base import DataConfig, Encoder\n\n\n"
        "class Means(Encoder):\n"
        "    kind = 'image'\n"
        "    data_config = DataConfig(size=(32, 32), resize=32, interpolation='bilinear', antialias=True,\n"
        "                             crop='center', mean=(0.5,) * 3, std=(0.5,) * 3)\n\n"
        "    def __init__(self, outputs):\n"
        "        super().__init__()\n"
        "        self.outputs, self.model = outputs, nn.Linear(3, 6)\n\n"
        "    def forward(self, x):\n"
        "        return {'pooled': self.model(x.mean(dim=(2, 3)))}\n\n\n"
        "class Net(VideoModel):\n"
        "    def __init__(self, sizes):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(sizes.input_dim, sizes.num_outputs)\n\n"
        "    def forward(self, batch):\n"
        "        return {'logits': self.head(batch['rows'].mean(dim=1))}\n"
    )
    learn = "epochs: 1, batch_size: 4, val_splits: []"
    (source / "reelwright.yaml").write_text(
        "videos: {manifest: videos.csv}\nlabels: {column: l}\nstages:\n"
        "  frames: {uses: decode, fps: 5, short_side: 32, workers: 1}\n"
        "  embed: {uses: embed, frames: frames, encoder: 'net.py:Means', weights: none, batch_size: 8}\n"
        "  train: {uses: train, embeddings: [embed], task: video, window: {length: 4}, model: {name: 'net.py:Net'}, "
        f"{learn}}}\n"
        f"  tune: {{uses: finetune, frames: frames, spatial: embed, temporal: train, {learn}}}\n"
        "  predict: {uses: predict, run: tune}\n"
    )
    project = Project.open(source / "reelwright.yaml")
    assert project.run().exit_code == 0
    out = export_model(project, "tune", tmp_path / "model")
    assert (out / "net.py").is_file()
    monkeypatch.chdir(tmp_path)
    expected = scores_matrix(project.predictions("predict").windows())
    for path in source.iterdir():  # the export stands on its own
        if path.suffix != ".mp4" and path.is_file():
            path.unlink()
    file = pipeline_of_model(str(out), str(source / "*.mp4"), [f"store={tmp_path / 'store'}"])
    assert Project(file).run().exit_code == 0
    np.testing.assert_allclose(scores_matrix(Project(file).predictions("predictions").windows()), expected, atol=1e-5)


def test_a_model_of_one_seed_of_several_is_written_and_loaded(copied: Path, tmp_path: Path) -> None:
    """train@0 is no name that a pipeline file may write, train-seed0 is."""
    project = Project.open(copied / "reelwright.yaml", overrides=["train.seeds=[0]", "embed.seeds=[0]"])
    out = export_model(project, "train@0", tmp_path / "m")
    stages = yaml.safe_load((out / "pipeline.yaml").read_text())["stages"]
    assert list(stages) == ["train-seed0", "frames", "embed-seed0", "predictions"]
    assert stages["predictions"] == {"uses": "predict", "run": "train-seed0", "embeddings": ["embed-seed0"]}
    for file in (pipeline_of_model(str(out), None), pipeline_of_run(project, "train@0", None)):
        assert list(file.nodes) == list(stages)
