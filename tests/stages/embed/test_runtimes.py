"""Runtimes on a CPU: their rows are eager's, or they are refused; what is chosen pays for its building."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zarr
from torch import nn

from reelwright.models.encoders.build import build_encoder
from reelwright.stages.base.config import parse_config
from reelwright.stages.embed import videos
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding import runtimes
from reelwright.stages.embed.encoding.encoder import encoder_of
from reelwright.stages.embed.encoding.forward import Execution, ForwardPass
from reelwright.stages.embed.encoding.runtimes import Runtime, RuntimeRefused
from reelwright.stages.embed.encoding.streams import Streams
from reelwright.stages.embed.videos import expected_rows
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.arrays.zarrs import create_group
from reelwright.storage.errors import ConfigError

from .conftest import Notes

NAME = "timm/test_resnet"
CPU = torch.device("cpu")
ONE = Streams()


@pytest.fixture(scope="module")
def forward():
    encoder = build_encoder(NAME, outputs=("pooled", "layer2.map"), seed=0).eval()
    with torch.no_grad():  # what is folded must not be the identity
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
    config = encoder.data_config.__class__(**{**vars(encoder.data_config), "size": (32, 32)})
    made = ForwardPass(encoder, config, Execution(device=CPU, dtype="float32", channels_last=True, batch_size=4))
    return SimpleNamespace(encoder=encoder, config=config, pass_=made, x=made.sample())


def rows_of(forward_pass, frames):
    return forward_pass.submit(frames).result()


@pytest.mark.parametrize("name", ["folded", "onnx"])
def test_rows_of_a_runtime_are_those_of_eager_for_every_number_of_rows(forward, name):
    eager = ForwardPass(forward.encoder, forward.config, forward.pass_.execution)
    other = ForwardPass(forward.encoder, forward.config, forward.pass_.execution)
    other.use(runtimes.build(name, forward.encoder, forward.x, ONE))
    assert (eager.runtime, other.runtime) == ("eager", name)
    assert bool(other.runtime_versions) == (name == "onnx")
    frames = np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    for number in (1, 4, 7):
        wanted, found = rows_of(eager, frames[:number]), rows_of(other, frames[:number])
        assert list(found) == ["pooled", "layer2.map"]
        for output in wanted:
            assert found[output].shape == wanted[output].shape
            assert np.abs(found[output] - wanted[output]).max() <= 1e-4 * np.abs(wanted[output]).max()
            assert len({row.tobytes() for row in found[output]}) == number


@pytest.mark.parametrize("off", [lambda rows: rows * 1.001, lambda rows: rows * float("nan"), lambda rows: rows[:, :1]])
def test_a_runtime_with_other_rows_is_refused(forward, monkeypatch, off):
    monkeypatch.setitem(runtimes._BUILDERS, "folded", lambda model, *_: ((lambda x: tuple(map(off, model(x)))), {}))
    with pytest.raises(RuntimeRefused, match="its rows differ from eager's by"):
        runtimes.build("folded", forward.encoder, forward.x, ONE)


class ByValues(nn.Module):
    """What it does with a batch hangs on the values of it, which tracing takes for constants."""

    outputs = ("pooled",)

    def forward(self, x):
        return {"pooled": x.flatten(1) / (255 if float(x.abs().max()) > 1 else 1)}


@pytest.mark.parametrize("name", ["folded", "onnx"])
def test_an_encoder_that_looks_at_values_is_refused_and_not_fixed_to_what_it_did_first(forward, name):
    x = forward.x / forward.x.abs().max() * 1.5
    with pytest.raises(RuntimeRefused, match="its rows differ from eager's by"):
        runtimes.build(name, ByValues(), x, ONE)


@pytest.mark.parametrize("error", [ImportError("no libgomp.so.1"), torch.jit.Error("no such operator")])
def test_a_library_that_cannot_be_loaded_refuses_its_runtime(forward, monkeypatch, error):
    def build(_model, _x, _threads):
        raise error

    monkeypatch.setitem(runtimes._BUILDERS, "onnx", build)
    with pytest.raises(RuntimeRefused, match=f"cannot be built: {type(error).__name__}: no "):
        runtimes.build("onnx", forward.encoder, forward.x, ONE)


class NotTraced(nn.Module):
    outputs = ("pooled",)

    def forward(self, x):
        if torch.jit.is_tracing():
            raise ValueError("not for tracing")
        return {"pooled": x.flatten(1)}


def test_what_cannot_be_traced_is_refused_and_an_error_where_it_was_asked_for(forward):
    with pytest.raises(RuntimeRefused, match="cannot be built: ValueError: not for tracing"):
        runtimes.build("folded", NotTraced(), forward.x, ONE)
    with pytest.raises(ConfigError, match=r"mine: runtime: folded cannot be used: .* Set runtime: auto, or eager"):
        runtimes.of_name("folded", NotTraced(), forward.x, where="mine", streams=ONE)


def test_what_onnx_runtime_cannot_run_is_refused(forward, monkeypatch):
    def export(_model, _inputs, path, **_options):
        Path(path).write_bytes(b"no model")

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(RuntimeRefused, match=r"cannot be built: RuntimeError: .*Protobuf"):
        runtimes.build("onnx", forward.encoder, forward.x, ONE)


@pytest.fixture
def clocked(forward, monkeypatch):
    """A second a pass of eager; others are as `speeds` says, and built in no time. Gives those that were built."""
    speeds, built = {"folded": 2.0, "onnx": 3.0}, []
    calls = {name: lambda x: (x,) for name in speeds}  # one each, never called

    def build(name, encoder, x, streams):
        built.append(name)
        if speeds[name] == 0:
            raise RuntimeRefused("too bad")
        return Runtime(name=name, shapes={"pooled": (3,)}, call=calls[name], seconds=10.0, versions={})

    def seconds(_streams, start):
        return next((1 / speeds[name] for name, call in calls.items() if start.args[0].func is call), 1.0)

    monkeypatch.setattr(runtimes, "build", build)
    monkeypatch.setattr(runtimes, "missing", lambda _: "")
    monkeypatch.setattr(Streams, "seconds", seconds)
    return SimpleNamespace(speeds=speeds, built=built)


def chosen(forward, tmp_path, num_batches, notes=None):
    note = (notes if notes is not None else []).append
    path = tmp_path / "tuning" / "runtimes.json"
    found = runtimes.fastest(forward.encoder, forward.x, num_rows=4 * num_batches, path=path, note=note, streams=ONE)
    return None if found is None else found.name


@pytest.mark.parametrize(
    ("num_batches", "name", "tried"),
    [
        (19.9, None, []),  # not even timed
        (38, None, []),  # less than three times what trying takes, 1 s and 12 batches
        (40, "folded", ["folded"]),  # with it 10 + 40 / 2: the other is not worth trying any more
        (60, "onnx", ["folded", "onnx"]),
    ],
)
def test_runtimes_are_tried_where_the_job_pays_for_it(forward, clocked, tmp_path, num_batches, name, tried):
    notes = []
    assert chosen(forward, tmp_path, num_batches, notes) == name
    assert clocked.built == tried
    assert all(f"{each} {clocked.speeds[each]:.2f} times eager" in "".join(notes) for each in tried)


def test_what_was_measured_is_remembered_and_weighed_against_building_again(forward, clocked, tmp_path):
    chosen(forward, tmp_path, 700)
    clocked.built.clear()
    notes = []
    assert chosen(forward, tmp_path, 12, notes) is None  # fewer than are timed
    assert chosen(forward, tmp_path, 40, notes) == "onnx"  # 10 + 40 / 3: it is known now
    assert (clocked.built, notes) == (["onnx"], [])
    path = tmp_path / "tuning" / "runtimes.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({name: {**entry, "seconds": 35.0} for name, entry in known.items()}))
    assert chosen(forward, tmp_path, 40) is None  # 35 + 40 / 3
    path.write_text("[damaged")
    assert chosen(forward, tmp_path, 60) == "onnx"


def test_one_that_was_refused_is_not_built_again(forward, clocked, tmp_path):
    clocked.speeds["onnx"] = 0
    notes = []
    assert chosen(forward, tmp_path, 60, notes) == "folded"
    assert "onnx refused (too bad)" in notes[0]
    clocked.built.clear()
    assert chosen(forward, tmp_path, 60) == "folded"
    assert clocked.built == ["folded"]


def test_one_whose_rows_are_off_with_other_weights_is_not_used(forward, clocked, tmp_path):
    chosen(forward, tmp_path, 60)
    clocked.speeds["onnx"] = 0
    notes = []
    assert chosen(forward, tmp_path, 60, notes) is None
    assert notes == ["runtime onnx was faster here before and is not used now: too bad"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "bf16"}, "runtime: folded computes fp32; remove precision: bf16"),
        ({"compile": True}, "compile fixes the runtime"),
        ({"deterministic": True}, "deterministic fixes the runtime"),
        (
            {"embeddings": ["rows"], "run": "carl", "encoder": None, "weights": "hub", "frames": None},
            "is of encoders of frames",
        ),
    ],
)
def test_a_runtime_that_cannot_be_is_refused_before_work(settings, message):
    values = {"frames": "frames", "encoder": NAME, "weights": "none", "runtime": "folded", **settings}
    with pytest.raises(ConfigError, match=message):
        parse_config(EmbedConfig, {name: value for name, value in values.items() if value is not None}, where="embed")


def test_the_runtime_is_in_no_key_and_its_package_is_asked_for():
    plain = {"frames": "frames", "encoder": NAME, "weights": "none"}
    auto, onnx = (parse_config(EmbedConfig, {**plain, **more}, where="e") for more in ({}, {"runtime": "onnx"}))
    assert auto.spec() == onnx.spec()
    assert not auto.packages(())
    assert set(onnx.packages(())) == {"onnx", "onnxruntime"}


def test_rows_say_which_runtime_made_them_and_a_video_that_goes_on_with_another_says_both(project, monkeypatch):
    monkeypatch.setattr(videos, "CHUNK_BYTES", 4 * 32 * 32 * 3)
    project.add("a", 30)
    settings = {"shard_rows": 8, "batch_size": 3}

    def attributes(key):
        return zarr.open_group(project.store.embeddings(key) / "a", mode="r").attrs

    project.embed(key="folded", runtime="folded", **settings)
    assert attributes("folded")["runtime"] == "folded"
    assert "also" not in attributes("folded")
    with pytest.raises(KeyboardInterrupt):
        project.embed(key="both", reporter=Notes(stop_after=25), runtime="folded", **settings)
    project.embed(key="both", **settings)
    assert attributes("both")["runtime"] == "folded"
    assert [entry["runtime"] for entry in attributes("both")["also"]] == ["eager"]
    writer = EmbeddingWriter(
        project.store.embeddings("looked"), layout=RowLayout(outputs={"pooled": (2,)}), item_attributes={"runtime": "a"}
    )
    create_group(writer.path, {})
    writer.begin("a", num_rows=3)
    other = EmbeddingWriter(writer.path, layout=writer.layout, item_attributes={"runtime": "b"})
    assert other.resume_row("a") == 0
    assert other.begin("a", num_rows=3) == 0
    spans = Spans(np.arange(3.0), np.arange(1.0, 4.0), np.arange(3), np.arange(1, 4))
    writer.write_shard("a", 0, arrays={"pooled": np.zeros((3, 2), np.float16)}, spans=spans)
    writer.finish("a", num_rows=3)
    assert "also" not in attributes("looked")  # it was looked at alone
    folded, both = (project.rows("a", key=key).output("pooled") for key in ("folded", "both"))
    assert np.abs(folded - both).max() <= 1e-4 * np.abs(both).max()


def test_rows_to_expect_of_a_job(project):
    project.add("a", 5)
    work = project.work(runtime="eager")
    loaded = encoder_of(work)
    long = work.items[0]._replace(num_frames=3000, duration_seconds=300.0)
    of_items = partial(replace, work)
    assert expected_rows(of_items(items=(long, long)), loaded) == 6000
    assert expected_rows(of_items(items=(long, work.items[0]._replace(num_frames=None))), loaded) == 3000
    assert expected_rows(of_items(items=(long,), is_part=True), loaded) == 9000
