"""Video encoders that learn from clips of stored frames, with labels and without: what is read, kept, refused."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reelwright.models.metrics.views import merge_views
from reelwright.stages.base.work import InputRef, VideoItem
from reelwright.stages.datasets.sampling.dense import covering_starts
from reelwright.stages.datasets.sampling.windows import WindowShape
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.work import run_items as decode_items
from reelwright.stages.embed.work import run_items as embed_items
from reelwright.stages.fit.loop.progress import TIMINGS
from reelwright.stages.fit.processes.world import World
from reelwright.stages.fit.setup import TrainContext
from reelwright.stages.pretrain.batches import ClipBatches, ClipVideos
from reelwright.stages.pretrain.clip_learning import Scoring, val_clips
from reelwright.stages.pretrain.config import PretrainConfig
from reelwright.stages.pretrain.examples_config import ClipPretrainSettings
from reelwright.stages.pretrain.work import run
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, InputError, Interrupted
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import Annotation
from tests.stages.finetune.conftest import DECODE, Film, Notes, write_scene

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "self_supervised.json").read_text())
OBJECTIVES = {
    "ce": {"name": "ce"},
    "simclr": {"name": "simclr", "dim": 8, "hidden": 16},
    "moco": {"name": "moco", "dim": 8, "hidden": 16, "queue": 5, "momentum": 0.9},
    "byol": {"name": "byol", "dim": 8, "hidden": 16, "predictor_hidden": 16, "momentum": 0.9},
}
PLAIN = {"rand_augment": None, "rand_augment_last": False, "blur": 0.0, "crop_scale": [0.5, 1.0]}
PRETRAIN = {
    "frames": "frames",
    "encoder": "tsm/test_resnet",
    "weights": "none",
    "model_args": {"drop_rate": 0.0},
    "preprocess": {"size": [32, 32]},
    "clips": {"length": 4, "dilation": 2, "batch_size": 2, "augment": PLAIN},
    "epochs": 2,
    "device": "cpu",
    "optimizer": {"lr": 1e-3},
    "schedule": {"warmup_epochs": 0},
}


def clip_work(world, *, key="run", objective="simclr", labelled=True, inputs=None, **config):
    work = world.work(
        "pretrain",
        key,
        {**PRETRAIN, "objective": OBJECTIVES[objective], **config},
        frames=world.frames,
        **(inputs or {}),
    )
    videos = [
        {**video, "annotation": Annotation(label=number % 2 if labelled else -1).plain()}
        for number, video in enumerate(world.payload["videos"])
    ]
    return replace(work, payload={"classes": ["even", "odd"] if labelled else [], "background": -1, "videos": videos})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Frames of four videos to train on and two to validate on; made once."""
    root, items, videos = tmp_path_factory.mktemp("clips"), [], []
    for number in range(6):
        path = root / f"{number}.mp4"
        write_scene(path, levels=[60 + 20 * number] * 9 + [180] * 9, seed=number)
        items.append(VideoItem(digest=f"d{number}", path=str(path), video_id=path.name, duration_seconds=1.8))
        split = "train" if number < 4 else "val"
        videos.append({"video_id": path.name, "digest": f"d{number}", "split": split})
    made = Film(root, tuple(items), {"videos": videos})
    decode_items(made.work("decode", "frames", DECODE), Notes())
    return made


def trained(world, *, reporter=None, **config):
    work = clip_work(world, **config)
    outputs = run(work, reporter or Notes())
    folder = RunFolder(world.store.run(work.key))
    assert outputs["weights"] == folder.weights_digest()
    return folder


def lines_of(folder):
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in folder.metrics()]


def equal(one, two):
    first, second = load_file(one.weights), load_file(two.weights)
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_learns_and_embed_takes_the_encoder(world, objective):
    notes = Notes()
    folder = trained(world, key=f"own {objective}", objective=objective, labelled=objective == "ce", reporter=notes)
    said = "" if objective == "ce" else " (not used: the last weights count)"
    assert f"4 videos to train on, 2 to validate on{said}" in notes.notes
    assert any(note.startswith("learning rate ") and note.endswith("2 videos an update") for note in notes.notes)
    line = folder.metrics()[-1]
    assert np.isfinite(line["train_loss"])
    assert ("train_accuracy_1" in line) == (objective != "byol")
    assert ("val_top1" in line) == (objective == "ce")
    state, values = load_file(folder.weights), folder.config()
    assert {name.split(".")[0] for name in state} == ({"spatial"} if objective == "ce" else {"spatial", "heads"})
    assert values["spatial"]["clip"]["length"] == 4
    assert values["spatial"]["model_args"] == {"drop_rate": 0.0}
    config = {
        "frames": "frames",
        "run": "run",
        "dtype": "float32",
        "device": "cpu",
        "batch_size": 4,
        "channels_last": False,
    }
    ref = InputRef(node="run", stage="pretrain", key=f"own {objective}", config=PRETRAIN)
    embed_items(world.work("embed", f"rows {objective}", config, frames=world.frames, run=ref), Notes())
    rows = EmbeddingStore(world.store.embeddings(f"rows {objective}")).rows("d0")
    assert rows.output("pooled").shape == (3, 96)  # clips of 4 frames, 2 apart: from 0, 8 and, to the end of 18, 11
    assert np.isfinite(rows.output("pooled")).all()


