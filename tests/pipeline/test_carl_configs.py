"""The shipped configs of CARL as pipeline files: read, planned, as the public code's table has them, and trained."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from reelwright.models.systems.carl_options import FRAME_MODEL_OPTIONS
from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.plan.graph import build_graph
from reelwright.pipeline.project import Project
from reelwright.stages.augment.transforms import clip_transforms
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.fit.optim.build import build_lr_schedule
from reelwright.storage.results.runs import RunFolder
from tests.small_project import write_rows, write_video

FOLDER = Path(__file__).parents[2] / "docs" / "carl"

TABLE = {  # objective, model, frames of a view, videos a batch, epochs, transformer layers
    "scl_transformer_pouring": ("scl", "carl", 240, 1, 500, 2),
    "scl_transformer_action": ("scl", "carl", 80, 1, 300, 3),
    "scl_transformer_finegym": ("scl", "carl", 240, 1, 300, 3),
    "scl_transformer_k400": ("scl", "carl", 80, 2, 10, 2),
    "scl_conv_pouring": ("scl", "conv", 40, 1, 500, None),
    "scl_conv_action": ("scl", "conv", 20, 2, 300, None),
    "scl_conv_finegym": ("scl", "conv", 40, 1, 100, None),
    "tcc_conv_pouring": ("tcc", "conv", 40, 2, 500, None),
    "tcc_conv_action": ("tcc", "conv", 20, 4, 300, None),
    "tcc_conv_finegym": ("tcc", "conv", 40, 2, 300, None),
    "tcc_transformer_pouring": ("tcc", "carl", 240, 2, 500, 2),
    "tcn_conv_pouring": ("tcn", "conv", 40, 2, 500, None),
    "classification_transformer_pouring": ("per_frame", "carl", 240, 2, 500, 2),
    "classification_transformer_finegym": ("per_frame", "carl", 240, 2, 100, 3),
}

FALLEN = 1e-4 * (1 + math.cos(math.pi * 499 / 501)) / 2  # in the last of 500 epochs


def run_of(name: str) -> FinetuneConfig:
    config = load_pipeline(FOLDER / f"{name}.yaml").nodes["carl"]
    assert isinstance(config, FinetuneConfig)
    return config


def test_every_shipped_config_has_its_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_files_are_read_and_their_nodes_fit_together(name: str) -> None:
    file = load_pipeline(FOLDER / f"{name}.yaml")
    assert set(build_graph(file).nodes) == set(file.nodes)
    config = run_of(name)
    assert len(clip_transforms(config.augment, Geometry(size=(16, 16)), seed=0)) == 1


@pytest.mark.parametrize("name", TABLE)
def test_values_are_those_of_the_table(name: str) -> None:
    config = run_of(name)
    assert config.model is not None
    assert config.objective is not None
    assert config.views is not None
    options = FRAME_MODEL_OPTIONS[config.model.name](**config.model.options())
    layers = getattr(options, "layers", None)
    found = (config.objective.name, config.model.name, config.views.length, config.batch_size, config.epochs, layers)
    assert found == TABLE[name]
    is_conv = config.model.name == "conv"
    assert (options.split, options.contexts, options.base) == (
        3,
        2 if is_conv else 1,
        "trained" if is_conv else "frozen",
    )
    assert (options.hidden, options.embed_dim, options.dropout, options.network) == (512, 128, 0.1, "resnet50")
    assert config.views.context_stride == (15 if is_conv else 1)
    assert options.projection == (config.objective.name == "scl")
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay, optimizer.clip_norm) == ("adam", 1e-4, 1e-5, 10)


def test_what_differs_beyond_the_table() -> None:
    k400, finegym = run_of("scl_transformer_k400"), run_of("classification_transformer_finegym")
    assert k400.views is not None
    assert k400.objective is not None
    assert finegym.views is not None
    assert (k400.views.overlap, k400.objective.options()) == (1.0, {"negatives": "batch_noself"})
    assert (k400.keep_every, k400.evaluate_every) == (5, 2)
    assert finegym.views.overlap == 0
    for name in TABLE:
        config = run_of(name)
        assert config.views is not None
        strategy = {"tcn": "anchor_positive", "conv": "offset_uniform"}
        kind = next((each for each in strategy if each in name), "")
        assert config.view_sampling == strategy.get(kind, "time_augment"), name
        if config.view_sampling == "time_augment":
            assert config.views.base == ("clip" if "finegym" in name else "video"), name
        assert config.augment.blur == (0 if "finegym" in name else 0.5), name
        assert config.views.one_label == (name == "tcc_conv_action"), name


@pytest.mark.parametrize(("name", "last"), [("scl_transformer_pouring", FALLEN), ("tcc_conv_pouring", 1e-4)])
def test_rates_fall_by_the_epoch_and_never_reach_0(name: str, last: float) -> None:
    """The cosine of the public code ends an epoch after the last one; TCC's rate on Pouring stays."""
    config = run_of(name)
    schedule = build_lr_schedule(config.schedule, epochs=500, updates_per_epoch=10)
    rates = [1e-4 * schedule(update) for update in (0, 9, 10, 4999)]
    assert rates[0] == rates[1] == 1e-4
    assert rates[3] == pytest.approx(last)
    assert (rates[2] < 1e-4) == (last < 1e-4)


