"""The embed stage on real small videos: against a plain loop, across videos, resumed, out of memory, failing."""

import socket
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from reelwright.models.blocks.weights import state_digest
from reelwright.models.encoders.build import build_encoder
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import apply
from reelwright.stages.decode.source import FrameChunk, stream_frames
from reelwright.stages.embed.config import ClipSettings, PreprocessSettings
from reelwright.stages.embed.encoding import fetch as fetching
from reelwright.stages.embed.encoding.encoder import encoder_of
from reelwright.stages.embed.encoding.preprocess import geometry_of, override
from reelwright.stages.embed.work import run_items
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.ledger.items import WORK_STEPS, ItemLedger

from .conftest import Notes

NAME = "timm/test_resnet"


def decoded(item):
    """All frames of a video as they are, (T, H, W, 3)."""
    events = stream_frames([item], decode=DecodeConfig(), frames_store=None, geometry=None, workers=1)
    return np.concatenate([event.frames for event in events if isinstance(event, FrameChunk)])


def plain_rows(item, name, *, seed=0, **model_args):
    """What a user's loop gives: timm's own transform and model, a frame at a time."""
    model = build_encoder(name, seed=seed, model_args=model_args or None).model.eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        return np.concatenate([model(transform(Image.fromarray(frame))[None]).numpy() for frame in decoded(item)])


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_rows_equal_a_plain_loop_over_timms_transform(project, name):
    item = project.add("a", 5)
    project.embed(encoder=f"timm/{name}", preprocess={}, batch_size=3)
    assert np.allclose(project.rows("a").output("pooled"), plain_rows(item, f"timm/{name}"), atol=2e-5)


def plain_small_rows(item):
    """The same at 32 pixels."""
    encoder = build_encoder(NAME, seed=0).eval()
    small = override(encoder.data_config, PreprocessSettings(size=(32, 32)), clip=ClipSettings())
    pixels = torch.from_numpy(apply(decoded(item), geometry_of(small))).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (small.mean, small.std))
    with torch.inference_mode():
        return encoder((pixels - mean) / std)["pooled"].numpy()


def test_spans_are_those_of_the_frames(three):
    three.embed()
    spans = three.rows("b").spans
    assert np.allclose(spans.start_seconds, np.arange(20) / 10)
    assert np.allclose(spans.stop_seconds, np.arange(1, 21) / 10)
    assert np.array_equal(spans.source_start, np.arange(20))
    assert np.array_equal(spans.source_stop, np.arange(1, 21))


@pytest.mark.slow
def test_several_outputs_come_from_one_pass(three, monkeypatch):
    passes = []
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: passes.append(len(x)) or forward(self, x))
    three.embed(outputs=["pooled", "layer2.map", "tokens"], batch_size=36)
    first = passes.count(36)
    rows = three.rows("b")
    assert rows.outputs == ("pooled", "layer2.map", "tokens")
    # test_resnet averages the last map: the outputs are of the same pass over the same frames.
    assert np.allclose(rows.output("tokens").mean(1), rows.output("pooled"), atol=1e-5)
    passes.clear()
    three.embed(key="one", outputs=["pooled"], batch_size=36)
    assert first == passes.count(36)


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_batches_across_videos_change_nothing(three, batch_size):
    three.embed(key="across", batch_size=batch_size)
    three.embed(key="alone", batch_size=batch_size, deterministic=True)
    for digest in "abc":
        across, alone = (three.rows(digest, key=key).output("pooled") for key in ("across", "alone"))
        assert np.allclose(across, alone, atol=1e-5)


@pytest.mark.slow
def test_deterministic_rows_hang_neither_on_threads_nor_on_measurements_nor_on_other_videos(three, threads):
    how = {"deterministic": True, "batch_size": None, "channels_last": None, "dtype": "float32"}
    notes = Notes()
    threads(1)
    three.embed(key="together", reporter=notes, **how)
    threads(4)
    for item in three.items[::-1]:
        run_items(replace(three.work(key="apart", **how), items=(item,)), Notes())
    for digest in "abc":
        together, apart = (three.rows(digest, key=key).output("pooled") for key in ("together", "apart"))
        assert np.array_equal(together, apart)
    assert torch.get_num_threads() == 4
    assert not any("measured" in note for note in notes.notes)
    assert not (three.store.root / "tuning").exists()


