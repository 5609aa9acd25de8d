"""fractal_video's pre-training as pipeline files: read, planned, as the public code has them, and run when small."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.plan.graph import build_graph
from reelwright.pipeline.project import Project
from reelwright.stages.base.video_writer import VideoWriter
from reelwright.stages.fit.optim.build import build_lr_schedule
from reelwright.stages.pretrain.config import PretrainConfig
from tests.small_project import write_rows

DOCS = Path(__file__).parents[2] / "docs"
FILES = {path.stem: path for path in (DOCS / "fractal").glob("*.yaml")}
SPE = 4  # updates an epoch


def run_of(name):
    config = load_pipeline(FILES[name]).nodes["pretrain"]
    assert isinstance(config, PretrainConfig)
    return config


PRETRAINED = ("pretrain_sup", "pretrain_ssl")
TUNED = {  # rates: base, start of the warm-up, end; weight decay
    **dict.fromkeys(("hmdb51", "ucf101", "egtea", "scenes"), (8e-4, 1e-6, 1e-5, 0.01)),
    "diving48": (1.5e-3, 1.5e-6, 1.5e-5, 0.01),
    "volleyball": (2.5e-3, 2.5e-6, 2.5e-5, 0.1),
    **dict.fromkeys(("hmdb51_kinetics", "ucf101_kinetics"), (1e-5, 1e-8, 1e-7, 0.1)),
    "diving48_kinetics": (2e-4, 2e-7, 2e-6, 0.4),
    "egtea_kinetics": (2.5e-5, 2.5e-7, 2.5e-6, 0.4),
    **dict.fromkeys(("scenes_kinetics", "volleyball_kinetics"), (5e-5, 5e-8, 5e-7, 0.4)),
}


def test_every_file_is_known():
    assert set(FILES) == {*PRETRAINED, *TUNED}


@pytest.mark.parametrize("name", TUNED)
def test_fine_tuning_is_the_public_one(name):
    file = load_pipeline(FILES[name])
    assert set(build_graph(file).nodes) == set(file.nodes)
    encoder, config = file.nodes["encoder"], file.nodes["tune"]
    encoder.check_names()
    config.check_inputs({"spatial": [encoder], "frames": [file.nodes["frames"]]})
    is_volleyball, size = name.startswith("volleyball"), 224 if name.endswith("kinetics") else 112
    stride = 4 if is_volleyball else 6
    assert (encoder.encoder, encoder.preprocess.size) == ("tsm/resnet50", (size, size))
    val_resize = {(112, True): 128, (112, False): 112, (224, True): 256, (224, False): 224}  # of the vectors
    assert encoder.preprocess.resize == file.nodes["frames"].short_side == val_resize[size, not is_volleyball]
    assert (encoder.weights == "none") == (size == 112)
    window = config.window
    assert (window.length, window.dilation, window.sampling, window.short) == (8, stride, "multi_start", "repeat")
    assert (encoder.clip.length, encoder.clip.dilation) == (8, stride)
    rates = [
        config.optimizer.lr,
        config.optimizer.lr * config.schedule.warmup_start,
        config.optimizer.lr * config.schedule.min_factor,
        config.optimizer.weight_decay,
    ]
    assert rates == pytest.approx(TUNED[name])
    assert (config.epochs, config.batch_size, config.schedule.warmup_epochs, config.optimizer.lr_base_batch) == (
        100,
        32,
        10,
        32,
    )
    assert (config.evaluate_every, config.keep_every, config.optimizer.clip_norm) == (10, 50, 5)
    assert (config.schedule.warmup_overlaps, config.schedule.lag) == (True, 1)
    augment = config.augment
    assert (augment.rand_augment, augment.flip, augment.blur) == (
        ("rand-m5-n2", 0, 0) if is_volleyball else ("rand-m7-n2", 0.5, 0.5)
    )
    assert (augment.crop_scale, augment.rand_augment_last, augment.scene) == ((0.2, 1.0), True, None)
    assert is_volleyball or augment.blur_radius == 1
    assert (config.frozen_norm, config.spatial_lr_scale, config.model.options()) == (
        False,
        1,
        {"dropout": 0.8, "head_std": 0.001},
    )
    assert (file.nodes["predict"].window.views, file.nodes["predict"].window.hop) == (10, 1)


@pytest.mark.parametrize("name", PRETRAINED)
def test_values_are_the_defaults_and_the_deviations_of_pre_training(name):
    file = load_pipeline(FILES[name])
    assert set(build_graph(file).nodes) == set(file.nodes)
    config = run_of(name)
    config.check_names()
    clips, augment = config.clips, config.clips.augment
    assert (clips.length, clips.dilation, clips.batch_size, config.epochs, config.seed) == (8, 2, 32, 25, 1)
    assert (config.encoder, config.weights, config.preprocess.size, config.drop_last) == (
        "tsm/resnet50",
        "none",
        (112, 112),
        True,
    )
    assert (config.preprocess.resize, config.preprocess.interpolation) == (128, "bicubic")
    assert (augment.crop_scale, augment.flip, augment.blur, augment.blur_radius) == ((0.9, 1.0), 0.5, 0.5, 1)
    assert augment.crop_aspect == pytest.approx((3 / 4, 4 / 3))
    assert (augment.rand_augment, augment.rand_augment_fill, augment.rand_augment_last) == (
        "rand-m7-n2",
        (0, 0, 0),
        True,
    )
    scene = augment.scene
    assert (scene.background.probability, scene.foreground.scale.probability, scene.curriculum_epochs) == (1, 1, 5)
    assert (scene.foreground.scale.clone, scene.camera.perspective.probability) == (0.15, 0.8)
    shifts = (scene.background.shift, scene.foreground.shift, scene.camera.shift, scene.camera.shake, scene.camera.zoom)
    assert {each.probability for each in shifts} == {0.3}
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.lr_base_batch, optimizer.weight_decay, optimizer.clip_norm) == (
        "adamw",
        8e-4,
        32,
        0.01,
        5,
    )
    assert optimizer.options().get("betas", (0.9, 0.999)) == (0.9, 0.999)


def test_what_the_two_files_differ_in():
    sup, ssl = run_of("pretrain_sup"), run_of("pretrain_ssl")
    assert (sup.objective.name, sup.learns_labels, sup.clips.val_clips, sup.clips.val_step) == ("ce", True, 1, 2)
    assert " --val 10 " in FILES["pretrain_sup"].read_text(encoding="utf-8")  # or there is nothing to validate on
    assert sup.clips.augment.scene.reverse == 0
    moco = ssl.objective.of_views()
    assert (moco.name, ssl.learns_labels, moco.queue, moco.dim_used) == ("moco", False, 16384, 128)
    assert (moco.momentum_used, moco.temperature_used) == (0.999, 0.07)
    assert (ssl.clips.augment.scene.reverse, ssl.clips.augment.scene.easy_key) == (0.5, True)


def test_rates_are_the_public_ones():
    config = run_of("pretrain_sup")
    schedule = build_lr_schedule(config.schedule, epochs=25, updates_per_epoch=SPE)
    warm = 3 * SPE
    wanted = [1e-6, 1e-6] + [1e-6 + (8e-4 - 1e-6) * step / warm for step in range(1, warm)]
    cosine = [1e-5 + (8e-4 - 1e-5) * (1 + np.cos(np.pi * step / (25 * SPE))) / 2 for step in range(warm, 25 * SPE)]
    found = [8e-4 * schedule(step) for step in range(25 * SPE)]
    np.testing.assert_allclose(found, [*wanted, *cosine][: 25 * SPE], rtol=1e-6)


def test_the_pages_example_is_allowed(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "fractal-video.md").read_text(encoding="utf-8"), re.DOTALL)
    values = yaml.safe_load(block)["stages"]["pretrain"]
    PretrainConfig(**{name: value for name, value in values.items() if name != "uses"}).check_names()
    (tmp_path / "reelwright.yaml").write_text(block, encoding="utf-8")
    file = load_pipeline(tmp_path / "reelwright.yaml")
    assert set(build_graph(file).nodes) == set(file.nodes)
    known = file.nodes["known"]  # of videos of one split, without labels of rows, as `synthesize` makes them
    assert (known.splits, known.tasks) == (("train",), ("kendalls_tau",))


SMALL = [
    "frames.short_side=32",
    "frames.workers=1",
    "pretrain.encoder=tsm/test_resnet",
    "pretrain.preprocess={size: [32, 32], resize: 32}",
    "pretrain.clips.batch_size=2",
    "pretrain.clips.length=4",
    "pretrain.objective.queue=8",
    "pretrain.epochs=6",
    "pretrain.precision=fp32",
    "rows.batch_size=4",
    "rows.channels_last=false",
]


@pytest.mark.slow
def test_a_small_pre_training_is_used_by_embed_and_finetune_and_done_once(tmp_path):
    rows = []
    for number in range(6):
        with VideoWriter(tmp_path / f"{number}.mp4", size=(32, 40), fps=10) as writer:
            for frame in np.random.default_rng(number).integers(0, 255, (12, 32, 40, 3)).astype(np.uint8):
                writer.add(frame)
        split = "train" if number < 4 else "val"
        rows.append({"video_id": str(number), "path": f"{number}.mp4", "split": split, "label": "ab"[number % 2]})
    (tmp_path / "fractals").mkdir()
    write_rows(tmp_path / "fractals" / "manifest.csv", [{**row, "path": f"../{row['path']}"} for row in rows])
    values = yaml.safe_load(FILES["pretrain_ssl"].read_text(encoding="utf-8"))
    values["labels"] = {"column": "label"}
    values["stages"]["tuned"] = {
        "uses": "finetune",
        "frames": "frames",
        "spatial": "rows",
        "model": {"name": "linear"},
        "task": "video",
        "window": {"length": 4, "dilation": 2, "short": "repeat", "sampling": "dense"},
        "epochs": 1,
        "batch_size": 2,
    }
    (tmp_path / "reelwright.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    project = Project.open(tmp_path / "reelwright.yaml", overrides=SMALL)
    result = project.run()
    assert {node.node: node.state for node in result.nodes} == dict.fromkeys(
        ("frames", "pretrain", "rows", "tuned"), "ran"
    )
    assert project.trained("pretrain").metrics()[-1]["train_accuracy_1"] >= 0
    assert project.embeddings("rows")["0"].output("pooled").shape[1] == 96
    again = Project.open(tmp_path / "reelwright.yaml", overrides=SMALL).run()
    assert [node.node for node in again.nodes if node.state == "ran"] == []
    write_rows(
        tmp_path / "fractals" / "manifest.csv", [{**row, "path": f"../{row['path']}", "label": "b"} for row in rows]
    )
    stale = Project.open(tmp_path / "reelwright.yaml", overrides=SMALL)
    plans = {plan.node.name: plan.reasons for plan in stale.planner().plans()}
    assert not plans["pretrain"]  # which no label is of
    assert plans["tuned"]
