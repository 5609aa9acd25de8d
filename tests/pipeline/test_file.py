"""Pipeline files: what is read, overrides, and errors that name key, value, what is allowed and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelwright.pipeline.file import PipelineFile, find_pipeline_file, load_pipeline
from reelwright.pipeline.graph import build_graph
from reelwright.stages.decode.config import DecodeConfig
from reelwright.storage.errors import ConfigError

BASE = """
videos: {manifest: videos.csv}
labels: {segments: segments.csv}
stages:
  frames: {uses: decode, fps: 5, materialize: false}
  embed: {uses: embed, frames: frames, encoder: timm/resnet10t, weights: none}
  train: {uses: train, embeddings: [embed]}
  predict: {uses: predict, run: train}
  scores: {uses: evaluate, predictions: predict}
"""


def pipeline(tmp_path: Path, text: str = BASE, *overrides: str) -> PipelineFile:
    path = tmp_path / "reelwright.yaml"
    path.write_text(text, encoding="utf-8")
    return load_pipeline(path, overrides)


def test_overrides_reach_nested_settings_with_or_without_stages(tmp_path: Path) -> None:
    file = pipeline(
        tmp_path, BASE, "frames.fps=10", "stages.train.window.length=65", "train.optimizer.lr=1e-4", "videos.split=test"
    )
    assert file.nodes["frames"].fps == 10.0
    assert file.nodes["train"].window.length == 65
    assert file.nodes["train"].optimizer.lr == 1e-4
    assert file.videos.split == "test"


def test_environment_and_references_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE", "12.5")
    file = pipeline(tmp_path, BASE.replace("fps: 5", "fps: '${oc.env:RATE}'"))
    assert file.nodes["frames"].fps == 12.5


def test_the_store_is_beside_the_file_or_as_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pipeline(tmp_path).store.root == tmp_path / ".reelwright" / "store"
    monkeypatch.setenv("REELWRIGHT_STORE", str(tmp_path / "shared"))
    assert pipeline(tmp_path).store.root == tmp_path / "shared"
    assert pipeline(tmp_path, BASE, "store=own").store.root == tmp_path / "own"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("fps: 5", "fsp: 5"), r"stages.frames: .*\n.*fsp: unknown key. Did you mean 'fps'\?"),
        (("fps: 5", "fps: -1"), r"fps: -1 is not allowed: Input should be greater than 0"),
        (("fps: 5", "fps: 5, stride: 2"), "at most one of fps, stride, times, not fps and stride"),
        (
            ("uses: decode", "uses: decoed"),
            r"'decoed' is no stage. Did you mean 'decode'\? Known: decode, pretrain, embed",
        ),
        (("{uses: decode,", "{"), "`uses:` is missing"),
        (("frames: frames", "frames: frame"), r"stages.embed.frames: 'frame' is no node. Did you mean 'frames'\?"),
        (("run: train", "run: embed"), "'embed' makes embeddings; needed is run. Nodes that do: train"),
        (("weights: none", "weights: none, run: train"), "give either encoder"),
        (("videos:", "vidoes:"), r"vidoes: unknown key. Did you mean 'videos'\?"),
        (
            ("{manifest: videos.csv}", "{manifest: videos.csv, folder: x}"),
            "exactly one of manifest, folder, features, glob",
        ),
        (("labels: {segments: segments.csv}", "labels: {}"), "exactly one of column, columns, segments, steps, rows"),
        (("embeddings: [embed]", "embeddings: []"), "at least 1 item"),
        (("  train:", "  tr ain:"), "letters, digits"),
    ],
    ids=lambda value: value[1][:30] if isinstance(value, tuple) else None,
)
def test_wrong_settings_are_told(tmp_path: Path, change: tuple[str, str], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        build_graph(pipeline(tmp_path, BASE.replace(*change)))


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("trian.epochs=2", r"'trian' is neither a node nor a block. Did you mean 'train'\?"),
        ("train.epochs", "write name=value"),
        ("train.epochs=0", "greater than 0"),
    ],
)
def test_wrong_overrides_are_told(tmp_path: Path, override: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        pipeline(tmp_path, BASE, override)


def test_a_circle_is_told(tmp_path: Path) -> None:
    text = BASE.replace("encoder: timm/resnet10t, weights: none", "run: tune")
    text += "  tune: {uses: finetune, frames: frames, spatial: embed, temporal: train}\n"
    with pytest.raises(ConfigError, match="circle"):
        build_graph(pipeline(tmp_path, text.replace(", materialize: false", "")))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: [", "not readable as YAML"),
        ("- 1\n", "a pipeline file is a mapping"),
        ("videos: ${nope}\nstages: {}\n", "nope"),
    ],
    ids=["broken", "list", "unknown reference"],
)
def test_unreadable_files_are_told(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        pipeline(tmp_path, text)


def test_yaml_is_data(tmp_path: Path) -> None:
    flag = tmp_path / "executed"
    for tag in (f"!!python/object/apply:os.system ['touch {flag}']", f"!!python/object/new:os.system ['touch {flag}']"):
        with pytest.raises(ConfigError, match="not readable as YAML"):
            pipeline(tmp_path, BASE + f"extra: {tag}\n")
    assert not flag.exists()


def test_missing_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no such pipeline file"):
        find_pipeline_file(tmp_path / "x.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no reelwright.yaml or pipeline.yaml"):
        find_pipeline_file(None)


def test_only_what_changes_the_output_is_in_the_spec() -> None:
    plain = DecodeConfig(fps=5)
    assert DecodeConfig(fps=5, workers=3, timeout_seconds=9, materialize=False).spec() == plain.spec()
    assert DecodeConfig(fps=10).spec() != plain.spec()
    assert "workers" not in plain.spec()


def test_predict_reads_what_its_run_was_trained_on(tmp_path: Path) -> None:
    graph = build_graph(pipeline(tmp_path))
    assert graph.nodes["predict"].inputs["embeddings"] == ("embed",)
    assert list(graph.nodes) == ["frames", "embed", "train", "predict", "scores"]
    assert graph.upstream(["train"]) == {"frames", "embed", "train"}
    assert graph.downstream("train") == ["predict", "scores"]
