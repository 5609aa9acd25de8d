"""Views at test: clips x crops of a video, each different one counted once, and only the frames that they need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.special import softmax

from reelwright.models.encoders.build import DataConfig, build_encoder
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import InputRef, VideoItem
from reelwright.stages.decode import source
from reelwright.stages.decode.work import run_items as decode_items
from reelwright.stages.embed.encoding.forward import ForwardPass
from reelwright.stages.predict.config import PredictConfig
from reelwright.stages.predict.crops import Crops
from reelwright.stages.predict.loaded_run import load_run
from reelwright.stages.predict.work import publish, run_items
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.work import run
from reelwright.storage.errors import ConfigError, StageError
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.results.predictions import PredictionSet, scores_matrix
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.results.scores import read_scores
from reelwright.storage.tables.annotations import Annotation

from .conftest import LENGTHS, over_frames, write_video

SEGMENTS = {"task": "video", "window": {"length": 2, "sampling": "segments"}, "model": {"name": "linear"}, "epochs": 1}


@pytest.fixture
def clipped(filmed):
    """As `filmed`, with a run on two segments of a row each, under the key `run`."""
    toy, items = filmed
    toy.videos = [{**video, "annotation": Annotation(label=at % 2).plain()} for at, video in enumerate(toy.videos)]
    (toy.store.run("run") / "model.safetensors").unlink()
    run(toy.train_work(key="clips", **SEGMENTS), toy.reporter)
    return toy, items


def _over_frames(toy, items, *, key="over frames", **config):
    work = over_frames(toy, items, **config)
    (reference,) = work.inputs["run"]
    return replace(work, key=key, inputs={**work.inputs, "run": (replace(reference, key="clips"),)})


def _logits(toy, rows):
    """What the run says of the mean of ``rows`` (T, D), by hand: its linear model averages rows."""
    module = load_run(RunFolder(toy.store.run("clips")), device=torch.device("cpu"), plugins={}).module
    values = torch.from_numpy(np.asarray(rows, np.float32))[None]
    with torch.inference_mode():
        mask = torch.ones(1, len(rows), dtype=torch.bool)
        return module({"rows": values, "mask": mask})["logits"].numpy()[0]


def test_views_that_show_the_same_frames_count_once(toy):
    """Three rows, two segments: tick 1.5, view v of 4 at shift (v + 1/2) / 4: rows 0 1, 0 2, 0 2, 1 2 (int of
    0.1875 1.6875, 0.5625 2.0625, 0.9375 2.4375, 1.3125 2.8125). The second counts once, not twice."""
    rows = np.diag([3.0, 1.0, -2.0]).astype(np.float32)
    toy.write("emb", "short", rows)
    toy.add("short", "train", Annotation(label=1))
    run(toy.train_work(key="clips", **SEGMENTS), toy.reporter)
    work = toy.predict_work(run="clips", window={"views": 4})
    run_items(work, toy.reporter)
    publish(work, toy.store.predictions("published"))
    found = PredictionSet(toy.store.predictions("published"))
    wanted = softmax(np.stack([_logits(toy, rows[view]) for view in ([0, 1], [0, 2], [1, 2])]), axis=-1)
    np.testing.assert_allclose(scores_matrix(found.windows()), wanted, atol=1e-6)
    np.testing.assert_allclose(scores_matrix(found.videos())[0], wanted.mean(axis=0), atol=1e-6)
    assert found.videos()["num_windows"].to_pylist() == [3]
    assert np.abs(wanted[[0, 1, 1, 2]].mean(axis=0) - wanted.mean(axis=0)).max() > 1e-4  # what it would be else


def _starts(toy, key, **window):
    work = replace(toy.predict_work(run="clips", window=window), key=key)
    run_items(work, toy.reporter)
    return read_scores(toy.store.predictions(key), "long").start_row.tolist()


def test_phase_and_sliding_windows_of_a_run_on_segments(toy):
    """Ten rows, two segments: tick 5; views of two at shifts 1/4, 3/4 of it or, as CAST, at 0, 1/2."""
    toy.write("emb", "long", np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32))
    toy.add("long", "train", Annotation(label=1))
    run(toy.train_work(key="clips", **SEGMENTS), toy.reporter)
    assert _starts(toy, "centred", views=2) == [1, 3]
    assert _starts(toy, "first", views=2, phase="first") == [0, 2]
    assert _starts(toy, "slid", sampling="grid", hop=4) == [0, 4, 8]


def test_stretched_clips_are_learned_from_and_predicted(toy):
    """Rows 4 apart on a grid, as CAST's dense views: of a short video the last one on the grid repeats."""
    for name, num_rows in (("long", 40), ("short", 7)):
        toy.write("emb", name, np.random.default_rng(num_rows).normal(size=(num_rows, 3)).astype(np.float32))
        toy.add(name, "train", Annotation(label=num_rows % 2))
    window = {"length": 4, "dilation": 4, "sampling": "stretched"}
    run(toy.train_work(key="clips", **{**SEGMENTS, "window": window}), toy.reporter)
    assert _starts(toy, "three", views=3) == [0, 12, 24]
    short = read_scores(toy.store.predictions("three"), "short")
    assert (short.start_row.tolist(), short.stop_row.tolist()) == ([0], [5])
    with pytest.raises(ConfigError, match=r"window\.phase is first, but the run was trained with sampling stretched"):
        _starts(toy, "first", phase="first")