@pytest.mark.parametrize("objective", ["moco", "byol"])
def test_an_interrupted_epoch_goes_on_with_the_very_numbers(world, objective):
    class Stop(Notes):
        def __init__(self):
            super().__init__()
            self.done = 0

        def advance(self, amount):
            self.done += amount
            if self.done == 12:  # the first of two batches of the second epoch
                os.kill(os.getpid(), signal.SIGTERM)

    scene = {**PLAIN, "flip": 0.5, "scene": {"reverse": 0.5, "curriculum_epochs": 1}}
    how = {"objective": objective, "clips": {**PRETRAIN["clips"], "augment": scene}, "labelled": False}
    whole = trained(world, key=f"whole {objective}", **how)
    with pytest.raises(Interrupted, match=r"after update 3 \(epoch 2\)"):
        trained(world, key=f"cut {objective}", reporter=Stop(), **how)
    cut = trained(world, key=f"cut {objective}", **how)
    assert lines_of(cut) == lines_of(whole)
    assert equal(cut, whole)


@pytest.mark.usefixtures("forked_training")
@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ce", "moco"])
def test_two_processes_learn_as_one(world, objective):
    clips = {**PRETRAIN["clips"], "batch_size": 3}  # 3 videos and 1: one process has nothing of its own there
    how = {"objective": objective, "clips": clips, "optimizer": {"name": "momentum", "lr": 0.01}}
    one, two = (trained(world, key=f"{count} of {objective}", processes=count, **how) for count in (1, 2))
    for first, second in zip(lines_of(one), lines_of(two), strict=True):
        assert second == pytest.approx(first, rel=2e-3, abs=1e-5)
    state = load_file(two.weights)
    for name, value in load_file(one.weights).items():
        torch.testing.assert_close(state[name], value, rtol=1e-2, atol=1e-4)


def test_a_run_starts_from_another_and_says_what_it_took(world):
    trained(world, key="ssl", objective="byol", labelled=False)
    notes, ref = Notes(), InputRef(node="ssl", stage="pretrain", key="ssl", config=PRETRAIN)
    folder = trained(
        world,
        key="tuned",
        objective="ce",
        init_from="ssl",
        inputs={"init_from": ref},
        reporter=notes,
        epochs=1,
        optimizer={"lr": 1e-9},
    )
    told = next(note for note in notes.notes if note.startswith("init_from run ssl"))
    assert "new (spatial.model.fc.weight, spatial.model.fc.bias)" in told
    assert "13 unused (heads.predictor" in told
    before, after = load_file(world.store.run("ssl") / "model.safetensors"), load_file(folder.weights)
    name = "spatial.model.layer1.0.conv1.weight"
    torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)


def test_own_weights_go_into_a_network_of_other_classes(world):
    first = trained(world, key="classes", objective="ce", epochs=1)
    state = {name.removeprefix("spatial.model."): value for name, value in load_file(first.weights).items()}
    state["fc.weight"], state["fc.bias"] = torch.zeros(7, 96), torch.zeros(7)
    file = world.root / "public.pth"
    torch.save(state, file)
    again = trained(world, key="again", objective="ce", weights=str(file), epochs=1, optimizer={"lr": 1e-9})
    after = load_file(again.weights)
    assert after["spatial.model.fc.weight"].shape == (2, 96)
    torch.testing.assert_close(after["spatial.model.conv1.0.weight"], state["conv1.0.weight"], atol=1e-6, rtol=0)


def batches(num_rows, *, length=3, dilation=2, **more):
    videos = ClipVideos(
        positions=np.arange(len(num_rows)),
        num_rows=np.array(num_rows),
        labels=np.zeros(len(num_rows), np.int64),
        names=tuple("abcdef"[: len(num_rows)]),
    )
    shape = WindowShape(length=length, dilation=dilation, short="repeat")
    read = lambda _, rows: np.broadcast_to(rows[:, None, None, None], (len(rows), 1, 1, 3)).astype(np.uint8)  # noqa: E731
    return ClipBatches(videos=videos, read=read, shape=shape, batch_size=2, seed=0, **more)


def seen(batch):
    return batch.inputs["frames"][:, :, 0, 0, 0].tolist()


