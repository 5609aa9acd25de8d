"""Outputs kept beside the scores: the model's own values by window and place, from rows and frames, resumed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr

from reelwright.stages.base.plugins import find_plugin
from reelwright.stages.datasets.stored_rows import read_video
from reelwright.stages.fit.run_models import load_run_model
from reelwright.stages.predict.config import PredictConfig
from reelwright.stages.predict.work import publish, run_items
from reelwright.stages.train.work import run
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.window_outputs import WindowOutputStore
from reelwright.storage.errors import ConfigError, StageError, StoreError
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.results.predictions import PredictionSet
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.results.scores import kept_outputs, read_scores
from tests.stages.predict.conftest import LENGTHS, over_frames

STAGES = {"name": "ms_tcn", "stages": 2, "layers": 2}
LOOKER = """
import torch
from torch import nn
from reelwright.models.temporal.common import TemporalModel, pool_mean, zero_padding


class Looker(TemporalModel):
    '''Weights rows by a gate; its maps are the first four features of a row, as a grid of 2 x 2.'''

    def __init__(self, sizes, *, scale: float = 1.0):
        super().__init__(sizes)
        self.scale = scale
        self.gate, self.head = nn.Linear(sizes.input_dim, 1), nn.Linear(sizes.input_dim, sizes.num_outputs)

    def forward(self, batch):
        x, mask = zero_padding(batch["rows"], batch["mask"]), batch["mask"]
        time = self.gate(x)[..., 0].sigmoid()
        space = self.scale * x[..., :4].unflatten(-1, (2, 2)).sigmoid()
        return {
            "logits": self.head(pool_mean(x * time[..., None], mask)),
            "attention.space": space,
            "attention.time": time,
            "embedding": pool_mean(x, mask),
        }
