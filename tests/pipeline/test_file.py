"""Pipeline files: what is read, overrides, and errors that name key, value, what is allowed and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelwright.pipeline.config.pipeline_file import PipelineFile, find_pipeline_file, load_pipeline
from reelwright.pipeline.plan.graph import build_graph
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


def test_a_variable_that_is_not_set_is_told(tmp_path: Path) -> None:
    text = BASE.replace("videos.csv", "'${oc.env:NOT_SET_HERE}/videos.csv'")
    with pytest.raises(
        ConfigError, match=r"videos\.manifest: the environment variable NOT_SET_HERE is not set\. Set it"
    ):
        pipeline(tmp_path, text)


def test_the_store_is_beside_the_file_or_as_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pipeline(tmp_path).store.root == tmp_path / ".reelwright" / "store"
    monkeypatch.setenv("REELWRIGHT_STORE", str(tmp_path / "shared"))
    assert pipeline(tmp_path).store.root == tmp_path / "shared"
    assert pipeline(tmp_path, BASE, "store=own").store.root == tmp_path / "own"
    with pytest.raises(ConfigError, match="store: '' is not allowed"):  # as of a variable that is empty
        pipeline(tmp_path, BASE, "store=''")
    (tmp_path / "own").touch()
    with pytest.raises(ConfigError, match=r"store: .*own is a file; name a folder"):
        pipeline(tmp_path, BASE, "store=own")


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
        (
            ("labels: {segments: segments.csv}", "labels: {segments: s.csv, rows: r.csv, column: label}"),
            "not column and segments and rows; a column may stand beside segments, steps or rows",
        ),
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
        ("train.model={name:[gru]}", "not readable as YAML; in {} a space follows each colon"),
    ],
)
def test_wrong_overrides_are_told(tmp_path: Path, override: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        pipeline(tmp_path, BASE, override)


@pytest.mark.parametrize(
    ("override", "match"),
    [
        (
            "frames.quality=50",
            r"stages\.frames\.quality is 50, which changes nothing as the other settings are; leave it out, or",
        ),
        ("embed.views={num: 2, augment: {grayscale: 0, blur_radius: 3, blur: 0, colors: null}}", ""),
        ("embed.preprocess.size=[32, 32]", ""),
        ("train.schedule.period_epochs=3", r"schedule\.period_epochs is 3\.0, which changes nothing"),
        ("train.schedule={name: step, period_epochs: 3}", ""),
        ("train.schedule={name: step, min_factor: 0.1}", r"schedule\.min_factor is 0\.1, which"),
        ("train.schedule={name: step, min_factor: 0}", ""),
        ("predict.window.phase=first", ""),
        ("scores={report: false, thumbnails: 3}", ""),
        ("scores.map.seed=3", ""),
    ],
)
def test_a_setting_that_changes_nothing_is_refused(tmp_path: Path, override: str, match: str) -> None:
    if not match:
        pipeline(tmp_path, BASE, override)
        return
    with pytest.raises(ConfigError, match=match):
        pipeline(tmp_path, BASE, override)


@pytest.mark.parametrize(
    ("override", "is_meant"),
    [
        ("frames.codec=lossless", True),
        ("stages.train.schedule.warmup_updates=9", True),
        ("train.mix.mixup_alpha=0", True),
        ("train.mix={mixup_alpha: 0, switch_probability: 0.3}", False),  # both are of the override
        ("frames={uses: decode, codec: lossless, quality: 80}", False),
    ],
)
def test_what_an_override_turns_off_need_not_be_taken_out_of_the_file(
    tmp_path: Path, override: str, *, is_meant: bool
) -> None:
    """As in grids: `run -m frames.codec=lossless,jpeg`."""
    text = BASE.replace("fps: 5, materialize: false", "codec: jpeg, quality: 80")
    settings = "schedule: {warmup_epochs: 2}, mix: {switch_probability: 0.3}"
    text = text.replace("embeddings: [embed]}", f"embeddings: [embed], {settings}}}")
    if is_meant:
        pipeline(tmp_path, text, override)
    else:
        with pytest.raises(ConfigError, match="which changes nothing"):
            pipeline(tmp_path, text, override)
    with pytest.raises(ConfigError, match=r"frames\.quality is 80, which changes nothing"):
        pipeline(tmp_path, text.replace("codec: jpeg, ", ""))


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


NAMED = BASE.replace(
    "embeddings: [embed]}",
    "embeddings: [embed], model: {name: transformer, layers: 8, heads: 2},"
    " optimizer: {name: sgd, lr: 3e-4, momentum: 0.8, dampening: 0.1},"
    " schedule: {name: multi_step, milestones_epochs: [3], gamma: 0.5, warmup_epochs: 2}}",
)


@pytest.mark.parametrize(
    ("overrides", "field", "expected"),
    [
        (["train.model={name: gru}"], "model", {"name": "gru"}),
        (["train.model.name=gru"], "model", {"name": "gru"}),
        (["train.model={name: gru, layers: 1}"], "model", {"name": "gru", "layers": 1}),
        (["train.model.layers=1", "train.model.name=gru"], "model", {"name": "gru", "layers": 1}),
        (["train.model.name=gru", "train.model.layers=1"], "model", {"name": "gru", "layers": 1}),
        (["train.model={name: lstm, width: 9}", "train.model={name: gru}"], "model", {"name": "gru"}),
        (["stages={train: {model: {name: gru}}}"], "model", {"name": "gru"}),
        (
            ["train.model={name: transformer, heads: 4}"],
            "model",
            {"name": "transformer", "layers": 8, "heads": 4},
        ),
        (["train.model={heads: 4}"], "model", {"name": "transformer", "layers": 8, "heads": 4}),
        (["train.optimizer.name=adamw"], "optimizer", {"name": "adamw", "lr": 3e-4}),
        (["train.optimizer={name: nesterov}"], "optimizer", {"name": "nesterov", "lr": 3e-4, "momentum": 0.8}),
        (["train.schedule.name=cosine"], "schedule", {"name": "cosine", "warmup_epochs": 2}),
        (
            ["train.schedule.name=step"],
            "schedule",
            {"name": "step", "gamma": 0.5, "warmup_epochs": 2},
        ),
    ],
    ids=str,
)
def test_a_block_given_another_name_keeps_no_options_of_the_old_one(
    tmp_path: Path, overrides: list[str], field: str, expected: dict[str, object]
) -> None:
    block = getattr(pipeline(tmp_path, NAMED, *overrides).nodes["train"], field)
    assert block.model_dump(exclude_unset=True) == expected


def test_a_block_without_a_name_has_the_default_one(tmp_path: Path) -> None:
    unnamed = NAMED.replace("name: transformer, ", "")
    model = pipeline(tmp_path, unnamed, "train.model.name=gru").nodes["train"].model
    assert model.options() == {}
    model = pipeline(tmp_path, unnamed, "train.model.name=transformer").nodes["train"].model
    assert model.options() == {"layers": 8, "heads": 2}


def test_a_node_that_uses_another_stage_is_another_node(tmp_path: Path) -> None:
    file = pipeline(tmp_path, BASE, "embed={uses: features, fps: 5}")
    assert file.nodes["embed"].stage == "features"
    assert file.nodes["embed"].model_fields_set == {"fps"}


def test_names_that_are_only_keys_of_a_mapping_are_no_names_of_blocks(tmp_path: Path) -> None:
    text = BASE.replace("weights: none", "weights: none, model_args: {name: a, other: 1}")
    file = pipeline(tmp_path, text, "embed.model_args.name=b")
    assert file.nodes["embed"].model_args == {"name": "b", "other": 1}


def test_combinations_of_a_grid_replace_named_blocks_too(tmp_path: Path) -> None:
    from reelwright.pipeline.inspect.grid import combinations

    pipeline(tmp_path, NAMED)
    grid = combinations(tmp_path / "reelwright.yaml", ["train.model={name: gru, width: 8},{name: ms_tcn}"])
    found = [combination.file.nodes["train"].model for combination in grid]
    assert [(model.name, model.options()) for model in found] == [("gru", {"width": 8}), ("ms_tcn", {})]