@pytest.mark.slow
def test_crops_are_merged_by_hand(clipped, tmp_path):
    """A wide, a tall and a square video: three crops, three, one; each clip's line is the mean of their softmax."""
    toy, _ = clipped
    sizes = {"wide": (48, 80), "tall": (80, 48), "square": (48, 48)}
    items = []
    for seed, (name, size) in enumerate(sizes.items()):
        write_video(tmp_path / f"{name}.mp4", num_frames=6, seed=seed, size=size)
        items.append(VideoItem(digest=name, path=str(tmp_path / f"{name}.mp4"), video_id=name, duration_seconds=0.6))
        toy.add(name, "test", Annotation(label=0))
    work = _over_frames(toy, tuple(items), crops=3, window={"views": 2})
    run_items(work, toy.reporter)
    encoder = build_encoder("timm/test_resnet", outputs=("pooled",), seed=3).eval()
    config = encoder.data_config
    scale, mean, std = (32, np.array(config.mean, np.float32), np.array(config.std, np.float32))
    # resized to a short side of 32: 32 x 53, crops at int(c * 21 / 2) = 0, 10, 21
    crops = {"wide": [(0, at) for at in (0, 10, 21)], "tall": [(at, 0) for at in (0, 10, 21)], "square": [(0, 0)]}
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    for item in items:
        frames = _decoded(item)
        height, width = sizes[item.digest]
        long = int(scale * max(height, width) / min(height, width))
        resized = (long, scale) if width > height else (scale, long)
        pictures = [
            np.asarray(Image.fromarray(frame).resize(resized, filters[config.interpolation])) for frame in frames
        ]
        expected = []
        for view in ([0, 3], [2, 5]):  # tick 3, shifts 1/4 and 3/4
            of_crops = []
            for top, left in crops[item.digest]:
                x = np.stack([pictures[row][top : top + 32, left : left + 32] for row in view])
                x = ((x.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
                with torch.inference_mode():
                    rows = encoder(torch.from_numpy(np.ascontiguousarray(x)))["pooled"].numpy()
                of_crops.append(softmax(_logits(toy, rows), axis=-1))
            expected.append(np.mean(of_crops, axis=0))
        found = read_scores(toy.store.predictions(work.key), item.digest)
        np.testing.assert_allclose(found.scores, expected, atol=2e-5)
        assert found.start_row.tolist() == [0, 2]
    rows = ItemLedger(toy.store.node(work.key)).load()
    assert {digest: (row.status, row.rows) for digest, row in rows.items()} == dict.fromkeys(sizes, ("ok", 2))
    publish(work, toy.store.predictions("published"))
    found = PredictionSet(toy.store.predictions("published"))
    assert sorted(found.videos()["video_id"].to_pylist()) == sorted(f"name of {name}" for name in sizes)
    assert found.windows().num_rows == 6


def _decoded(item):
    events = source.stream_frames([item], decode=source.DecodeConfig(), frames_store=None, geometry=None, workers=1)
    return np.concatenate([event.frames for event in events if isinstance(event, source.FrameChunk)])


@pytest.mark.parametrize("is_stored", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["streamed", "stored"])
def test_only_frames_that_a_clip_needs_are_decoded_and_encoded(clipped, is_stored, monkeypatch):
    """Two rows each (of c, with 3 frames, rows 0 and 2); the scores are those over the embeddings of all."""
    toy, items = clipped
    run_items(replace(toy.predict_work(key="over embeddings", run="clips"), items=items), toy.reporter)
    work = _over_frames(toy, items)
    if is_stored:
        stored = InputRef(node="frames", stage="decode", key="frames", config={"workers": 1})
        decode_items(
            replace(work, node="frames", stage="decode", key="frames", config={"workers": 1}, inputs={}), toy.reporter
        )
        work = replace(work, inputs={**work.inputs, "frames": (stored,)})
    encoded, decoded = [], []
    submit, chunk = ForwardPass.submit, source._chunk
    monkeypatch.setattr(ForwardPass, "submit", lambda self, x, mask: (encoded.append(len(x)), submit(self, x, mask))[1])

    def counted(event):
        found = chunk(event)
        decoded.append(len(found.frames))
        return found

    monkeypatch.setattr(source, "_chunk", counted)
    run_items(work, toy.reporter)
    assert sum(encoded) == sum(decoded) == 2 * len(items)
    for digest, num_frames in LENGTHS.items():
        one, other = (read_scores(toy.store.predictions(key), digest) for key in ("over embeddings", work.key))
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
        assert one.start_row.tolist() == other.start_row.tolist()
        assert one.stop_row.tolist() == other.stop_row.tolist()
        np.testing.assert_array_equal(one.num_windows, other.num_windows)
        assert len(other.spans.start_seconds) == num_frames
        np.testing.assert_allclose(one.spans.start_seconds, other.spans.start_seconds)
        np.testing.assert_array_equal(one.spans.source_stop, other.spans.source_stop)


@pytest.mark.slow
def test_a_damaged_video_is_predicted_from_all_frames_that_are_left(clipped, tmp_path):
    """Which rows the clips take follows from how many there are, and that is known only at the end."""
    toy, _ = clipped
    write_video(tmp_path / "long.mp4", num_frames=40, seed=7)
    content = bytearray((tmp_path / "long.mp4").read_bytes())
    start = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 4
    content[start : start + 400] = bytes(400)
    (tmp_path / "long.mp4").write_bytes(content)
    item = VideoItem(digest="long", path=str(tmp_path / "long.mp4"), video_id="long", duration_seconds=4.0)
    toy.add("long", "test", Annotation(label=0))
    everything, needed = _over_frames(toy, (item,), key="all"), _over_frames(toy, (item,), key="needed")
    run_items(replace(everything, config={**everything.config, "window": {"views": 400}}), toy.reporter)
    run_items(replace(needed, config={**needed.config, "window": {"views": 2}}), toy.reporter)
    rows = {key: ItemLedger(toy.store.node(key)).load()["long"] for key in ("all", "needed")}
    assert {row.status for row in rows.values()} == {"truncated"}
    one, other = (read_scores(toy.store.predictions(key), "long") for key in ("all", "needed"))
    assert 0 < len(one.spans.start_seconds) == len(other.spans.start_seconds) < 40
    np.testing.assert_array_equal(one.spans.source_start, other.spans.source_start)


def test_settings_that_are_not_used_are_in_no_key():
    plain = PredictConfig(run="train")
    assert plain.spec().keys() == {"window"}
    assert PredictConfig(run="train", window={"views": 1}).spec().keys() == {"window"}
    assert PredictConfig(run="train", window={"views": 2}).spec()["merged"] == "distinct views"
    cropped = PredictConfig(run="train", frames="frames", crops=3).spec()
    assert plain.spec()["window"].keys() == {"dilation", "hop", "length", "short", "to_end", "views"}
    assert PredictConfig(run="train", frames="frames", precision="bf16").spec()["precision"] == "bf16"
    assert cropped == {"crops": 3, "short_side": None, "window": plain.spec()["window"]}


REFUSED = {
    "of embeddings": ({"embeddings": ["emb"], "crops": 3}, "crops and short_side are of frames, embeddings have none"),
    "no precision": ({"embeddings": ["emb"], "precision": "bf16"}, "precision is of encoders of frames; predict from"),
    "no crop": ({"frames": "frames", "crops": 0}, "crops: 0 is not allowed"),
    "slid and viewed": ({"window": {"sampling": "grid", "views": 2}}, "sampling: grid slides windows, but views and"),
    "no side": ({"frames": "frames", "short_side": 0}, "short_side: 0 is not allowed"),
}


@pytest.mark.parametrize(("config", "match"), REFUSED.values(), ids=REFUSED)
def test_refused(config, match):
    with pytest.raises(ConfigError, match=match):
        parse_config(PredictConfig, {"run": "train", **config}, where="predict")


def test_what_the_encoder_cannot_take_is_refused():
    square = DataConfig(
        size=(32, 32), resize=40, interpolation="bicubic", antialias=True, crop="center", mean=(0, 0, 0), std=(1, 1, 1)
    )
    wide = replace(square, size=(32, 48))
    assert Crops.of(square, num_crops=3, short_side=None, where="p").short_side == 32
    assert Crops.of(square, num_crops=3, short_side=None, where="p").geometry(square).resize_with == "pillow"
    by_torch = replace(square, resize_with="torch")
    assert Crops.of(by_torch, num_crops=3, short_side=None, where="p").geometry(by_torch).resize_with == "torch"
    with pytest.raises(ConfigError, match="p: short_side: 31 is not allowed: the encoder sees 32 pixels"):
        Crops.of(square, num_crops=3, short_side=31, where="p")
    with pytest.raises(ConfigError, match="p: crops are square, but the encoder sees 32 x 48"):
        Crops.of(wide, num_crops=3, short_side=None, where="p")


def test_crops_need_frames_where_the_run_has_embeddings(toy):
    toy.pulses("d0", "train", num_rows=12)
    run(toy.train_work(epochs=1, model={"name": "linear"}), toy.reporter)
    work = toy.predict_work()
    with pytest.raises(ConfigError, match=r"crops and short_side are of frames, and there are none\. Give frames"):
        run_items(replace(work, config={"run": "train", "crops": 3}), toy.reporter)
    read = parse_config(PredictConfig, {"run": "train", "short_side": 40}, where="predict")
    trained = parse_config(TrainConfig, {"embeddings": ["emb"]}, where="train")
    with pytest.raises(ConfigError, match="'train' was trained on embeddings, which are predicted from"):
        read.complete({"train": trained}, where="predict")


def test_scores_of_nan_stop_the_prediction(toy):
    """Weights that are damaged on disk would be an answer else."""
    toy.pulses("d0", "train", num_rows=12)
    run(toy.train_work(epochs=1, model={"name": "linear"}), toy.reporter)
    weights = RunFolder(toy.store.run("run")).weights
    save_file({name: value * float("nan") for name, value in load_file(weights).items()}, weights)
    with pytest.raises(StageError, match="the scores of run run are NaN: its weights are damaged"):
        run_items(toy.predict_work(), toy.reporter)
