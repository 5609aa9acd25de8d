"""Networks that see clips of frames: a model that sees them itself, and encoders of clips, from windows of frames."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from reelwright.models.clip_models import build_clip_model
from reelwright.models.contracts import ClipSizes, model_layers
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.plugins import find_plugin
from reelwright.stages.base.work import InputRef
from reelwright.stages.datasets.sampling.clips import clip_sampling
from reelwright.stages.datasets.sampling.windows import WindowShape
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import apply
from reelwright.stages.embed.config import ClipSettings, EmbedConfig
from reelwright.stages.embed.encoding.clip_models import frames_seen
from reelwright.stages.embed.encoding.encoder import encoder_of
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.embed.work import run_items as embed_items
from reelwright.stages.embed_rows.row_model import load_row_model
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.finetune.module import ClipNetwork, load_network
from reelwright.stages.finetune.work import run
from reelwright.stages.fit.init_from import init_weights
from reelwright.stages.fit.loop.progress import TIMINGS
from reelwright.stages.predict.config import PredictConfig
from reelwright.stages.predict.work import run_items as predict_items
from reelwright.stages.train.config import TrainConfig
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.arrays.window_outputs import WindowOutputStore
from reelwright.storage.errors import ConfigError, Interrupted
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.results.scores import read_scores
from reelwright.storage.tables.annotations import Annotation

from .conftest import EMBED, Notes

NET = """
import torch
from torch import nn
from reelwright.models.contracts import ClipModel
from reelwright.models.encoders.base import DataConfig


class Net(ClipModel):
    data_config = DataConfig((16, 16), 18, "bilinear", True, "center", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))

    def __init__(self, sizes, *, width: int = 4):
        super().__init__()
        self.heads, self.per_row = sizes.heads, sizes.per_row
        self.body = nn.Sequential(nn.Conv3d(3, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU())
        self.head = nn.Linear(width, sizes.num_outputs)

    def forward(self, batch):
        mask = batch["mask"][:, None, :, None, None]
        x = self.body(batch["frames"].transpose(1, 2) * mask) * mask
        pooled = x.mean(dim=(3, 4)).transpose(1, 2) if self.per_row else x.mean(dim=(2, 3, 4))
        logits = self.head(pooled)
        space = x.mean(dim=1).sigmoid()
        if not self.heads:
            return {"logits": logits, "attention.space": space}
        parts = torch.split(logits, list(self.heads.values()), dim=-1)
        return {f"logits.{name}": part for name, part in zip(self.heads, parts)}
"""
WINDOW = {"length": 4, "hop": 5}
CONTINUOUS = ("train_loss", "val_loss", "gradient_norm")
WHOLE = {
    "frames": "frames",
    "model": {"name": "net.py:Net", "width": 3},
    "window": WINDOW,
    "epochs": 2,
    "device": "cpu",
    "optimizer": {"lr": 0.01},
}
KEEP = {"keep": ["attention"], "device": "cpu", "frames": "frames", "run": "tune"}


@pytest.fixture(scope="module")
def plugins(footage):
    (footage.root / "net.py").write_text(NET, encoding="utf-8")
    return {"models:net.py:Net": find_plugin("models", "net.py:Net", folder=footage.root).plain()}


@pytest.fixture(scope="module")
def tune(footage, plugins):
    """Train a network that sees clips; its folder."""

    def call(*, key, reporter=None, payload=None, **config):
        work = footage.work("finetune", key, {**WHOLE, **config}, frames=footage.frames)
        work = replace(work, plugins=plugins, payload=payload or footage.payload)
        run(work, reporter or Notes())
        return RunFolder(footage.store.run(key))

    return call


@pytest.fixture(scope="module")
def trained(tune):
    """The folder of a run, `trained`."""
    return tune(key="trained", epochs=1)


def _run(key):
    return InputRef(node="tune", stage="finetune", key=key)


def _node(key):
    return InputRef(node=key, stage="embed", key=key)


def predicted(footage, plugins, *, of, key="scores", **config):
    """Predict over the frames of all videos; what was said."""
    reporter = Notes()
    tuned = InputRef(node="tune", stage="finetune", key=of, inputs={"frames": (footage.frames,)})
    work = footage.work("predict", key, {**KEEP, **config}, run=tuned, frames=footage.frames)
    predict_items(replace(work, plugins=plugins), reporter)
    return reporter


def plain_outputs(footage, plugins, *, of, digest, starts, length):
    """The network's outputs for windows that begin at ``starts``, one after the other."""
    network = load_network(_run(of), store=footage.store, plugins=plugins)
    seen = frames_seen(RunFolder(footage.store.run(of)).config())
    frames = apply(FrameStore(footage.store.frames("frames")).rows(digest).read(0, 18), geometry_of(seen))
    x = (torch.from_numpy(frames).float() / 255 - torch.tensor(seen.mean)) / torch.tensor(seen.std)
    clips = [x.permute(0, 3, 1, 2)[None, start : start + length] for start in starts]
    with torch.inference_mode():
        return [network({"frames": clip, "mask": torch.ones(1, length, dtype=torch.bool)}) for clip in clips]


class _Terminates(Notes):
    """Gets a SIGTERM while the third update is reported."""

    calls = 0

    def advance(self, amount):
        self.calls += 1
        if self.calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)