def test_short_videos_fill_batches_together(three, monkeypatch):
    sizes = []
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: sizes.append(len(x)) or forward(self, x))
    three.embed(batch_size=12, decode={"workers": 1})
    assert set(sizes[-1:]) | set(sizes) - {1} == {12}  # 5 + 20 + 11 rows: three full batches (1: the shapes)


def test_ledger_and_progress(three):
    reporter = Notes()
    ledger = three.embed(reporter=reporter)
    assert {digest: (row.status, row.rows) for digest, row in ledger.items()} == {
        "a": ("ok", 5),
        "b": ("ok", 20),
        "c": ("ok", 11),
    }
    assert all(row.bytes > 0 and row.seconds > 0 for row in ledger.values())
    steps = [getattr(row, f"{step}_seconds") for row in ledger.values() for step in WORK_STEPS]
    assert len(steps) == 12
    assert all(0 < seconds < 60 for seconds in steps)
    assert all(row.decode_seconds + row.forward_seconds < row.seconds + 1 for row in ledger.values())
    assert reporter.frames == reporter.totals[-1] == 36
    assert (three.store.node("emb") / "items.parquet").exists()


def test_broken_video_is_a_row_and_the_others_finish(three):
    broken = three.root / "broken.mp4"
    broken.write_text("no video")
    three.add_file("x", broken)
    ledger = three.embed()
    assert ledger["x"].status == "failed"
    assert ledger["x"].cause
    assert {digest for digest, row in ledger.items() if row.is_done} == {"a", "b", "c"}
    three.items[-1] = three.items[-1].__class__(digest="x", path=three.items[0].path, video_id="x")
    three.items[:-1] = []
    assert three.embed()["x"].status == "ok"


class _SmallMemory(nn.Module):
    """Runs out of memory above so many rows."""

    def __init__(self, inner, limit):
        super().__init__()
        self.inner, self.limit = inner, limit

    def forward(self, x):
        if len(x) > self.limit:
            raise torch.OutOfMemoryError(f"no room for {len(x)}")
        return self.inner(x)


@pytest.fixture
def small_memory(monkeypatch):
    """The encoder's stem runs out of memory above two rows."""
    from reelwright.stages.embed.encoding import encoder as module

    build = module.build_encoder

    def build_small(*args, **kwargs):
        encoder = build(*args, **kwargs)
        encoder.model.conv1 = _SmallMemory(encoder.model.conv1, 2)
        return encoder

    monkeypatch.setattr(module, "build_encoder", build_small)


def test_batch_size_halves_on_out_of_memory(three, small_memory):
    reporter = Notes()
    three.embed(reporter=reporter, batch_size=16)
    halvings = [note for note in reporter.notes if "batch size is now" in note]
    assert [note.rsplit(" ", 1)[1] for note in halvings] == ["8", "4", "2"]
    expected = plain_small_rows(three.items[1])
    assert np.allclose(three.rows("b").output("pooled"), expected, atol=1e-5)


