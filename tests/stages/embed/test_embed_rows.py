"""Rows that a run makes of stored rows: against a plain loop, in pieces, joined, resumed, failing, refused."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from reelwright.models.blocks.weights import state_digest
from reelwright.models.systems.carl_embedders import stretched_positions
from reelwright.stages.base.work import InputRef, SilentReporter, VideoItem, Work
from reelwright.stages.embed.row_outputs import PieceSettings
from reelwright.stages.embed_rows.pieces import joined, pieces_of
from reelwright.stages.embed_rows.work import run_items
from reelwright.stages.fit.loop.checkpoints import save_weights
from reelwright.stages.fit.run_models import build_run_model
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.results.runs import RunFolder
from tests.stages.conftest import Toy, even_spans

SMALL = {"hidden": 12, "width": 16, "heads": 2, "mlp_width": 16, "layers": 2, "embed_dim": 6, "projection": False}
DIM, LENGTH = 5, 8


def save_run(toy: Toy, key: str = "run", *, stores: tuple[str, ...] = ("emb",), **model: Any) -> torch.nn.Module:
    """A run of random weights, as train leaves it; the model in eval mode."""
    values = {
        "name": "carl",
        "options": SMALL,
        "input_dim": DIM * len(stores),
        "num_outputs": None,
        "length": LENGTH,
        "per_row": True,
        **model,
    }
    net = build_run_model(values, plugins={}, seed=1)
    inputs = [{"node": store, "stage": "embed", "key": store, "config": {}, "inputs": {}} for store in stores]
    folder = RunFolder(toy.store.run(key))
    folder.write_config(
        {
            "stage": "train",
            "node": "carl",
            "key": key,
            "output": "pooled",
            "model": values,
            "inputs": {"embeddings": inputs},
        }
    )
    save_weights(folder.weights, net)
    return net.eval()


def rows_of(num_rows: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_rows, dim)).astype(np.float32)


def work_of(toy: Toy, *digests: str, key: str = "out", stores: tuple[str, ...] = ("emb",), **config: Any) -> Work:
    settings = {"embeddings": list(stores), "run": "carl", "dtype": "float32", "device": "cpu", **config}
    return Work(
        node="aligned",
        stage="embed",
        key=key,
        config=settings,
        spec={"stage": "embed"},
        store=str(toy.root),
        inputs={
            "run": (InputRef(node="carl", stage="train", key="run"),),
            "embeddings": tuple(InputRef(node=store, stage="embed", key=store) for store in stores),
        },
        items=tuple(VideoItem(digest=digest, path="", video_id=f"name of {digest}") for digest in digests),
    )


def embed(toy: Toy, *digests: str, **how: Any) -> dict[str, np.ndarray]:
    """The rows of each video that has some."""
    work = work_of(toy, *digests, **how)
    run_items(work, SilentReporter())
    store = EmbeddingStore(toy.store.embeddings(work.key))
    return {digest: store.rows(digest).output("pooled") for digest in digests if digest in store}


def plain(net: torch.nn.Module, rows: np.ndarray, **batch: torch.Tensor) -> np.ndarray:
    """What a user's loop gives: the whole video in one forward pass."""
    with torch.inference_mode():
        found = net({"rows": torch.from_numpy(rows)[None], "mask": torch.ones(1, len(rows), dtype=torch.bool), **batch})
    return found["embedding"][0].numpy()


@pytest.mark.parametrize("num_rows", [1, 2, LENGTH, 37])
def test_a_whole_video_is_one_forward_pass(toy, num_rows):
    net, rows = save_run(toy), rows_of(num_rows)
    toy.write("emb", "a", rows, spans=even_spans(num_rows, seconds=0.25, first=3.0))
    assert np.array_equal(embed(toy, "a")["a"], plain(net, rows))
    spans = EmbeddingStore(toy.store.embeddings("out")).rows("a").spans
    assert np.array_equal(spans.start_seconds, 3 + np.arange(num_rows) * 0.25)
    assert np.array_equal(spans.source_stop, np.arange(num_rows) + 1)


def test_nothing_hangs_on_what_else_is_embedded(toy):
    save_run(toy)
    for number, digest in enumerate("abc"):
        toy.write("emb", digest, rows_of(20 + number, seed=number))
    together = embed(toy, *"abc", key="together")
    for digest in "cab":
        assert np.array_equal(embed(toy, digest, key="apart")[digest], together[digest])