# --- trained for an epoch, with small sizes

FRAMES = 20
NET = "network: resnet18, hidden: 16, embed_dim: 16"
TRANSFORMER = f"carl.model={{{NET}, layers: 1, width: 16, heads: 2, mlp_width: 16}}"
SIZES = [
    *("frames.short_side=64", "resnet.encoder=timm/resnet18", "resnet.weights=none", "resnet.batch_size=40"),
    *("resnet.preprocess={size: [64, 64], resize: 64}", "resnet.channels_last=false", "features.channels_last=false"),
    *("features.batch_size=40", "carl.views.length=4", "carl.epochs=1", "carl.batch_size=4", "scores.report=false"),
    *("resnet_scores.report=false", "carl.device=cpu"),
]
TRAINED = {  # what is small of the model, and updates of an epoch over four videos of two actions
    "scl_transformer_action": (TRANSFORMER, 1),
    "tcc_conv_action": (f"carl.model={{{NET}, conv_width: 8, conv_layers: 1}}", 2),  # a batch has one action
    "classification_transformer_pouring": (TRANSFORMER, 1),
}


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of two actions in the tables that prepare writes, each of two phases."""
    folder = tmp_path_factory.mktemp("actions")
    (folder / "tables").mkdir()
    videos: list[dict[str, object]] = []
    rows: list[dict[str, object]] = []
    for number in range(8):
        name, action = f"{number:04}_{'bowl' if number % 2 else 'squat'}", "bowl" if number % 2 else "squat"
        write_video(folder / f"{name}.mp4", seed=number, num_frames=FRAMES)
        split = "train" if number < 4 else "val"
        videos.append({"video_id": name, "path": f"../{name}.mp4", "split": split, "label": action})
        rows += [
            {"video_id": name, "frame": frame, "label": f"{action}_{2 * frame // FRAMES}"} for frame in range(FRAMES)
        ]
    write_rows(folder / "tables" / "manifest.csv", videos)
    write_rows(folder / "tables" / "rows.csv", rows)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_files_train_embed_and_measure(actions: Path, name: str) -> None:
    model, num_updates = TRAINED[name]
    shutil.copy(FOLDER / f"{name}.yaml", actions)
    project = Project.open(actions / f"{name}.yaml", overrides=[*SIZES, model])
    result = project.run()
    assert result.exit_code == 0, [node.message for node in result.nodes]
    run = RunFolder(project.file.store.run(project.planner().plan("carl").key))
    (line,) = run.metrics()
    assert (line["epoch"], line["update"]) == (1, num_updates)
    for node in ("scores", "resnet_scores"):
        tasks = json.loads((project.report(node) / "metrics.json").read_text(encoding="utf-8"))["tasks"]
        assert set(tasks) == {"kendalls_tau", "retrieval", "phase_classification", "progression"}
        for task in tasks.values():
            assert list(task.get("actions", ())) == (["bowl", "squat"] if "action" in name else [])
