"""Prediction over frames: the same scores as over stored embeddings, every frame encoded once."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from reelwright.models.encoders import build_encoder
from reelwright.stages.embed.forward import ForwardPass
from reelwright.stages.embed.work import run_items as embed_items
from reelwright.stages.predict.work import publish, run_items
from reelwright.stages.train.work import run
from reelwright.stages.work import InputRef, VideoItem, Work
from reelwright.storage.annotations import Annotation
from reelwright.storage.errors import ConfigError
from reelwright.storage.items import ItemLedger
from reelwright.storage.predictions import PredictionSet
from reelwright.storage.runs import RunFolder
from reelwright.storage.scores import read_scores

FRAMES = InputRef(node="frames", stage="decode", key="frames", config={"materialize": False, "workers": 1})
EMBED = {
    "frames": "frames",
    "encoder": "timm/test_resnet",
    "weights": "none",
    "seed": 3,
    "preprocess": {"size": [32, 32]},
    "batch_size": 8,
    "channels_last": False,
    "device": "cpu",
    "dtype": "float32",
}
LENGTHS = {"a": 9, "b": 14, "c": 3}


def _write_video(path, *, num_frames, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 64, 48, "yuv420p", Fraction(1, 10)
        for number in range(num_frames):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.roll(picture, 3 * number, axis=1), format="rgb24"))
            )
        container.mux(stream.encode())


@pytest.fixture
def filmed(toy, tmp_path):
    """Three videos with embeddings and a run `run` trained on them; (toy, items)."""
    items = []
    for seed, (digest, num_frames) in enumerate(LENGTHS.items()):
        _write_video(tmp_path / f"{digest}.mp4", num_frames=num_frames, seed=seed)
        items.append(
            VideoItem(digest=digest, path=str(tmp_path / f"{digest}.mp4"), video_id=digest, duration_seconds=1.0)
        )
        toy.add(digest, "train", Annotation(times=((0.0, 0), (0.3, 1))), video_id=digest)
    work = Work(
        node="emb", stage="embed", key="emb", config=EMBED, spec={}, store=str(toy.root),
        inputs={"frames": (FRAMES,)}, items=tuple(items),
    )  # fmt: skip
    embed_items(work, toy.reporter)
    run(toy.train_work(window={"length": 4}, epochs=1), toy.reporter)
    return toy, tuple(items)


def _over_frames(toy, items, **config):
    """The predict node over frames, of the run that was trained on `emb`."""
    embedding = InputRef(node="emb", stage="embed", key="emb", config=EMBED, inputs={"frames": (FRAMES,)})
    run_ref = InputRef(node="train", stage="train", key="run", inputs={"embeddings": (embedding,)})
    work = toy.predict_work(key="over frames")
    settings = {"run": "train", "frames": "frames", "device": "cpu", "frame_batch_size": 4, **config}
    return replace(work, config=settings, inputs={"run": (run_ref,), "frames": (FRAMES,)}, items=items)


def _assert_same(toy, first, second):
    for digest, num_frames in LENGTHS.items():
        one, other = (read_scores(toy.store.predictions(key), digest) for key in (first, second))
        assert len(one.start_row) == max(1, num_frames - 3)
        np.testing.assert_array_equal(one.stop_row, other.stop_row)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
        np.testing.assert_allclose(one.spans.stop_seconds, other.spans.stop_seconds)


def test_frames_give_the_scores_of_their_embeddings_and_are_encoded_once(filmed, monkeypatch):
    toy, items = filmed
    run_items(replace(toy.predict_work(key="over embeddings"), items=items), toy.reporter)
    encoded = []
    submit = ForwardPass.submit

    def counted(self, frames):
        encoded.append(len(frames))
        return submit(self, frames)

    monkeypatch.setattr(ForwardPass, "submit", counted)
    work = _over_frames(toy, items)
    run_items(work, toy.reporter)
    assert sum(encoded) == sum(LENGTHS.values())
    _assert_same(toy, "over embeddings", "over frames")
    publish(work, toy.store.predictions("published"))
    assert PredictionSet(toy.store.predictions("published")).rows().num_rows == 6 + 11 + 1


@pytest.mark.slow
def test_a_finetune_run_uses_its_own_encoder(filmed):
    """The run's spatial part is the very encoder of `emb`, so the scores must be those over `emb`."""
    toy, items = filmed
    run_items(replace(toy.predict_work(key="over embeddings"), items=items), toy.reporter)
    trained, tuned = RunFolder(toy.store.run("run")), RunFolder(toy.store.run("tuned"))
    tuned.write_config({**trained.config(), "stage": "finetune", "key": "tuned", "spatial": EMBED})
    temporal = {f"temporal.{name}": value for name, value in load_file(trained.weights).items()}
    encoder = build_encoder("timm/test_resnet", outputs=("pooled",), seed=3)
    spatial = {f"spatial.{name}": value.contiguous() for name, value in encoder.state_dict().items()}
    save_file({**spatial, **temporal}, tuned.weights)
    work = _over_frames(toy, items)
    run_ref = InputRef(node="tune", stage="finetune", key="tuned")
    run_items(replace(work, inputs={"run": (run_ref,), "frames": (FRAMES,)}), toy.reporter)
    _assert_same(toy, "over embeddings", "over frames")


def test_a_broken_video_is_a_row_and_the_others_are_scored(filmed, tmp_path):
    toy, items = filmed
    (tmp_path / "text.mp4").write_text("no video")
    broken = VideoItem(digest="broken", path=str(tmp_path / "text.mp4"), video_id="text", duration_seconds=1.0)
    run_items(_over_frames(toy, (broken, *items)), toy.reporter)
    rows = ItemLedger(toy.store.node("over frames")).load()
    assert {digest: row.status for digest, row in rows.items()} == {
        "broken": "failed", "a": "ok", "b": "ok", "c": "ok",
    }  # fmt: skip
    assert rows["broken"].message
    assert rows["a"].backend


@pytest.mark.slow
def test_a_run_on_two_embeddings_cannot_see_frames(filmed):
    toy, items = filmed
    work = _over_frames(toy, items)
    (ref,) = work.inputs["run"]
    two = replace(ref, inputs={"embeddings": ref.inputs["embeddings"] * 2})
    with pytest.raises(ConfigError, match="trained on 2 embeddings; over frames there must be one"):
        run_items(replace(work, inputs={**work.inputs, "run": (two,)}), toy.reporter)