@pytest.mark.parametrize("stop_after", [9, pytest.param(25, marks=pytest.mark.slow)])
def test_interrupted_video_goes_on_with_the_same_bits(project, stop_after, monkeypatch):
    from reelwright.stages.embed import videos

    monkeypatch.setattr(videos, "CHUNK_BYTES", 4 * 32 * 32 * 3)
    project.add("a", 30)
    settings = {"deterministic": True, "shard_rows": 8, "batch_size": 3, "outputs": ["pooled", "layer1.map"]}
    project.embed(key="whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        project.embed(reporter=Notes(stop_after=stop_after), **settings)
    assert EmbeddingStore(project.store.embeddings("emb")).digests() == []
    assert not ItemLedger(project.store.node("emb")).load()
    again = Notes()
    project.embed(reporter=again, **settings)
    assert again.frames in {30, 22, 14, 6}  # goes on at a shard of 8 rows
    assert again.frames < 30 or stop_after == 9
    for name in settings["outputs"]:
        assert np.array_equal(project.rows("a").output(name), project.rows("a", key="whole").output(name))
    assert np.array_equal(project.rows("a").spans.stop_seconds, project.rows("a", key="whole").spans.stop_seconds)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("bf16", 0.05), pytest.param("fp16", 0.01, marks=pytest.mark.slow)]
)
def test_reduced_precision_is_near(project, precision, tolerance):
    project.add("a", 6)
    project.embed(key="exact")
    project.embed(key="near", precision=precision)
    exact, near = (project.rows("a", key=key).output("pooled") for key in ("exact", "near"))
    assert not np.array_equal(exact, near)
    assert np.abs(exact - near).max() <= tolerance * np.abs(exact).max()


def test_stored_as_float16_by_default(project):
    project.add("a", 3)
    work = project.work()
    config = {name: value for name, value in work.config.items() if name != "dtype"}
    run_items(work.__class__(**{**vars(work), "config": config}), Notes())
    assert project.rows("a").output("pooled").dtype == np.float16


def test_values_that_are_not_finite_fail_the_video(project):
    project.add("a", 3)
    state = build_encoder(NAME, seed=0).model.state_dict()
    state["conv1.0.weight" if "conv1.0.weight" in state else next(iter(state))].fill_(float("nan"))
    save_file(state, project.root / "nan.safetensors")
    row = project.embed(weights=str(project.root / "nan.safetensors"))["a"]
    assert (row.status, row.cause) == ("failed", "not_finite")
    assert "output 'pooled' of row 0 holds NaN" in row.message
    assert EmbeddingStore(project.store.embeddings("emb")).digests() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_frames"),
    [("torchvision/r3d_18", 11), ("torchvision/r3d_18", 3), ("tsm/resnet18", 11), ("x3d/x3d_xs", 11)],
)
def test_video_encoder_rows_are_clips(project, name, num_frames):
    item = project.add("a", num_frames)
    settings = {"encoder": name, "clip": {"length": 4, "hop": 3, "dilation": 1}, "batch_size": 2}
    project.embed(**settings)
    rows = project.rows("a")
    frames = decoded(item)
    starts = [0, 3, 6, 7] if num_frames == 11 else [0]
    assert rows.num_rows == len(starts)
    assert np.allclose(rows.spans.start_seconds, np.array(starts) / 10)
    assert np.allclose(rows.spans.stop_seconds, np.minimum(np.array(starts) + 4, num_frames) / 10)
    assert np.array_equal(rows.spans.source_stop, np.minimum(np.array(starts) + 4, num_frames))
    encoder = build_encoder(name, seed=0).eval()
    config = encoder.data_config
    mean, std = (torch.tensor(values).reshape(3, 1, 1, 1) for values in (config.mean, config.std))
    small = override(config, PreprocessSettings(size=(32, 32)), clip=ClipSettings())
    seen = torch.from_numpy(apply(frames, geometry_of(small))).permute(3, 0, 1, 2).float() / 255
    for row, start in enumerate(starts):
        wanted = [min(start + step, num_frames - 1) for step in range(4)]
        with torch.inference_mode():
            expected = encoder(((seen[:, wanted] - mean) / std)[None])["pooled"][0].numpy()
        assert np.allclose(rows.output("pooled")[row], expected, atol=1e-4)