def test_predictions_are_those_of_a_plain_loop_over_the_model(footage, plugins, trained):
    assert trained.config()["sees"]["size"] == [16, 16]
    assert {name.split(".")[0] for name in load_file(trained.weights)} == {"model"}
    reporter = predicted(footage, plugins, of="trained", frame_batch_size=9)
    assert {row.status for row in reporter.rows} == {"ok"}
    found = read_scores(footage.store.predictions("scores"), "d4")
    assert found.start_row.tolist() == list(range(15))
    wanted = plain_outputs(footage, plugins, of="trained", digest="d4", starts=range(15), length=4)
    scores = torch.cat([outputs["logits"].softmax(-1) for outputs in wanted])
    np.testing.assert_allclose(found.scores, scores.numpy(), atol=1e-5)
    kept = WindowOutputStore(footage.store.attention("scores")).rows("d4").output("attention.space")
    space = torch.cat([outputs["attention.space"] for outputs in wanted])
    np.testing.assert_allclose(kept, space.numpy(), atol=1e-3)


def test_it_goes_on_exactly_where_it_was_interrupted(footage, tune):
    augment = {"rand_augment": "rand-m7-n4-mstd0.5-inc1", "scene": {"curriculum_epochs": 1}}
    settings = {"augment": augment, "mix": {}, "ema": {}, "batch_size": 5}
    whole = tune(key="exact", **settings)
    with pytest.raises(Interrupted, match="after update 3"):
        tune(key="exact cut", reporter=_Terminates(), **settings)
    cut = tune(key="exact cut", **settings)
    records = [[{**record, **dict.fromkeys(TIMINGS)} for record in each.metrics()] for each in (whole, cut)]
    assert records[0] == records[1]
    first, second = load_file(whole.weights), load_file(cut.weights)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_heads_by_name_and_crops_and_views_at_test_are_merged(footage, plugins, tune):
    """Logits of heads lie side by side; a window's answer is the mean over crops, those of the ends and the middle."""
    videos = [
        {**video, "annotation": Annotation(labels=(number % 2, 2 + number // 2 % 2)).plain()}
        for number, video in enumerate(footage.payload["videos"])
    ]
    payload = {
        **footage.payload,
        "videos": videos,
        "classes": ["verb: a", "verb: b", "noun: c", "noun: d"],
        "heads": [["verb", 2], ["noun", 2]],
    }
    folder = tune(key="headed", payload=payload, task="heads", window={"length": 4, "sampling": "segments"}, epochs=1)
    assert {"val_action_top1", "val_verb_top1"} <= folder.metrics()[-1].keys()
    assert folder.config()["model"]["heads"] == {"verb": 2, "noun": 2}
    how = {"of": "headed", "keep": [], "window": {"views": 2}}
    predicted(footage, plugins, key="crops", crops=3, short_side=20, **how)
    crops = read_scores(footage.store.predictions("crops"), "d5")
    network = load_network(_run("headed"), store=footage.store, plugins=plugins)
    stored = FrameStore(footage.store.frames("frames")).rows("d5").read(0, 18)
    seen = frames_seen(folder.config())
    rows = torch.from_numpy(clip_sampling("segments", WindowShape(length=4)).views([18], num_views=2).rows)
    resized = apply(stored, replace(geometry_of(seen), resize=20, size=None))
    wanted = []
    room = resized.shape[2] - 16
    for left in (0, room // 2, room):
        x = torch.from_numpy(resized[:, 2:18, left : left + 16].copy())
        with torch.inference_mode():
            wanted.append(network({"frames": x[rows], "mask": torch.ones(2, 4, dtype=torch.bool)})["logits"])
    scores = torch.stack([torch.cat([part.softmax(-1) for part in found.split(2, -1)], -1) for found in wanted])
    np.testing.assert_allclose(crops.scores, scores.mean(0).numpy(), atol=1e-5)


@pytest.mark.usefixtures("trained")
def test_frames_that_cannot_be_read_fail_their_video_alone(footage, plugins, tmp_path):
    shutil.copytree(footage.store.root, tmp_path / "store")
    copy = replace(footage, root=tmp_path)
    array = copy.store.frames("frames") / "d1" / "frame" / "c"
    for shard in (path for path in array.rglob("*") if path.is_file()):
        shard.write_bytes(b"x" * 40)
    shutil.rmtree(copy.store.frames("frames") / "d2")
    rows = {
        row.digest: row for row in predicted(copy, plugins, of="trained", key="partly", window={"hop": 9}, keep=[]).rows
    }
    assert {digest for digest, row in rows.items() if row.status == "ok"} == {"d0", "d3", "d4", "d5"}
    assert rows["d1"].cause == rows["d2"].cause == "no_frames"
    assert "cannot be read" in rows["d1"].message


def test_every_frame_is_answered_by_a_model_that_can(footage, plugins, tune):
    tune(key="rows", task="per_row", epochs=1)
    predicted(footage, plugins, of="rows", key="of rows", keep=[], window={"hop": 3})
    scores = read_scores(footage.store.predictions("of rows"), "d0")
    assert scores.row_scores.shape == (18, 2)
    wanted = plain_outputs(footage, plugins, of="rows", digest="d0", starts=[0], length=4)[0]["logits"].softmax(-1)
    np.testing.assert_allclose(scores.row_scores[0], wanted[0, 0].numpy(), atol=1e-5)


@pytest.mark.usefixtures("trained")
def test_a_run_starts_another_and_gives_rows_of_clips_where_it_can(footage, plugins):
    settings = {**WHOLE, "init_from": "first", "epochs": 1, "window": {"length": 4, "hop": 20}}
    work = footage.work("finetune", "second", settings, frames=footage.frames)
    first = InputRef(node="first", stage="finetune", key="trained")
    run(replace(work, plugins=plugins, inputs={**work.inputs, "init_from": (first,)}), Notes())
    report = json.loads(RunFolder(footage.store.run("second")).init_report.read_text())
    assert len(report["matched"]) == 9
    assert not report["new"]
    embed = {"run": "first", "outputs": ["logits"], "dtype": "float32", "batch_size": 3, "channels_last": False}
    node = footage.work("embed", "clips", {**embed, "device": "cpu"}, run=first, frames=footage.frames)
    embed_items(replace(node, plugins=plugins), Notes())
    rows = EmbeddingStore(footage.store.embeddings("clips")).rows("d4")
    wanted = plain_outputs(footage, plugins, of="trained", digest="d4", starts=[0, 5, 10, 14], length=4)
    found = torch.cat([outputs["logits"] for outputs in wanted])
    np.testing.assert_allclose(rows.output("logits"), found.numpy(), atol=1e-4)
    with pytest.raises(ConfigError, match=r"gives no embedding of a clip\. Of each clip there is logits"):
        embed_items(replace(node, config={**node.config, "outputs": ["pooled"]}, plugins=plugins), Notes())
    config = {"run": "first", "embeddings": ["clips"], "device": "cpu"}
    of_rows = footage.work("embed", "more", config, run=first, embeddings=_node("clips"))
    with pytest.raises(ConfigError, match="has a model that sees clips of frames, not rows"):
        load_row_model(of_rows, EmbedConfig(**config))


@pytest.mark.usefixtures("trained")
def test_the_clip_of_a_video_that_is_too_short_is_masked_as_in_training(footage, plugins):
    settings = {"run": "first", "outputs": ["logits"], "dtype": "float32", "batch_size": 4, "channels_last": False}
    clip = {"length": 24, "short": "pad"}
    first = InputRef(node="first", stage="finetune", key="trained")
    work = footage.work("embed", "short", {**settings, "device": "cpu", "clip": clip}, run=first, frames=footage.frames)
    embed_items(replace(work, plugins=plugins), Notes())
    rows = EmbeddingStore(footage.store.embeddings("short")).rows("d3").output("logits")
    network = load_network(_run("trained"), store=footage.store, plugins=plugins)
    stored = FrameStore(footage.store.frames("frames")).rows("d3").read(0, 18)
    frames = torch.zeros(1, 24, 16, 16, 3, dtype=torch.uint8)
    frames[0, :18] = torch.from_numpy(
        apply(stored, geometry_of(frames_seen(RunFolder(footage.store.run("trained")).config())))
    )
    with torch.inference_mode():
        wanted = network({"frames": frames, "mask": torch.arange(24)[None] < 18})["logits"]
    np.testing.assert_allclose(rows, wanted.numpy(), atol=1e-5)


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(("given", "hop"), [({}, 5), ({"hop": 8}, 8), ({"hop": 3}, 3)])
def test_clips_are_the_windows_of_the_run_unless_they_are_given(footage, plugins, given, hop):
    config = parse_config(EmbedConfig, {"run": "first", "outputs": ["logits"], "clip": given}, where="clips").plain()
    first = InputRef(node="first", stage="finetune", key="trained")
    work = replace(footage.work("embed", "clips", config, run=first, frames=footage.frames), plugins=plugins)
    assert encoder_of(work).config.clip == ClipSettings(length=4, hop=hop, short="pad")


def test_image_weights_are_inflated_and_the_report_says_what_matched(footage, tmp_path):
    """A 2D ResNet of timm or torchvision, or the encoder of a run, starts st_abn; its branch and heads begin anew."""
    state = torchvision.models.resnet18(weights=None).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "start.safetensors")
    sizes = ClipSizes(num_outputs=2, length=4, frame_size=(32, 32))
    model = build_clip_model("st_abn", sizes, depth=18)
    network = ClipNetwork(model, data_config=model.data_config, heads={})
    config = FinetuneConfig(model={"name": "st_abn"}, init_from=str(tmp_path / "start.safetensors"))
    report = init_weights(network, footage.work("finetune", "init", {}), config, classes=("a", "b"))
    assert {name.split(".")[1] for name in report["matched"]} == {"resnet"}
    assert set(report["unused"]) == {"model.fc.weight", "model.fc.bias"}
    assert {name.split(".")[1] for name in report["new"]} == {"branch", "gate", "head"}
    assert set(model_layers(network)) == {name for name, _ in network.named_parameters()}
    kernel = model.state_dict()["resnet.layer3.0.conv1.weight"]
    torch.testing.assert_close(kernel.sum(2), state["layer3.0.conv1.weight"])


CLIPS = {
    "frames": "frames",
    "spatial": "embed",
    "model": {"name": "linear"},
    "window": WINDOW,
    "frozen_norm": False,
    "epochs": 1,
    "device": "cpu",
    "optimizer": {"lr": 0.01},
}


def encoder_node(footage, **config):
    values = {**EMBED, "preprocess": {"size": [32, 32]}, **config}
    return InputRef(node="embed", stage="embed", key="embed", config=values, inputs={"frames": (footage.frames,)})


def tune_encoder(footage, *, key, encoder, reporter=None, **config):
    work = footage.work("finetune", key, {**CLIPS, **config}, frames=footage.frames, spatial=encoder)
    run(work, reporter or Notes())
    return RunFolder(footage.store.run(key))


def test_an_encoder_of_clips_learns_on_and_makes_rows_of_them(footage):
    encoder = encoder_node(footage, encoder="tsm/test_resnet", clip={"length": 6, "hop": 3})
    notes = Notes()
    folder = tune_encoder(footage, key="tsm", encoder=encoder, frozen_norm=True, reporter=notes)
    assert any("the weights of embed are random, and frozen_norm" in note for note in notes.notes)
    assert folder.config()["model"]["length"] == 1
    assert {name.partition(".")[0] for name in load_file(folder.weights)} == {"spatial", "temporal"}
    predicted(footage, {}, of="tsm", key="of tsm", keep=[], window={"hop": 7})
    found = read_scores(footage.store.predictions("of tsm"), "d4")
    assert found.start_row.tolist() == [0, 7, 14]
    wanted = plain_outputs(footage, {}, of="tsm", digest="d4", starts=[0, 7, 14], length=4)
    scores = torch.cat([outputs["logits"].softmax(-1) for outputs in wanted])
    np.testing.assert_allclose(found.scores, scores.numpy(), atol=1e-5)
    plain = {"dtype": "float32", "batch_size": 4, "channels_last": False, "device": "cpu", "run": "tune"}
    embed_items(footage.work("embed", "of tuned", plain, run=_run("tsm"), frames=footage.frames), Notes())
    rows = EmbeddingStore(footage.store.embeddings("of tuned")).rows("d4")
    assert rows.spans.source_start.tolist() == [0, 5, 10, 14]  # clips of 4 frames, as the windows of the run
    network = load_network(_run("tsm"), store=footage.store, plugins={})
    head = network.temporal.head
    logits = torch.from_numpy(rows.output("pooled"))[[0, 3]] @ head.weight.T + head.bias
    np.testing.assert_allclose(logits.softmax(-1).detach().numpy()[[0, 1]], found.scores[[0, 2]], atol=1e-4)


@pytest.mark.slow
def test_an_encoder_of_images_and_a_new_model_learn_together(footage):
    """No train node is needed; what predict makes of it is what it makes of other runs with an encoder of images."""
    folder = tune_encoder(footage, key="images", encoder=encoder_node(footage), model={"name": "gru"}, task="per_row")
    assert folder.config()["model"]["length"] == 4
    reporter = predicted(footage, {}, of="images", key="of images", keep=[])
    assert {row.status for row in reporter.rows} == {"ok"}
    assert read_scores(footage.store.predictions("of images"), "d0").row_scores.shape == (18, 2)


@pytest.mark.parametrize(
    ("encoder", "settings", "message"),
    [
        ("tsm/test_resnet", {"task": "per_row"}, "a window is one clip, so one row, of tsm/test_resnet"),
        ("torchvision/s3d", {"window": {"length": 2}}, r"window.length: 2 is not allowed for torchvision/s3d"),
        (
            "tsm/test_resnet",
            {"model": None, "temporal": "train"},
            "sees clips, and of temporal runs and of views a row",
        ),
    ],
    ids=["per-row", "length", "temporal"],
)
def test_encoders_of_clips_are_refused_before_any_work(footage, encoder, settings, message):
    node = encoder_node(footage, encoder=encoder)
    config = {**CLIPS, **settings}
    if "temporal" in settings:
        del config["window"]
        with pytest.raises(ConfigError, match=message):
            FinetuneConfig(**config).check_inputs({"spatial": [EmbedConfig(**node.config)]})
        return
    with pytest.raises(ConfigError, match=message):
        tune_encoder(footage, key="refused", encoder=node, **settings)
    assert not footage.store.run("refused").exists()


BEHIND = {"spatial": "embed", "model": {"name": "gru"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"name": "gru"}}, "model gru learns from rows of an encoder; give spatial"),
        ({**BEHIND, "model": {"name": "st_abn"}}, "model st_abn sees frames itself; leave spatial out"),
        ({"task": "per_row"}, "model st_abn answers for a window, but task is per_row"),
        ({"frozen_norm": False}, "frozen_norm is of an encoder"),
        ({"windows_per_epoch": 3}, "set window.per_epoch"),
        ({"window": {"sampling": "dense"}}, "takes clips that stand for their video, but task is last_row"),
        ({"model": {"name": "st_abn", "depht": 18}}, "did you mean 'depth'"),
        ({"model": {"name": "st_abn", "depth": 20}}, "allowed: 18, 34, 50"),
        ({"temporal": "train"}, "give either temporal"),
        ({"model": None, "temporal": "t"}, "spatial is missing"),
        ({"model": None, "spatial": "e", "temporal": "t", "task": "video"}, "task is of a new model on windows"),
        ({**BEHIND, "preprocess": {"size": [9, 9]}}, "preprocess is that of the embed node"),
        ({**BEHIND, "task": "none"}, "no such task"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    values = {"model": {"name": "st_abn"}, **settings}
    with pytest.raises(ConfigError, match=message):
        parse_config(FinetuneConfig, {name: value for name, value in values.items() if value is not None}, where="tune")


def test_what_reads_the_run_is_checked_before_work():
    tune = parse_config(FinetuneConfig, {"model": {"name": "st_abn"}}, where="tune")
    read = {"tune": tune, "frames": DecodeConfig(materialize=False)}
    with pytest.raises(ConfigError, match="Set materialize: true for 'frames'"):
        PredictConfig(run="tune").complete(read, where="predict")
    with pytest.raises(ConfigError, match="sees clips of frames, not rows"):
        PredictConfig(run="tune", embeddings=["rows"]).complete(read, where="predict")
    with pytest.raises(ConfigError, match=r"unknown output 'attention\.place'"):
        PredictConfig(run="tune", keep=["attention.place"]).complete(read, where="predict")
    with pytest.raises(ConfigError, match="gives no embedding of a clip"):
        EmbedConfig(run="tune").check_inputs({"run": [tune]})
    EmbedConfig(run="tune", outputs=["logits"]).check_inputs({"run": [tune]})
    with pytest.raises(ConfigError, match="model st_abn sees frames, but train reads stored rows"):
        parse_config(TrainConfig, {"embeddings": ["rows"], "model": {"name": "st_abn"}}, where="train")


@pytest.mark.usefixtures("forked_training")
@pytest.mark.slow
def test_two_processes_learn_as_one(tune):
    """Batch norms, which learn their statistics here, see the whole batch."""
    still = {"flip": 0, "crop_scale": None, "color_jitter": 0}
    settings = {"batch_size": 4, "augment": still, "optimizer": {"name": "momentum", "lr": 0.01}, "metric": "loss"}
    one, two = (tune(key=f"in {number}", processes=number, **settings) for number in (1, 2))
    for a, b in zip(one.metrics(), two.metrics(), strict=True):
        assert [b[name] for name in CONTINUOUS] == pytest.approx([a[name] for name in CONTINUOUS], rel=1e-3)
    first, second = load_file(one.weights), load_file(two.weights)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-3, atol=1e-4)