def test_clips_start_anywhere_and_repeat_the_last_frame():
    source, starts = batches([9, 3, 1], num_views=2), set()
    for epoch in range(30):
        for batch in source.epoch(epoch):
            for video, rows in zip(batch.inputs["video"].tolist(), seen(batch), strict=True):
                if video == 0:
                    starts.add(rows[0])
                    assert rows == [rows[0], rows[0] + 2, rows[0] + 4]
                else:
                    assert rows == ([0, 2, 2] if video == 1 else [0, 0, 0])
            assert batch.inputs["video"].tolist()[::2] == batch.inputs["video"].tolist()[1::2]
            assert batch.inputs["mask"].all()
    assert starts == {0, 1, 2, 3, 4}
    assert (source.num_items, source.num_batches) == (6, 2)
    assert batch.about()[0].startswith("video '")


def test_an_epoch_can_begin_anywhere_and_differs_from_the_next():
    source = batches([50, 60, 70, 80], num_views=2)
    whole = [seen(batch) for batch in source.epoch(3)]
    assert [seen(batch) for batch in source.epoch(3, first=1)] == whole[1:]
    assert [seen(batch) for batch in source.epoch(4)] != whole
    assert any(one != other for pair in whole for one, other in zip(pair[::2], pair[1::2], strict=True))


def test_validation_sees_the_whole_video():
    shape = WindowShape(length=4, dilation=2, short="repeat")  # 7 frames
    windows = covering_starts([0, 3, 7, 8, 20, 22, 700], shape, max_clips=3)
    found = {video: windows.start[windows.video == video].tolist() for video in range(7)}
    assert found == {0: [], 1: [0], 2: [0], 3: [0, 1], 4: [0, 6, 13], 5: [0, 8, 15], 6: [0, 346, 693]}
    assert covering_starts([700], shape, max_clips=1).start.tolist() == [346]
    with pytest.raises(ValueError, match="max_clips is 0"):
        covering_starts([7], shape, max_clips=0)
    # fractal_video's rule: every second start, or 3 evenly spread from the first
    how = ClipPretrainSettings(val_clips=3, val_step=2)
    assert val_clips([11, 20], shape, how).start.tolist() == [0, 2, 4, 0, 6, 12]


def test_classes_of_a_video_are_the_mean_over_its_clips_as_published():
    entry = VECTORS["clip_average(softmax then mean per file)"]
    task = build_task("video", LabelSpace(classes=("a", "b", "c"), background=-1))
    videos = ClipVideos(
        positions=np.array([4, 5, 6]),
        num_rows=np.array([5, 3, 5]),
        labels=np.array(entry["labels"]),
        names=("x", "y", "z"),
    )
    read, logits = [], iter(entry["logits"])

    def clip(video, rows):
        read.append((video, rows.tolist()))
        return np.zeros((3, 1, 1, 3), np.uint8)

    def forward(batch):
        return {"logits": torch.tensor([next(logits) for _ in batch["frames"]])}

    scoring = Scoring(
        videos=videos,
        read=clip,
        shape=WindowShape(length=3, short="repeat"),
        clips=ClipPretrainSettings(batch_size=2),
        task=task,
        context=TrainContext(device=torch.device("cpu"), world=World(), reporter=Notes()),
    )
    assert scoring(forward)["top1"] == pytest.approx(entry["top1_pct"] / 100, abs=1e-6)
    assert read == [(4, [0, 1, 2]), (4, [2, 3, 4]), (5, [0, 1, 2]), (6, [0, 1, 2]), (6, [2, 3, 4])]
    merged = merge_views(entry["logits"], video_N=entry["file_idx"], view_NV=[0, 2, 0, 0, 2])
    np.testing.assert_allclose(merged.probabilities, entry["pred"], atol=1e-6)


BAD = {
    "images": ({"clips": None}, "reads clips, key frames are images; .* or give clips"),
    "clips of images": ({"encoder": "timm/test_resnet"}, "reads images, but clips are given"),
}


@pytest.mark.parametrize(("settings", "match"), BAD.values(), ids=BAD)
def test_encoders_that_do_not_fit_are_refused(settings, match):
    config = PretrainConfig(**{**PRETRAIN, "model_args": {}, "objective": {"name": "ce"}, **settings})
    with pytest.raises(ConfigError, match=match):
        config.check_names()