@pytest.mark.parametrize("suffix", ["safetensors", pytest.param("pth", marks=pytest.mark.slow)])
def test_weights_from_a_file_with_prefix(project, suffix):
    project.add("a", 4)
    state = build_encoder(NAME, seed=7).model.state_dict()
    path = project.root / f"w.{suffix}"
    renamed = {f"module.{name}": value for name, value in state.items()}
    save_file(renamed, path) if suffix == "safetensors" else torch.save({"state_dict": renamed}, path)
    project.embed(key="file", weights=str(path), prefix="module.")
    project.embed(key="seed", seed=7)
    stores = [EmbeddingStore(project.store.embeddings(key)) for key in ("file", "seed")]
    assert stores[0].spec["weights_digest"] == stores[1].spec["weights_digest"] == state_digest(state)
    assert np.array_equal(stores[0].rows("a").output("pooled"), stores[1].rows("a").output("pooled"))


def test_hub_weights_are_taken_from_the_store(project):
    project.add("a", 2)
    path = project.store.weights(NAME)
    path.parent.mkdir(parents=True)
    save_file(build_encoder(NAME, outputs=("logits",), seed=3).model.state_dict(), path)
    project.embed(weights="hub")
    bare = build_encoder(NAME, seed=3).model.state_dict()
    found = EmbeddingStore(project.store.embeddings("emb")).spec["weights_digest"]
    loaded = {
        name: value
        for name, value in build_encoder(NAME, outputs=("logits",), seed=3).model.state_dict().items()
        if name in bare
    }
    assert found == state_digest(loaded)


def test_positions_of_hub_weights_are_resized_as_those_of_files(project):
    project.add("a", 2)
    path = project.store.weights("timm/test_vit")
    path.parent.mkdir(parents=True)
    save_file(build_encoder("timm/test_vit", outputs=("logits",), seed=3).model.state_dict(), path)
    for key, weights in (("hub", "hub"), ("file", str(path))):
        project.embed(key=key, weights=weights, encoder="timm/test_vit", model_args={"img_size": 96})
    found = [EmbeddingStore(project.store.embeddings(key)).spec["weights_digest"] for key in ("hub", "file")]
    assert found[0] == found[1]


def test_hub_that_cannot_be_reached_says_what_to_do_at_once(project, monkeypatch):
    """Its client would try six times, for half a minute and more; a server that never answers is not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert not fetching._answers(address, limit_seconds=0.2)
    monkeypatch.setattr(fetching.constants, "ENDPOINT", address)  # nobody is there any more
    project.add("a", 2)
    with pytest.raises(InputError, match=r"could not be fetched.*Run once on a machine with a network"):
        project.embed(weights="hub", encoder="timm/test_resnet.r160_in1k")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "timm/test_resnett"}, "nearest: .*timm/test_resnet"),
        ({"outputs": ["layer99.map"]}, "has . layers"),
        ({"clip": {"hop": 4}}, "clip is for video encoders"),
        ({"encoder": "timm/test_vit", "model_args": {"dynamic_img_size": False}}, "does not take rows of shape"),
        ({"device": "cuda:99"}, "this machine has"),
    ],
    ids=["encoder", "output", "clip", "size", "device"],
)
def test_config_errors_come_before_any_work(project, settings, message):
    project.add("a", 2)
    with pytest.raises(ConfigError, match=message):
        project.embed(**settings)
    assert not project.store.node("emb").exists()


@pytest.mark.slow
def test_layout_and_batch_size_are_measured_once(project, monkeypatch):
    from reelwright.stages.embed.encoding import tuning

    project.add("a", 4)
    monkeypatch.setattr(tuning, "BUDGET_SECONDS", 0.2)
    first, second = Notes(), Notes()
    project.embed(reporter=first, batch_size=None, channels_last=None)
    monkeypatch.setattr(tuning, "measure", None)  # a second measurement would fail
    project.embed(key="again", reporter=second, batch_size=None, channels_last=None)
    assert first.notes == second.notes
    assert len(list((project.store.root / "tuning").glob("cpu-*.json"))) == 1


def test_weights_that_are_no_longer_those_of_the_key_are_not_read(project, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    work = replace(project.work(weights=str(path)), spec={"inputs": {"weights": file_digest(path)}})
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(InputError, match=r"w\.safetensors changed after the plan was made of it.*run again"):
        encoder_of(work)
