"""Mistakes in settings that can be known before work are told by `run -n` and by `run`, before anything is decoded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.plan.graph import build_graph
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run import checks
from reelwright.pipeline.run.checks import check_before_run
from reelwright.pipeline.run.reading import read_videos
from reelwright.pipeline.run.results import RunOptions
from reelwright.pipeline.run.runner import open_planner, run_pipeline
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.fit.network_config import MODEL_OPTIONS, ModelSettings
from reelwright.stages.train.config import TrainConfig
from reelwright.storage.errors import ConfigError, InputError, ReelwrightError
from tests.small_project import write_video

PIPELINE = """
videos: {manifest: videos.csv, workers: 1}
labels: {column: label}
stages:
  frames: {uses: decode, fps: 5, short_side: 48, workers: 1}
  embed: {uses: embed, frames: frames, encoder: timm/test_resnet, weights: none, device: cpu}
  train: {uses: train, embeddings: [embed], task: video, window: {length: 4}, model: {name: ms_tcn}, device: cpu}
  predict: {uses: predict, run: train, device: cpu}
  scores: {uses: evaluate, predictions: predict}
"""

MISTAKES = [
    ("train.model.name=ms_tnc", r"unknown temporal model 'ms_tnc'.*did you mean 'ms_tcn'"),
    ("train.model.layer=4", r"unknown option of ms_tcn 'layer'.*did you mean 'layers'"),
    ("train.model.layers=none", r"layers is 'none': Input should be a valid integer"),
    ("train.model.layers=0", r"layers is 0; it must be at least 1"),
    ("train.model.pool=max", r"pool is 'max'; allowed: mean, last"),
    (
        "embed.encoder=timm/mobilenet_v2_100",
        r"stages.embed: encoder 'timm/mobilenet_v2_100' is not known.*mobilenetv2_100",
    ),
    ("embed.encoder=timm/resnet18.a1_in1", r"encoder 'timm/resnet18.a1_in1' is not known"),
    ("embed.encoder=torchvision/r3d18", r"encoder 'torchvision/r3d18' is not known.*torchvision/r3d_18"),
    ("embed.encoder=resnet18", r"encoder 'resnet18' is not known.*nearest: timm/resnet18"),
    ("embed.outputs=[poled]", r"output 'poled' is not known; allowed: pooled"),
    ("embed.model_args={pad_typ: same}", r"'pad_typ' is no argument of timm/test_resnet; did you mean 'pad_type'"),
    ("train.optimizer.name=adamm", r"optimizer 'adamm' is not known"),
    ("train.train_splits=[tain]", r"train_splits: 'tain' is no split. Did you mean 'train'"),
    ("train.train_splits=[val]", r"train_splits: no video is in val \(there are: train 2, test 1\)"),
    ("predict.splits=[val]", r"stages.predict.splits: no video is in val"),
    ("scores.splits=[tset]", r"stages.scores.splits: 'tset' is no split. Did you mean 'test'"),
    (
        "predict.splits=[test] scores.splits=[test,train]",
        r"stages.scores.splits: 'train' is read, but predict is of test alone; add it to the splits of predict",
    ),
    ("train.log_to=[wandb]", r"stages.train: log_to: wandb needs the package wandb.*pip install 'reelwright\[wandb\]'"),
    ("train.optimizer.name=bnbadam", r"optimizer.name: bnbadam needs the package bitsandbytes"),
    ("frames.backend=torchcodec", r"stages.frames: backend: torchcodec needs the package torchcodec"),
    ("cluster.executor=slurm", r"executor slurm needs the package dask-jobqueue: pip install 'reelwright\[slurm\]'"),
    ("scores={embeddings: embed, map: {method: umap}}", r"map.method: umap needs the package umap"),
]
ABSENT = {"dask_jobqueue", "wandb", "bitsandbytes", "torchcodec", "umap"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three videos that nobody has to open."""
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    (tmp_path / "videos.csv").write_text("path,split,label\na.mp4,train,x\nb.mp4,train,y\nc.mp4,test,x\n")
    (tmp_path / "reelwright.yaml").write_text(PIPELINE)
    return tmp_path


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package beyond the required ones, whatever is installed where tests run."""
    find = checks.find_spec
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name in ABSENT else find(name))


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(("override", "match"), MISTAKES, ids=lambda value: value if "=" in value else "")
def test_a_mistake_is_told_by_a_dry_run_and_by_a_run_before_a_video_is_read(
    project: Path, override: str, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a video was read")

    from reelwright.pipeline.run import reading

    load = reading.load
    monkeypatch.setattr(reading, "load", lambda name: never if "index" in name else load(name))
    for act in (
        lambda file: check_before_run(open_planner(file), RunOptions()),
        lambda file: run_pipeline(file, SilentObserver()),
    ):
        with pytest.raises(ConfigError, match=f"(?s){match}"):
            act(load_pipeline(project / "reelwright.yaml", re.split(r" (?=[a-z]+\.)", override)))


def test_only_nodes_that_are_to_run_are_looked_at(project: Path) -> None:
    file = load_pipeline(project / "reelwright.yaml", ["embed.encoder=timm/nope"])
    check_before_run(open_planner(file), RunOptions(until=("frames",)))
    with pytest.raises(ConfigError, match="timm/nope"):
        check_before_run(open_planner(file), RunOptions())


def test_files_of_features_that_need_a_package_are_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", {}.get)
    (project / "f").mkdir()
    (project / "f" / "a.h5").touch()
    text = "videos: {features: f}\nstages:\n  rows: {uses: features, fps: 5}\n"
    (project / "features.yaml").write_text(text)
    planner = open_planner(load_pipeline(project / "features.yaml"))
    with pytest.raises(ConfigError, match=r"files of .h5 needs the package h5py.*reelwright\[features\]"):
        check_before_run(planner, RunOptions())


@pytest.mark.parametrize("visible", ["", "-1"])
def test_a_gpu_that_is_not_there_is_told(project: Path, visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for node in ("embed", "train", "predict"):
        planner = open_planner(load_pipeline(project / "reelwright.yaml", [f"{node}.device=cuda"]))
        with pytest.raises(ConfigError, match=rf"stages.{node}: device: 'cuda', but this machine has 0 GPU\(s\)"):
            check_before_run(planner, RunOptions())
        check_before_run(planner, RunOptions(cluster={"executor": "slurm"}))  # another machine has others


def test_a_device_that_nobody_knows_is_told(project: Path) -> None:
    planner = open_planner(load_pipeline(project / "reelwright.yaml", ["embed.device=gpu"]))
    with pytest.raises(ConfigError, match="device: 'gpu' is not known; allowed: auto, cpu, cuda, cuda:1"):
        check_before_run(planner, RunOptions())


def test_gpus_are_counted_as_torch_counts_them() -> None:
    import torch

    assert checks.num_gpus() in {None, torch.cuda.device_count()}


def test_windows_longer_than_every_video_are_told_before_a_frame_is_decoded(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        write_video(tmp_path / f"{name}.mp4", seed=number)  # 2 s: 10 rows at 5 a second
    (tmp_path / "videos.csv").write_text("path,split,label\na.mp4,train,x\nb.mp4,test,x\n")
    (tmp_path / "reelwright.yaml").write_text(PIPELINE)

    def load(*overrides: str):
        return load_pipeline(tmp_path / "reelwright.yaml", overrides)

    long = ("train.window.length=7", "train.window.dilation=2")  # 13 rows
    read_videos(load(), SilentObserver())
    match = r"stages.train: a window reaches over 13 rows, but the longest of 1 videos has about 10.*leave_out"
    with pytest.raises(ConfigError, match=match):
        run_pipeline(load(*long, "train.window.short=leave_out"), SilentObserver())
    with pytest.raises(ConfigError, match=match):
        check_before_run(open_planner(load(*long, "train.window.short=leave_out")), RunOptions())
    assert not any((tmp_path / ".reelwright" / "store" / "frames").glob("*"))
    with pytest.raises(ConfigError, match=r"has about 10; .*window.short: pad every window that is learned"):
        check_before_run(open_planner(load(*long)), RunOptions())  # as train itself does, after all that is before it
    (warning,) = check_before_run(open_planner(load(*long, "train.window.short=repeat")), RunOptions())
    assert "every video is filled up (window.short: repeat)" in warning
    assert check_before_run(open_planner(load("train.window.length=10")), RunOptions()) == ()
    with pytest.raises(ConfigError, match=r"stages.predict: a window reaches over 99 rows"):
        check_before_run(open_planner(load("predict.window={length: 99, dilation: 1, short: leave_out}")), RunOptions())
    clips = ("embed.encoder=torchvision/r3d_18", "train.window.length=6", "train.window.short=leave_out")
    with pytest.raises(ConfigError, match="has about 2"):  # a row for every 8 frames, and one more
        check_before_run(open_planner(load(*clips)), RunOptions())


TUNE = "  tune: {uses: finetune, frames: frames, spatial: embed, temporal: train, augment: {flip: 0.5}, device: cpu}\n"


@pytest.mark.parametrize(
    ("names", "directed", "message"),
    [
        (("turn_left", "turn_right"), None, "classes 'turn_left' and 'turn_right' differ by it alone; set flip: 0, or"),
        (("from left to right", "from right to left"), None, "classes 'from left to right' and 'from right to left'"),
        (("Push-Left", "Push-Right"), True, "labels.directed is true; set flip: 0$"),
        (("146", "36"), True, "augment.flip mirrors frames left and right, but labels.directed is true"),
        (("turn_left", "turn_right"), False, ""),
        (("leftover", "rightover"), None, ""),
        (("left", "up"), None, ""),
        (("146", "36"), None, ""),
    ],
)
def test_flips_are_refused_where_labels_have_a_side(project: Path, names, directed, message: str) -> None:
    first, second = names
    (project / "videos.csv").write_text(f"path,split,label\na.mp4,train,{first}\nb.mp4,train,{second}\nc.mp4,test,\n")
    (project / "reelwright.yaml").write_text(PIPELINE + TUNE)
    overrides = [] if directed is None else [f"labels.directed={str(directed).lower()}"]
    file = load_pipeline(project / "reelwright.yaml", overrides)
    if not message:
        assert check_before_run(open_planner(file), RunOptions()) == ()
        return
    with pytest.raises(ConfigError, match=f"stages.tune: .*{message}"):
        check_before_run(open_planner(file), RunOptions())
    unflipped = load_pipeline(project / "reelwright.yaml", [*overrides, "tune.augment.flip=0"])
    assert check_before_run(open_planner(unflipped), RunOptions()) == ()


def test_stored_views_that_are_mirrored_are_refused_where_labels_are_learned(project: Path) -> None:
    (project / "videos.csv").write_text(
        "path,split,label\na.mp4,train,turn_left\nb.mp4,train,turn_right\nc.mp4,test,\n"
    )
    learned = "  learned: {uses: train, embeddings: [viewed], model: {name: carl}, objective: {name: scl}, "
    learned += "views: {length: 4}}\n"
    viewed = "  viewed: {uses: embed, frames: frames, encoder: timm/test_resnet, weights: none, views: {num: 2}}\n"
    (project / "reelwright.yaml").write_text(PIPELINE + viewed + learned)

    def check(*overrides: str) -> tuple[str, ...]:
        return check_before_run(open_planner(load_pipeline(project / "reelwright.yaml", overrides)), RunOptions())

    assert check() == ()  # without labels
    labelled = "learned.objective={name: per_frame}"
    with pytest.raises(ConfigError, match=r"stages\.learned: stages\.viewed\.views\.augment\.flip mirrors frames"):
        check(labelled)
    assert check(labelled, "viewed.views.augment.flip=0") == ()


def test_flips_of_clips_in_pretraining_are_refused_alike(project: Path) -> None:
    (project / "videos.csv").write_text(
        "path,split,label\na.mp4,train,turn_left\nb.mp4,train,turn_right\nc.mp4,test,\n"
    )
    clips = "  pre: {uses: pretrain, frames: frames, encoder: torchvision/s3d, weights: none, clips: {}, device: cpu,"
    (project / "reelwright.yaml").write_text(f"{PIPELINE}{clips} objective: {{name: ce}}, val_splits: []}}\n")

    def check(*overrides: str) -> tuple[str, ...]:
        return check_before_run(open_planner(load_pipeline(project / "reelwright.yaml", overrides)), RunOptions())

    with pytest.raises(ConfigError, match=r"stages\.pre: clips\.augment\.flip mirrors frames left and right, but"):
        check()
    assert check("pre.clips.augment.flip=0") == ()
    copies = ("pre.clips.augment.flip=0", "pre.clips.augment.scene={curriculum_epochs: 0}")  # every other one mirrored
    with pytest.raises(ConfigError, match=r"scene\.foreground\.scale\.clone mirrors frames .*; set clone: 0, or"):
        check(*copies)
    assert check(*copies, "pre.clips.augment.scene.foreground={scale: {clone: 0}}") == ()
    assert check("pre.objective={name: simclr}") == ()  # without labels


def test_a_wrong_table_of_edits_is_told(project: Path) -> None:
    (project / "edits.csv").write_text("video_id,weight\na,-1\n")
    settings = ["train.model={name: attention_branch}", "predict.edit_attention=edits.csv"]
    with pytest.raises(InputError, match="row 2: weight '-1' must not be negative"):
        run_pipeline(load_pipeline(project / "reelwright.yaml", settings), SilentObserver())
    assert not any((project / ".reelwright" / "store" / "frames").glob("*"))


@pytest.mark.parametrize(
    ("settings", "start_seconds", "expected"),
    [
        ({"fps": 5}, 0.0, 50.0),
        ({"stride": 5}, 2.0, 50.0),
        ({"fps": 5, "start": 4}, 0.0, 30.0),
        ({"fps": 5, "start": 4}, 4.0, None),  # of which times the video has none before 4 s
        ({"fps": 5, "image_fps": 10}, 0.0, None),  # probed at 25 a second
    ],
    ids=str,
)
def test_rows_of_a_video_are_known_only_where_its_probe_tells(
    settings: dict[str, float], start_seconds: float, expected: float | None
) -> None:
    config = DecodeConfig(**settings)
    assert config.rows_of_video(num_frames=250, duration_seconds=10.0, start_seconds=start_seconds) == expected
    assert TrainConfig(embeddings=("e",)).rows_of_video(num_frames=1, duration_seconds=1, start_seconds=0) is None


def test_a_dry_run_loads_nothing_heavy_to_find_them(project: Path) -> None:
    code = (
        "import sys, json\n"
        "from reelwright.cli.main import main\n"
        "from reelwright.storage.errors import ReelwrightError\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert stop.code == 2, stop.code\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    for override in ("embed.encoder=timm/mobilenet_v2_100", "train.model.layer=4"):
        done = subprocess.run(
            [sys.executable, "-c", code, "run", "-n", "-S", override],
            capture_output=True, text=True, cwd=project, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        modules = set(json.loads(done.stdout.splitlines()[-1]))
        assert not modules & {"torch", "timm", "torchvision", "av", "zarr", "sklearn"}, override


def test_names_and_options_of_models_are_those_of_the_models() -> None:
    from reelwright.models.clip_models import CLIP_MODELS
    from reelwright.models.systems.carl import FRAME_MODELS
    from reelwright.models.temporal.build import TEMPORAL_MODELS

    assert {*TEMPORAL_MODELS, *FRAME_MODELS, *CLIP_MODELS} == set(MODEL_OPTIONS)
    for name in MODEL_OPTIONS:
        assert ModelSettings(name=name).options() == {}


@pytest.mark.parametrize(
    ("model", "match"),
    [({"name": "mlp"}, "mlp gives no logits per row"), ({"name": "gru", "pool": "last"}, "pools nothing")],
    ids=["mlp", "pool"],
)
def test_a_model_that_cannot_do_the_task_is_told(model: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        TrainConfig(embeddings=("rows",), task="per_row", model=model)


def test_what_stages_say_of_themselves_does_not_break_a_good_pipeline(project: Path) -> None:
    file = load_pipeline(project / "reelwright.yaml")
    checks.check_settings(file, build_graph(file), list(file.nodes), executor="local")
    assert check_before_run(Project(file).planner(), RunOptions()) == ()
    assert issubclass(ConfigError, ReelwrightError)
