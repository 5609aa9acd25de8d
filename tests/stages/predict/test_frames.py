"""Prediction over frames: the same scores as over stored embeddings, every frame encoded once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reelwright.models.encoders.build import build_encoder
from reelwright.stages.base.work import InputRef, VideoItem
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.stages.embed.encoding.forward import ForwardPass
from reelwright.stages.predict import frames
from reelwright.stages.predict.config import PredictWindowSettings
from reelwright.stages.predict.loaded_run import LoadedRun, VideoRows
from reelwright.stages.predict.scorer import Scorer
from reelwright.stages.predict.work import publish, run_items
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import ConfigError
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.results.predictions import PredictionSet
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.results.scores import read_scores

from .conftest import EMBED, FRAMES, LENGTHS, over_frames

WINDOW = {"length": 3, "hop": 1, "dilation": 1, "short": "pad", "to_end": False}  # as config.yaml has it


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

    def counted(self, frames, mask):
        encoded.append(len(frames))
        return submit(self, frames, mask)

    monkeypatch.setattr(ForwardPass, "submit", counted)
    work = over_frames(toy, items)
    run_items(work, toy.reporter)
    assert sum(encoded) == sum(LENGTHS.values())
    _assert_same(toy, "over embeddings", "over frames")
    publish(work, toy.store.predictions("published"))
    assert PredictionSet(toy.store.predictions("published")).rows().num_rows == 6 + 11 + 1


@pytest.mark.slow
def test_frames_are_encoded_at_the_precision_that_is_asked_for(filmed):
    toy, items = filmed
    for precision in (None, "bf16"):
        run_items(replace(over_frames(toy, items[:1], precision=precision), key=f"at {precision}"), toy.reporter)
    plain, rough = (
        read_scores(toy.store.predictions(f"at {precision}"), items[0].digest).scores for precision in (None, "bf16")
    )
    np.testing.assert_allclose(plain, rough, atol=0.05)
    assert not np.array_equal(plain, rough)


@pytest.mark.parametrize(("given", "used"), [("folded", "auto"), ("eager", "eager")])
def test_a_runtime_that_embed_was_given_is_not_forced_on_other_settings(filmed, monkeypatch, given, used):
    """One that computes fp32 on CPUs would leave out precision and deterministic without a word, and refuse a GPU."""
    toy, items = filmed
    seen = []

    class StopError(Exception):
        pass

    def prepare(_loaded, config, **_options):
        seen.append((config.runtime, config.precision, config.deterministic))
        raise StopError

    monkeypatch.setattr(frames, "prepare_forward", prepare)
    work = over_frames(toy, items[:1], precision="bf16", deterministic=True)
    (run,) = work.inputs["run"]
    (embed,) = run.inputs["embeddings"]
    run = replace(run, inputs={"embeddings": (replace(embed, config={**embed.config, "runtime": given}),)})
    with pytest.raises(StopError):
        run_items(replace(work, key=f"runtime {given}", inputs={**work.inputs, "run": (run,)}), toy.reporter)
    assert seen == [(used, "bf16", True)]


def test_a_network_that_sees_clips_computes_at_the_precision_that_is_asked_for():
    network = torch.nn.Linear(8, 2)
    seen = []

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = network

        def forward(self, batch):
            logits = self.layer(batch["rows"].mean(1))
            seen.append(logits.dtype)
            return {"logits": logits}

    run = LoadedRun(
        module=Network(), key="run", stage="train", task=build_task("video", LabelSpace(classes=("a", "b"))),
        output="pooled", row_shape=(8,), keeps_positions=False, window=WINDOW, clips={"sampling": "grid"},
    )  # fmt: skip
    rows = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    numbers = np.arange(6)
    video = VideoRows("d", rows, Spans(numbers / 1.0, numbers + 1.0, numbers, numbers + 1))
    scores = {}
    for precision in ("fp32", "bf16"):
        scorer = Scorer(run, PredictWindowSettings(), batch_size=4, precision=precision)
        seen.clear()
        scores[precision] = scorer.score([video])[0].scores
        assert set(seen) == {torch.float32 if precision == "fp32" else torch.bfloat16}
        assert scores[precision].dtype == np.float32
        scorer._num_behind = 1  # as on a GPU: read while the next batch is computed
        np.testing.assert_array_equal(scorer.score([video])[0].scores, scores[precision])
    np.testing.assert_allclose(scores["fp32"], scores["bf16"], atol=0.02)
    assert not np.array_equal(scores["fp32"], scores["bf16"])


@pytest.mark.parametrize("over", ["embeddings", pytest.param("frames", marks=pytest.mark.slow)])
def test_deterministic_scores_hang_neither_on_threads_nor_on_other_videos(filmed, over, threads, monkeypatch):
    toy, items = filmed
    scored, score = [], Scorer.score
    monkeypatch.setattr(Scorer, "score", lambda self, videos: scored.append(len(videos)) or score(self, videos))
    if over == "frames":
        work = over_frames(toy, items, deterministic=True, frame_batch_size=None)
    else:
        work = toy.predict_work(deterministic=True)
    threads(1)
    run_items(replace(work, key="together", items=items), toy.reporter)
    threads(4)
    for item in items[::-1]:
        run_items(replace(work, key="apart", items=(item,)), toy.reporter)
    for digest in LENGTHS:
        together, apart = (read_scores(toy.store.predictions(key), digest) for key in ("together", "apart"))
        np.testing.assert_array_equal(together.scores, apart.scores)
    assert scored == [1] * 6  # the model of this test is too small for its bits to tell
    assert not (toy.store.root / "tuning").exists()


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
    work = over_frames(toy, items)
    run_ref = InputRef(node="tune", stage="finetune", key="tuned")
    run_items(replace(work, inputs={"run": (run_ref,), "frames": (FRAMES,)}), toy.reporter)
    _assert_same(toy, "over embeddings", "over frames")


def test_a_broken_video_is_a_row_and_the_others_are_scored(filmed, tmp_path):
    toy, items = filmed
    (tmp_path / "text.mp4").write_text("no video")
    broken = VideoItem(digest="broken", path=str(tmp_path / "text.mp4"), video_id="text", duration_seconds=1.0)
    run_items(over_frames(toy, (broken, *items)), toy.reporter)
    rows = ItemLedger(toy.store.node("over frames")).load()
    assert {digest: row.status for digest, row in rows.items()} == {
        "broken": "failed", "a": "ok", "b": "ok", "c": "ok",
    }  # fmt: skip
    assert rows["broken"].message
    assert rows["a"].backend


@pytest.mark.slow
def test_a_run_on_two_embeddings_cannot_see_frames(filmed):
    toy, items = filmed
    work = over_frames(toy, items)
    (ref,) = work.inputs["run"]
    two = replace(ref, inputs={"embeddings": ref.inputs["embeddings"] * 2})
    with pytest.raises(ConfigError, match="trained on 2 embeddings; over frames there must be one"):
        run_items(replace(work, inputs={**work.inputs, "run": (two,)}), toy.reporter)