FRAMES = {"clips": None, "encoder": "timm/test_resnet", "objective": {"name": "supcon"}}
WRONG = {
    "objective": ({"objective": {"name": "supcon"}}, "objective supcon is of single frames; of clips: ce, simclr"),
    "no clips": ({"clips": None}, "objective moco compares two clips of a video; give clips"),
    "heads": ({"clips": None, "objective": {"name": "simclr", "dim": 8}}, "are of clips; leave them out"),
    "states": ({"states": ["a"]}, "states is of single frames, but clips are learned from"),
    "augment": ({"augment": {"flip": 0.5}}, "augment is of single frames.*clips have clips.augment"),
    "queue": ({"clips": {"batch_size": 8}}, "objective.queue is 5, but a batch has 8 keys"),
    "metric": ({"metric": "top1"}, "metric is top1; of clips there is none: the last weights count"),
    "metric of frames": ({"metric": "f1_at_1", "objective": {"name": "ce"}}, "with objective ce top1"),
    "metric of clips": ({"metric": "top1", "clips": None, "objective": {"name": "ce"}}, "metric top1 is of clips"),
    "two starts": ({"weights": "a.pth", "init_from": "b.pth"}, "are two starting points"),
    "two starts of frames": (
        {**FRAMES, "weights": "hub", "init_from": "b.pth"},
        "weights: hub and init_from: b.pth are two starting points",
    ),
    "prefix of no file": (
        {"prefix": "spatial."},
        "names in a file, but weights is none; leave them out",
    ),
    "names of the hub": ({**FRAMES, "weights": "hub", "key_map": {"a": "b"}}, "names in a file, but weights is hub"),
    "mix": ({"mix": {}}, "mix is of windows with labels"),
    "clones": ({"clips": {"batch_size": 2, "augment": {"scene": {}}}}, "clone is 0.15, but copies appear after"),
    "early stop": ({"early_stop": {}}, "early_stop waits for a metric, and without labels none is measured"),
    "dropped name": ({"clips": {"stride": 2}}, "stride"),
}


@pytest.mark.parametrize(("settings", "match"), WRONG.values(), ids=WRONG)
def test_settings_that_do_not_fit_are_refused(settings, match):
    good = {**PRETRAIN, "objective": OBJECTIVES["moco"]}
    PretrainConfig(**good)
    with pytest.raises(ValueError, match=match):
        PretrainConfig(**{**good, **settings})


def test_what_is_switched_off_needs_no_word_about_how():
    clips = {"batch_size": 2, "augment": {"rand_augment": None, "crop_scale": None}}
    augment = PretrainConfig(**{**PRETRAIN, "objective": OBJECTIVES["moco"], "clips": clips}).clips.augment
    assert (augment.rand_augment_last, augment.crop_aspect) == (False, None)
    said = {**clips, "augment": {"rand_augment": None, "rand_augment_last": True}}
    with pytest.raises(ValueError, match="rand_augment_last says when rand_augment is made, which is null"):
        PretrainConfig(**{**PRETRAIN, "objective": OBJECTIVES["moco"], "clips": said})


def test_keys_of_frames_know_nothing_of_clips():
    frames = PretrainConfig(encoder="timm/test_resnet", objective={"name": "simclr"}).spec()
    assert "clips" not in frames
    assert set(frames["objective"]) == {"name", "temperature", "margin", "exclude_background"}
    clips = PretrainConfig(**{**PRETRAIN, "objective": OBJECTIVES["moco"]})
    assert clips.spec()["objective"]["queue"] == 5
    assert "clips" in PretrainConfig.expected(clips.spec())  # what reads the run sees clips of its length
    assert not clips.learns_labels


def test_of_files_with_the_same_content_one_is_taken_and_none_is_said_to_be_missing(world):
    work, notes = clip_work(world, key="copies", labelled=True, epochs=1), Notes()
    copy = {**work.payload["videos"][0], "video_id": "copy.mp4", "annotation": Annotation(label=1).plain()}
    run(replace(work, payload={**work.payload, "videos": [*work.payload["videos"], copy]}), notes)
    assert any(note.startswith("4 videos to train on") for note in notes.notes)
    assert not [note for note in notes.notes if "left out" in note]


def test_clips_that_an_encoder_does_not_take_are_refused_before_training(world):
    with pytest.raises(ConfigError, match=r"run: the encoder does not take rows of shape \(3, 1, 32, 32\)"):
        trained(world, encoder="torchvision/s3d", model_args={}, clips={"length": 1, "batch_size": 2})


def test_a_metric_that_so_few_classes_do_not_have_is_refused_before_training(world):
    with pytest.raises(ConfigError, match=r"metric: 'top5' is not known.*Known: .*top1.*mean_class_accuracy"):
        trained(world, key="top5", objective="ce", metric="top5")
    assert not RunFolder(world.store.run("top5")).path.exists()


def test_labels_are_needed_where_they_are_learned(world):
    with pytest.raises(InputError, match="the videos have no labels"):
        trained(world, key="none", objective="ce", labelled=False)
    work = clip_work(world, key="other split", objective="ce", train_splits=["none"])
    with pytest.raises(InputError, match="none of the videos of splits none has stored frames and a label"):
        run(work, Notes())
    with pytest.raises(ConfigError, match="materialize: false"):
        PretrainConfig(**PRETRAIN, objective={"name": "ce"}).check_inputs({"frames": [DecodeConfig(materialize=False)]})
