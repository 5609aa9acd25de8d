"""Forward passes side by side: the rows of one after the other, errors that come through, threads left as they were."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from reelwright.models.encoders.build import build_encoder
from reelwright.models.systems.embedding_head import EmbeddingEncoder
from reelwright.stages.embed import videos
from reelwright.stages.embed.encoding import runtimes
from reelwright.stages.embed.encoding.forward import Execution, ForwardPass
from reelwright.stages.embed.encoding.streams import MOST_OF_CLIPS, MOST_STREAMS, Streams
from reelwright.storage.errors import StageError

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder():
    found = build_encoder("timm/test_resnet", seed=0).eval()
    found.data_config = replace(found.data_config, size=(32, 32))
    return found


def passes(encoder, num, **options):
    how = Execution(device=CPU, dtype="float32", batch_size=4)
    return ForwardPass(encoder, encoder.data_config, how, streams=Streams(num), **options)


def frames(number, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("runtime", ["eager", "folded", "onnx"])
def test_rows_of_passes_side_by_side_are_those_of_one_after_the_other(encoder, two_threads, runtime):
    one, several = passes(encoder, 1), passes(encoder, 3)
    if runtime != "eager":
        for each in (one, several):
            each.use(runtimes.build(runtime, encoder, each.sample(), each.streams))
    batches = [frames(1 + number % 9, seed=number) for number in range(18)]
    submitted = [several.submit(batch) for batch in batches]
    for batch, each in zip(batches, submitted, strict=True):
        wanted, found = one.submit(batch).result()["pooled"], each.result()["pooled"]
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
        assert each.seconds > 0


def test_views_of_a_row_stay_together(encoder, two_threads):
    one, several = passes(encoder, 1, num_views=3), passes(encoder, 2, num_views=3)
    rows = frames(15).reshape(5, 3, 32, 32, 3)
    wanted, found = one.submit(rows).result()["pooled"], several.submit(rows).result()["pooled"]
    assert found.shape[:2] == (5, 3)
    assert np.allclose(found, wanted, atol=1e-5)


def test_memory_that_does_not_suffice_halves_the_batch_once(encoder, two_threads, monkeypatch):
    notes, both, room = [], threading.Barrier(2), [2]
    several = passes(encoder, 2, note=notes.append)
    call = several.call

    def full(x):
        if len(x) == 4:
            both.wait(10)  # two passes of the full size run at once
        if len(x) > room[0]:
            raise torch.OutOfMemoryError(f"no room for {len(x)}")
        return call(x)

    monkeypatch.setattr(several, "call", full)
    rows = [frames(4, seed=seed) for seed in (1, 2)]
    found = [each.result()["pooled"] for each in [several.submit(batch) for batch in rows]]
    assert notes == ["out of memory on cpu: batch size is now 2"]
    for batch, each in zip(rows, found, strict=True):
        assert np.allclose(each, passes(encoder, 1).submit(batch).result()["pooled"], atol=1e-5)
    room[0] = 0
    with pytest.raises(StageError, match="memory of cpu does not suffice for one row"):
        several.submit(frames(1)).result()


def test_threads_are_left_as_they_were(two_threads):
    streams = Streams(2)
    assert streams.threads == 1
    assert {streams.start(torch.get_num_threads).result() for _ in range(20)} == {1}
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2
    with pytest.raises(ValueError, match="amiss"):
        streams.start(_amiss).result()


def _amiss():
    raise ValueError("amiss")


def test_only_encoders_that_keep_nothing_run_side_by_side(encoder, two_threads, monkeypatch):
    def num(of, *, device=CPU, is_fixed=False):
        return Streams.beside(of, device, is_fixed=is_fixed).num

    assert num(encoder) == 2
    assert num(encoder, is_fixed=True) == 1
    assert num(encoder, device=torch.device("cuda")) == 1
    assert num(EmbeddingEncoder(encoder, 4, num_features=64)) == 2
    encoder_of_a_user = type("Own", (torch.nn.Module,), {"is_reentrant": False})()
    assert num(encoder_of_a_user) == 1
    video = build_encoder("frames/test_vit", seed=0, model_args={"img_size": 32, "clip_length": 2})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert num(encoder) == MOST_STREAMS
    assert num(video) == MOST_OF_CLIPS


def test_a_job_of_several_streams_gives_the_rows_of_one(project, monkeypatch):
    for name, number in (("a", 37), ("b", 5), ("c", 21)):
        project.add(name, number)
    used = []
    beside = Streams.beside.__func__

    def noted(cls, *arguments, **options):
        used.append(beside(cls, *arguments, **options))
        return used[-1]

    monkeypatch.setattr(Streams, "beside", classmethod(noted))
    project.embed(key="one", batch_size=4, runtime="eager", dtype="float32")
    torch.set_num_threads(3)
    try:
        project.embed(key="several", batch_size=4, runtime="eager", dtype="float32")
    finally:
        torch.set_num_threads(1)
    assert [streams.num for streams in used] == [1, 3]
    assert videos.Streams is Streams
    for name in "abc":
        one, several = (project.rows(name, key=key) for key in ("one", "several"))
        assert np.allclose(one.output("pooled"), several.output("pooled"), atol=1e-5)
        assert len({row.tobytes() for row in several.output("pooled")}) == len(several.output("pooled"))


def test_threads_that_others_start_after_a_pass_take_all(encoder):
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        several = passes(encoder, 2)
        assert several.streams.threads == 2
        several.submit(frames(8)).result()
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 4
    finally:
        torch.set_num_threads(before)


def test_a_thread_that_cannot_be_started_is_an_error_and_no_wait(two_threads, monkeypatch):
    start, started = threading.Thread.start, []

    def second_fails(thread):
        started.append(thread)
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", second_fails)
    with pytest.raises(RuntimeError, match="can't start"):
        Streams(2)
    monkeypatch.undo()
    started[0].join(10)
    assert not started[0].is_alive()


def test_passes_that_have_not_begun_are_left_out(two_threads):
    streams, may_end, ran = Streams(2), threading.Event(), []
    first = [streams.start(may_end.wait) for _ in range(2)]
    waiting = [streams.start(partial(ran.append, number)) for number in range(3)]
    for each in waiting:
        each.cancel()
    may_end.set()
    assert [each.result() for each in first] == [True, True]
    assert streams.start(lambda: "after").result() == "after"
    assert ran == []