def test_several_embeddings_are_joined_by_time(toy):
    net = save_run(toy, stores=("emb", "slow"))
    rows, slow = rows_of(20), rows_of(5, seed=1)
    toy.write("emb", "a", rows, spans=even_spans(20, seconds=0.5))
    toy.write("slow", "a", slow, spans=even_spans(5, seconds=2.0))
    wanted = np.concatenate([rows, slow.repeat(4, axis=0)], axis=1)
    assert np.array_equal(embed(toy, "a", stores=("emb", "slow"))["a"], plain(net, wanted))
    pieces = {"length": 8, "overlap": 4}
    in_pieces = embed(toy, "a", stores=("emb", "slow"), key="pieces", pieces=pieces)["a"]
    toy.write("joined", "a", wanted, spans=even_spans(20))
    save_run(toy, stores=("joined",), input_dim=2 * DIM)
    assert np.array_equal(in_pieces, embed(toy, "a", stores=("joined",), key="joined pieces", pieces=pieces)["a"])


@pytest.mark.parametrize("overlap", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("length", [1, 2, 3, 16, 17])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 16, 17, 18, 31, 64, 1000])
def test_pieces_cover_every_row_once_and_fade_inside_their_overlap(num_rows, length, overlap):
    overlap = min(overlap, length // 2)
    pieces = pieces_of(num_rows, length=length, overlap=overlap)
    assert (pieces[0].start, pieces[-1].stop, pieces[0].taken, pieces[-1].end) == (0, num_rows, 0, num_rows)
    assert all(piece.stop - piece.start == min(length, num_rows) for piece in pieces)
    for piece, after in pairwise(pieces):
        assert piece.stop - after.start >= overlap
        assert (piece.fade_out, piece.end - piece.fade_out) == (after.taken, overlap // 2)
        assert after.taken - after.start >= overlap // 4
        assert piece.stop - piece.end >= overlap // 4
        assert after.taken + overlap // 2 <= after.fade_out
    rows = np.arange(num_rows, dtype=np.float32)[:, None] + 1
    parts = list(joined(((p, {"x": rows[p.start : p.stop]}) for p in pieces), of_length=frozenset(["x"])))
    assert [start for start, _ in parts] == [piece.taken for piece in pieces]
    assert np.array_equal(np.concatenate([part["x"] for _, part in parts]), rows)


def test_where_pieces_differ_one_goes_over_into_the_other_at_unit_length():
    pieces = pieces_of(10, length=6, overlap=2)
    angle = np.zeros(6), np.full(6, np.pi / 2)
    outputs = [{"x": np.stack([np.cos(a), np.sin(a)], axis=1).astype(np.float32)} for a in angle]
    rows = np.concatenate([part["x"] for _, part in joined(zip(pieces, outputs, strict=True), of_length={"x"})])
    half = np.sqrt(0.5)
    assert np.allclose(rows, [[1, 0]] * 4 + [[half, half]] + [[0, 1]] * 5)
    plain_mean = [part["x"] for _, part in joined(zip(pieces, outputs, strict=True), of_length=frozenset())]
    assert np.allclose(np.concatenate(plain_mean)[4], [0.5, 0.5])


def test_a_piece_has_the_positions_of_the_whole_video(toy):
    net, rows = save_run(toy), rows_of(23)
    toy.write("emb", "a", rows)
    found = embed(toy, "a", pieces={"length": 12, "overlap": 0})["a"]
    positions = stretched_positions(torch.ones(1, 23, dtype=torch.bool), LENGTH)
    assert positions[0, -1] == LENGTH - 1
    parts = [plain(net, rows[part], positions=positions[:, part]) for part in (slice(0, 12), slice(11, 23))]
    assert np.allclose(found, np.concatenate([parts[0][:11], parts[1]]), atol=1e-6)
    restarted = plain(net, rows[11:])
    assert np.abs(restarted - parts[1]).max() > 0.05, "positions matter to this model"


def test_pieces_of_a_model_that_sees_only_near_rows_are_exact(toy):
    """vanilla sees each row alone; with contexts also those before it, which come from outside the piece."""
    options = {name: SMALL[name] for name in ("hidden", "embed_dim", "projection")}
    net = save_run(toy, name="vanilla", options={**options, "contexts": 3})
    folder = RunFolder(toy.store.run("run"))
    folder.write_config({**folder.config(), "views": {"context_stride": 2}})
    rows = rows_of(40)
    toy.write("emb", "a", rows)
    whole = embed(toy, "a", key="whole")["a"]
    contexts = np.maximum(np.arange(40)[:, None] + np.array([-4, -2, 0]), 0).reshape(-1)
    with torch.inference_mode():
        batch = {"rows": torch.from_numpy(rows[contexts])[None], "mask": torch.ones(1, 40, dtype=torch.bool)}
        assert np.array_equal(whole, net(batch)["embedding"][0].numpy())
    assert np.allclose(whole, embed(toy, "a", key="pieces", pieces={"length": 7, "overlap": 2})["a"], atol=1e-6)


def test_a_model_behind_stored_maps_sees_the_first_view_of_each(toy):
    options = {"source": "maps", "network": "resnet18", "split": 3, "conv_width": 8, "conv_layers": 1, "hidden": 8}
    net = save_run(toy, name="conv", options={**options, "contexts": 2, "embed_dim": 4}, input_dim=256)
    folder = RunFolder(toy.store.run("run"))
    folder.write_config({**folder.config(), "output": "layer3.map"})
    maps = np.random.default_rng(0).normal(size=(9, 2, 256, 3, 4)).astype(np.float16)
    toy.write("emb", "a", maps, name="layer3.map")
    zarr.open_group(toy.store.embeddings("emb"), mode="r+").attrs["views"] = 2
    found = embed(toy, "a", pieces={"length": 5, "overlap": 2})["a"]
    places = np.maximum(np.arange(9)[:, None] + np.array([-1, 0]), 0).reshape(-1)
    wanted = plain(net, maps[places, 0].astype(np.float32), mask=torch.ones(1, 9, dtype=torch.bool))
    assert np.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("shard_rows", [8, 16, 100])
def test_an_interrupted_video_goes_on_at_its_first_missing_shard_with_the_same_rows(toy, monkeypatch, shard_rows):
    save_run(toy)
    toy.write("emb", "a", rows_of(61))
    how = {"pieces": {"length": 12, "overlap": 6}, "shard_rows": shard_rows, "deterministic": True}
    whole = embed(toy, "a", key="whole", **how)["a"]
    written, write = [], EmbeddingWriter.write_shard

    def dying(self, digest, index, **values):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(index)
        write(self, digest, index, **values)

    monkeypatch.setattr(EmbeddingWriter, "write_shard", dying)
    if shard_rows < 32:
        with pytest.raises(KeyboardInterrupt):
            embed(toy, "a", **how)
    written.clear()
    monkeypatch.setattr(
        EmbeddingWriter, "write_shard", lambda *args, **values: written.append(args[2]) or write(*args, **values)
    )
    assert np.array_equal(embed(toy, "a", **how)["a"], whole)
    assert written == list(range(2 if shard_rows < 32 else 0, -(-61 // shard_rows)))


def test_videos_without_rows_or_with_bad_ones_fail_alone(toy):
    save_run(toy)
    bad = rows_of(10)
    bad[7, 2] = np.nan
    for digest, rows in (("a", rows_of(4)), ("bad", bad)):
        toy.write("emb", digest, rows)
    assert set(embed(toy, "gone", "bad", "a")) == {"a"}
    ledger = ItemLedger(toy.store.node("out")).load()
    assert {digest: row.cause for digest, row in ledger.items() if not row.is_done} == {
        "gone": "no_embeddings",
        "bad": "not_finite",
    }
    assert "row 7 of its embeddings" in ledger["bad"].message
    assert ledger["a"].rows == 4


def test_other_outputs_have_their_own_names(toy):
    save_run(toy, num_outputs=3)
    toy.write("emb", "a", rows_of(9))
    work = work_of(toy, "a", outputs=["pooled", "logits"], pieces={"length": 5, "overlap": 2})
    run_items(work, SilentReporter())
    stored = EmbeddingStore(toy.store.embeddings("out"))
    assert stored.spec["outputs"] == {"pooled": [6], "logits": [3]}
    assert stored.rows("a").output("logits").shape == (9, 3)
    assert np.allclose(np.linalg.norm(stored.rows("a").output("pooled"), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "config", "match"),
    [
        ({"name": "gru", "options": {}, "num_outputs": 2}, {}, "gives no embedding of each row.*it gives logits"),
        (
            {"name": "gru", "options": {}, "num_outputs": 2, "per_row": False},
            {"outputs": ["logits"]},
            "gives no logits of each row.*none for rows",
        ),
        ({"input_dim": 7}, {}, "trained on rows of 7 features, these have 5"),
        (
            {"name": "transformer", "options": {"width": 8, "heads": 1, "positions": "learned"}, "num_outputs": 2},
            {"outputs": ["logits"], "pieces": {"length": 20}},
            "transformer of run carl does not take 20 rows at once.*Set pieces.length",
        ),
        ({"name": "vanilla", "options": {"source": "frames", "network": "resnet18"}}, {}, "reads frames and not rows"),
    ],
)
def test_runs_that_make_no_such_rows_are_refused(toy, model, config, match):
    save_run(toy, **model)
    toy.write("emb", "a", rows_of(30))
    with pytest.raises(ConfigError, match=match):
        embed(toy, "a", **config)
    assert not toy.store.embeddings("out").exists()


def test_rows_of_another_encoder_are_refused(toy):
    save_run(toy)
    toy.write("emb", "a", rows_of(5))
    toy.write("other", "a", rows_of(5))
    for key, weights in (("emb", "one"), ("other", "two")):
        group = zarr.open_group(toy.store.embeddings(key), mode="r+")
        group.attrs.update({"encoder": "timm/test_vit", "weights_digest": weights})
    with pytest.raises(
        ConfigError, match=r"other has rows of timm/test_vit, weights two; run carl was trained on.*one"
    ):
        embed(toy, "a", stores=("other",))
    zarr.open_group(toy.store.embeddings("other"), mode="r+").attrs["weights_digest"] = "one"
    assert set(embed(toy, "a", stores=("other",))) == {"a"}, "the same encoder on other frames"
    with pytest.raises(ConfigError, match=r"trained on 1 embeddings \(emb\), these are 2"):
        embed(toy, "a", stores=("emb", "other"))


def test_runs_of_rows_apart_are_refused(toy):
    save_run(toy)
    toy.write("emb", "a", rows_of(5))
    folder = RunFolder(toy.store.run("run"))
    folder.write_config({**folder.config(), "window": {"length": 8, "dilation": 3}})
    with pytest.raises(ConfigError, match="trained on rows 3 apart"):
        embed(toy, "a")


def test_a_finetune_run_reads_the_rows_of_its_own_encoder(toy):
    net = save_run(toy)
    folder = RunFolder(toy.store.run("run"))
    folder.write_config({**folder.config(), "stage": "finetune", "inputs": {"spatial": []}})
    encoder = torch.nn.Linear(2, 2)
    spatial = torch.nn.ModuleDict({"model": encoder})
    save_weights(folder.weights, torch.nn.ModuleDict({"temporal": net, "spatial": spatial}))
    rows = rows_of(9)
    toy.write("emb", "a", rows)
    with pytest.raises(ConfigError, match="reads the rows of the run's own encoder, not emb"):
        embed(toy, "a")
    zarr.open_group(toy.store.embeddings("emb"), mode="r+").attrs["weights_digest"] = state_digest(encoder.state_dict())
    assert np.array_equal(embed(toy, "a")["a"], plain(net, rows))


def test_an_overlap_of_more_than_half_is_refused():
    with pytest.raises(ValueError, match="overlap 6 is more than half of length 10"):
        PieceSettings(length=10, overlap=6)


def test_pooled_rows_of_a_frozen_encoder_are_not_taken_for_those_behind_the_layers_of_a_run(toy):
    """The run's own embed of frames stores as pooled what its last layers give; the encoder alone gives its own."""
    options = {name: SMALL[name] for name in ("hidden", "embed_dim", "projection")}
    net = save_run(toy, name="vanilla", options={**options, "source": "maps", "network": "resnet18"}, input_dim=256)
    folder = RunFolder(toy.store.run("run"))
    folder.write_config({**folder.config(), "stage": "finetune", "output": "layer3.map", "inputs": {"spatial": []}})
    encoder = torch.nn.Linear(2, 2)
    spatial = torch.nn.ModuleDict({"model": encoder})
    save_weights(folder.weights, torch.nn.ModuleDict({"temporal": net, "spatial": spatial}))
    toy.write("emb", "a", rows_of(4, dim=512))
    zarr.open_group(toy.store.embeddings("emb"), mode="r+").attrs["weights_digest"] = state_digest(encoder.state_dict())
    with pytest.raises(ConfigError, match="reads the rows of the run's own encoder, not emb"):
        embed(toy, "a")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_video(toy):
    """100,000 rows are 25 MB; seen piece by piece, and written shard by shard."""
    options = {name: SMALL[name] for name in ("hidden", "embed_dim", "projection")}
    save_run(toy, name="vanilla", options=options, input_dim=64)
    peaks = []
    for digest, num_rows in (("first", 10), ("short", 10_000), ("long", 100_000)):  # the first one imports
        toy.write("emb", digest, rows_of(num_rows, dim=64))
        tracemalloc.start()
        found = embed(toy, digest, key=digest)[digest]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.shape == (num_rows, SMALL["embed_dim"])
    assert peaks[2] < peaks[1] + (8 << 20)  # spans, positions and the rows that are read back here: 80 bytes a row