"""


def trained(toy, tmp_path, *, scale=1.0, **config):
    """A run of the model above; its plug-in by use."""
    (tmp_path / "looker.py").write_text(LOOKER)
    plugins = {"models:looker.py:Looker": find_plugin("models", "looker.py:Looker", folder=tmp_path).plain()}
    model = {"name": "looker.py:Looker", "scale": scale}
    work = toy.train_work(**{"epochs": 1, "task": "last_row", "model": model, **config})
    run(replace(work, plugins=plugins), toy.reporter)
    return plugins


def kept_of(toy, key="scores"):
    return WindowOutputStore(toy.store.attention(key))


def by_hand(toy, plugins, digest, rows_of_windows):
    """The outputs of the trained model for windows of rows (N, T), -1 where padded; all of one batch."""
    module, _ = load_run_model(RunFolder(toy.store.run("run")), plugins=plugins)
    values, _ = read_video([EmbeddingStore(toy.store.embeddings("emb"))], digest, output="pooled")
    index = np.array(rows_of_windows)
    with torch.inference_mode():
        return module.eval()(
            {"rows": torch.from_numpy(values).float()[np.maximum(index, 0)], "mask": torch.from_numpy(index >= 0)}
        )


def test_each_window_has_what_the_model_says_of_it(toy, tmp_path):
    for name, num_rows in {"long": 10, "short": 3}.items():
        toy.pulses(name, "train", num_rows=num_rows, seed=num_rows)
    plugins = trained(toy, tmp_path, window={"length": 4})
    keep = ["attention.time", "attention.space", "embedding"]
    work = replace(toy.predict_work(keep=keep, window={"hop": 3, "dilation": 2}, batch_size=2), plugins=plugins)
    run_items(work, toy.reporter)
    windows = {"long": [[0, 2, 4, 6], [3, 5, 7, 9]], "short": [[0, 2, -1, -1]]}
    for digest, rows in windows.items():
        found, wanted = kept_of(toy).rows(digest), by_hand(toy, plugins, digest, rows)
        mask = np.array(rows) >= 0
        assert found.num_windows == len(rows)
        assert found.places.row.tolist() == rows
        assert np.array_equal(found.mask, mask)
        assert found.places.row_seconds[mask].tolist() == (np.array(rows)[mask] * 0.5).tolist()
        assert np.array_equal(found.places.row_source[mask], np.array(rows)[mask])
        time, space = wanted["attention.time"].numpy(), wanted["attention.space"].numpy()
        np.testing.assert_allclose(found.output("attention.time"), np.where(mask, time, 0), atol=1e-6)
        np.testing.assert_allclose(found.output("attention.space")[mask], space[mask], atol=5e-4)
        assert not found.output("space")[~mask].any()
        np.testing.assert_allclose(found.output("embedding"), wanted["embedding"].numpy(), atol=1e-6)
        scores = read_scores(toy.store.predictions("scores"), digest)
        assert found.spans.start_seconds.tolist() == scores.window_columns()["start_seconds"].tolist()
        assert found.spans.stop_seconds.tolist() == scores.window_columns()["stop_seconds"].tolist()
        np.testing.assert_allclose(scores.scores, wanted["logits"].softmax(-1).numpy(), atol=1e-5)
    assert kept_of(toy).kept == ("attention.space", "attention.time", "embedding")
    row = ItemLedger(toy.store.node("scores")).load()["long"]
    assert row.rows == 2
    files = [path for path in toy.store.attention("scores").joinpath("long").rglob("*") if path.is_file()]
    tables = [toy.store.predictions("scores") / f"long{ending}" for ending in (".parquet", ".rows.parquet")]
    assert row.bytes == sum(path.stat().st_size for path in (*files, *tables))


def test_any_zarr_reader_knows_the_axes(toy, tmp_path):
    toy.pulses("d", "train", num_rows=9)
    plugins = trained(toy, tmp_path, window={"length": 4})
    run_items(replace(toy.predict_work(keep=["attention"]), plugins=plugins), toy.reporter)
    group = zarr.open_group(toy.store.attention("scores"), mode="r")
    space, time = group["d/space"], group["d/time"]
    assert (space.shape, str(space.dtype), space.metadata.dimension_names) == (
        (6, 4, 2, 2), "float16", ("window", "time", "height", "width"),
    )  # fmt: skip
    assert (time.shape, str(time.dtype), time.metadata.dimension_names) == ((6, 4), "float32", ("window", "time"))
    assert group["d/start_seconds"].metadata.dimension_names == ("window",)
    assert group.attrs["window"]["length"] == 4
    assert "embedding" not in group["d"]


def test_padded_places_of_short_videos_that_repeat_their_last_row_are_real(toy, tmp_path):
    toy.pulses("long", "train", num_rows=9)
    toy.pulses("d", "test", num_rows=3)
    plugins = trained(toy, tmp_path, window={"length": 5, "short": "repeat"})
    run_items(replace(toy.predict_work(keep=["attention"]), plugins=plugins), toy.reporter)
    found, wanted = kept_of(toy).rows("d"), by_hand(toy, plugins, "d", [[0, 1, 2, 2, 2]])
    assert found.places.row.tolist() == [[0, 1, 2, 2, 2]]
    np.testing.assert_allclose(found.output("attention.time"), wanted["attention.time"].numpy(), atol=1e-6)


@pytest.mark.parametrize("size", [1, 7, 256])
def test_shards_batches_and_company_change_nothing(toy, tmp_path, monkeypatch, size):
    """Shards of 256 bytes hold a few windows."""
    monkeypatch.setattr("reelwright.storage.arrays.embedding_writer.SHARD_BYTES", 600)
    for number, num_rows in enumerate((30, 4, 17)):
        toy.pulses(f"d{number}", "train", num_rows=num_rows, seed=number)
    plugins = trained(toy, tmp_path, window={"length": 4})
    run_items(replace(toy.predict_work(keep=["attention"], batch_size=size), plugins=plugins), toy.reporter)
    assert len(list((toy.store.attention("scores") / "d0/time/c").iterdir())) > 2
    for digest, num_rows in {"d0": 30, "d1": 4, "d2": 17}.items():
        rows = [list(range(start, start + 4)) for start in range(num_rows - 3)]
        found, wanted = kept_of(toy).rows(digest), by_hand(toy, plugins, digest, rows)
        assert found.places.row.tolist() == rows
        np.testing.assert_allclose(found.output("attention.time"), wanted["attention.time"].numpy(), atol=1e-6)
        np.testing.assert_allclose(found.output("space"), wanted["attention.space"].numpy(), atol=5e-4)
        assert found.spans.start_seconds.tolist() == [row[0] * 0.5 for row in rows]


def test_outputs_of_stages_are_kept_by_row(pulse_toy):
    run(pulse_toy.train_work(epochs=1, task="per_row", model=STAGES), pulse_toy.reporter)
    run_items(pulse_toy.predict_work(keep=["aux.stage1", "logits"]), pulse_toy.reporter)
    found = kept_of(pulse_toy).rows("d0")
    assert found.output("aux.stage1").shape == (109, 12, 2)
    assert found.row_shape("logits") == (12, 2)
    scores = read_scores(pulse_toy.store.predictions("scores"), "d0").scores
    last = torch.from_numpy(found.output("logits")[:, -1]).softmax(-1).numpy()
    np.testing.assert_allclose(last, scores, atol=1e-5)


def test_views_are_windows_of_their_own(pulse_toy, tmp_path):
    window = {"length": 4, "sampling": "segments"}
    plugins = trained(pulse_toy, tmp_path, task="video", window=window)
    run_items(
        replace(pulse_toy.predict_work(keep=["attention"], window={"views": 3}), plugins=plugins), pulse_toy.reporter
    )
    found = kept_of(pulse_toy).rows("d3")
    scores = read_scores(pulse_toy.store.predictions("scores"), "d3")
    assert found.num_windows == len(scores.scores) == 3
    wanted = by_hand(pulse_toy, plugins, "d3", found.places.row)
    np.testing.assert_allclose(found.output("attention.time"), wanted["attention.time"].numpy(), atol=1e-6)
    np.testing.assert_allclose(scores.scores, wanted["logits"].softmax(-1).numpy(), atol=1e-5)
    assert len({tuple(row) for row in found.places.row.tolist()}) == 3


def test_frames_give_what_their_rows_give(filmed):
    toy, items = filmed
    run(toy.train_work(key="stages", window={"length": 4}, epochs=1, task="per_row", model=STAGES), toy.reporter)
    keep = {"keep": ["aux.stage1"]}
    run_items(toy.predict_work(key="of rows", run="stages", **keep), toy.reporter)
    work = over_frames(toy, items, **keep)
    (reference,) = work.inputs["run"]
    work = replace(work, inputs={**work.inputs, "run": (replace(reference, key="stages"),)})
    run_items(work, toy.reporter)
    for digest, num_rows in LENGTHS.items():
        found, wanted = (kept_of(toy, key).rows(digest) for key in ("over frames", "of rows"))
        assert found.num_windows == max(1, num_rows - 3)
        np.testing.assert_array_equal(found.places.row, wanted.places.row)
        np.testing.assert_allclose(found.output("aux.stage1"), wanted.output("aux.stage1"), atol=1e-4)


def test_a_video_goes_on_where_it_was_interrupted(toy, tmp_path, monkeypatch):
    """Killed between the outputs and the scores of the second video; the next run leaves nothing half there."""
    for number in range(3):
        toy.pulses(f"d{number}", "train", num_rows=9, seed=number)
    plugins = trained(toy, tmp_path, window={"length": 4})
    work = replace(toy.predict_work(keep=["attention"], batch_size=1), plugins=plugins)
    calls = []

    def dies(folder, digest, scores, **options):
        calls.append(digest)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(folder, digest, scores, **options)

    from reelwright.stages.predict import sink

    write = sink.write_scores
    with monkeypatch.context() as patch:
        patch.setattr(sink, "write_scores", dies)
        with pytest.raises(KeyboardInterrupt):
            run_items(work, toy.reporter)
    ledger = ItemLedger(toy.store.node("scores"))
    assert ledger.done() == {"d0"}
    before = (toy.store.attention("scores") / "d0/zarr.json").stat().st_mtime_ns
    rest = tuple(item for item in work.items if item.digest not in ledger.done())
    run_items(replace(work, items=rest), toy.reporter)
    assert ledger.done() == {"d0", "d1", "d2"}
    assert (toy.store.attention("scores") / "d0/zarr.json").stat().st_mtime_ns == before
    assert sorted(path.name for path in toy.store.attention("scores").iterdir()) == ["d0", "d1", "d2", "zarr.json"]
    assert {kept_outputs(toy.store.predictions("scores"), f"d{number}") for number in range(3)} == {
        ("attention.space", "attention.time")
    }


def test_published_tables_say_where_it_lies(toy, tmp_path):
    toy.pulses("d", "train", num_rows=9)
    plugins = trained(toy, tmp_path, window={"length": 4})
    for keep in ([], ["attention.time"]):
        work = replace(toy.predict_work(key=f"{len(keep)}", keep=keep), plugins=plugins)
        run_items(work, toy.reporter)
        publish(work, toy.store.predictions("published"))
        extra = PredictionSet(toy.store.predictions("published")).info.extra
        assert extra.get("kept") == ("attention/1.zarr" if keep else None)
    assert not toy.store.attention("0").exists()


def test_unknown_outputs_are_refused_before_any_video(toy, tmp_path):
    toy.pulses("d", "train", num_rows=9)
    plugins = trained(toy, tmp_path, window={"length": 4})
    work = replace(toy.predict_work(keep=["attention.spaces"]), plugins=plugins)
    message = (
        "keep: unknown output 'attention.spaces'; allowed: attention.space, attention.time, embedding, logits; did"
    )
    with pytest.raises(ConfigError, match=message):
        run_items(work, toy.reporter)
    assert not toy.store.node("scores").exists()
    assert not toy.store.attention("scores").exists()


def test_values_that_do_not_fit_are_refused(toy, tmp_path):
    toy.pulses("d", "train", num_rows=9)
    plugins = trained(toy, tmp_path, window={"length": 4}, scale=2e5)
    work = replace(toy.predict_work(keep=["attention"]), plugins=plugins)
    with pytest.raises(StageError, match=r"of run run attention.space holds NaN or infinity as float16"):
        run_items(work, toy.reporter)
    assert ItemLedger(toy.store.node("scores")).done() == set()


def test_what_is_not_kept_is_named(toy, tmp_path):
    toy.pulses("d", "train", num_rows=9)
    plugins = trained(toy, tmp_path, window={"length": 4})
    run_items(replace(toy.predict_work(keep=["attention.time"]), plugins=plugins), toy.reporter)
    with pytest.raises(StoreError, match=r"output 'space' is not stored .* Ask the predict node for it with `keep`"):
        kept_of(toy).rows("d").output("attention.space")
    with pytest.raises(StoreError, match=r"video 'e' has no kept outputs in .* did predict succeed"):
        kept_of(toy).rows("e")


def test_settings():
    def settings(**values):
        return PredictConfig(run="train", **values)

    assert "keep" not in settings().spec()
    both = settings(keep=["attention.time", "attention.space", "attention.time"])
    assert both.spec()["keep"] == ["attention.space", "attention.time"]
    assert (both.also_produces, settings().also_produces) == (("attention",), ())
    with pytest.raises(ValueError, match="keep is of whole frames, but each of several crops shows another part"):
        settings(frames="frames", crops=3, keep=["attention"])
