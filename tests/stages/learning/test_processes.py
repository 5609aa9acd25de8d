"""Several processes: the same losses as one, exact resume, and what happens when one dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reelwright.stages.base.work import work_from_plain, work_to_plain
from reelwright.stages.fit.loop.batches import Split
from reelwright.stages.fit.loop.progress import TIMINGS
from reelwright.stages.fit.processes.launch import _environment
from reelwright.stages.fit.processes.process import main
from reelwright.stages.fit.processes.world import World
from reelwright.stages.train.work import run
from reelwright.storage.errors import ConfigError, InputError, Interrupted, StageError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import Annotation
from tests import forks
from tests.stages.learning.two_processes import EQUAL

SCRIPT = Path(__file__).with_name("two_processes.py")
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(("count", "batch_size"), [(22, 4), (22, 7), (1, 4), (9, 3)])
def test_shares_are_the_whole_once(size, count, batch_size):
    order = np.arange(count)[::-1].copy()
    of_all = [list(Split(batch_size=batch_size, world=World(rank, size)).parts(order)) for rank in range(size)]
    for parts in zip(*of_all, strict=True):
        taken = np.concatenate([part for part, _, is_counted in parts if is_counted])
        assert {num_all for _, num_all, _ in parts} == {len(taken)}
        assert all(len(part) for part, _, _ in parts)
    seen = [part for parts in zip(*of_all, strict=True) for part, _, is_counted in parts if is_counted]
    assert np.concatenate(seen).tolist() == order.tolist()


def test_an_epoch_goes_on_at_any_batch_and_drops_what_does_not_fill_one():
    order = np.arange(10)
    split = Split(batch_size=4, drop_last=True)
    assert [part.tolist() for part, _, _ in split.parts(order)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [part.tolist() for part, _, _ in split.parts(order, first=1)] == [[4, 5, 6, 7]]
    assert (split.num_kept(10), split.num_parts(10)) == (8, 2)


def test_work_survives_json(pulse_toy):
    work = pulse_toy.train_work()
    assert work_from_plain(json.loads(json.dumps(work_to_plain(work)))) == work
    predicted = pulse_toy.predict_work()
    assert work_from_plain(json.loads(json.dumps(work_to_plain(predicted)))) == predicted


def test_more_processes_than_a_batch_has_windows_are_refused(pulse_toy, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="batch_size is 4, but 8 processes share each batch"):
        run(pulse_toy.train_work(batch_size=4), pulse_toy.reporter)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two_processes.py found."""
    folder = tmp_path_factory.mktemp("two")
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    code = SCRIPT.read_text(encoding="utf-8")
    processes = [
        forks.start(str(folder), cwd=ROOT, env=_environment(rank, 2, store.port), code=code) for rank in range(2)
    ]
    printed = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    return json.loads(printed[0][0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["-".join(map(str, case)) for case in EQUAL])
def test_two_processes_give_the_losses_and_gradients_of_one(together, name):
    """Uneven last batches, one with a single row (7 and 3 into 22), accumulation, unknown labels, batch norm.

    And losses that compare all rows of a batch.
    """
    one, two = together[f"equal {name}"]
    for a, b in zip(one["lines"], two["lines"], strict=True):
        assert b == pytest.approx(a, rel=2e-4, abs=2e-5)
    for a, b in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
def test_two_processes_evaluate_what_is_compared_as_one(together):
    (one, first), (_, second) = together["evaluated"]
    assert first == second == pytest.approx(one, rel=1e-5)
    assert one["loss"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cut 1", "cut 5", "cut 6", "cut 11", "cut 5 late", "cut 6 late"])
def test_two_processes_go_on_with_the_very_numbers(together, name):
    message, whole, resumed = together[name]
    assert "asked to stop after update" in message
    if "cut 6" in name:  # the end of an epoch: the one that was asked gives up its evaluation, and so the other does
        assert "after update 6 (epoch 1)" in message
    assert resumed == whole


@pytest.mark.slow
def test_two_processes_that_read_late_train_the_same(together):
    whole, late = together["late"]
    assert late == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", ["poisoned", "poisoned late"])
def test_a_bad_row_is_named_by_all_processes(together, name):
    first, second = together[name]
    assert first == second
    assert ("was void" in first) == ("late" in name)
    assert "inputs that are not finite: row 13" in first


class _KillsOne:
    """Ends one of the training processes without warning, as the kernel does when memory is short.

    It does so as soon as there is a checkpoint.
    """

    def __init__(self, rank, folder, started):
        self.rank, self.folder, self.started, self.killed, self.notes = rank, folder, started, 0, []

    def item(self, row):
        pass

    def total(self, amount, unit, done=0):
        pass

    def note(self, text):
        self.notes.append(text)

    def advance(self, amount):
        if amount and not self.killed and (self.folder.last / "state.pt").is_file():
            self.killed = self.started[self.rank].pid
            os.kill(self.killed, signal.SIGKILL)


LONG = {"model": {"name": "mlp", "hidden": 16}, "batch_size": 16, "epochs": 6, "processes": 2, "device": "cpu"}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1], ids=["the-one-that-writes", "another"])
def test_a_process_that_dies_is_told_at_once_and_training_goes_on_from_the_last_checkpoint(
    pulse_toy, rank, forked_training
):
    folder, started = RunFolder(pulse_toy.store.run("run")), time.monotonic()
    with pytest.raises(StageError, match=rf"process {rank} of 2 was ended by SIGKILL .*run again to go on"):
        run(pulse_toy.train_work(**LONG), _KillsOne(rank, folder, forked_training))
    assert time.monotonic() - started < 60
    assert [process.poll() is None for process in forked_training] == [False, False]
    state = torch.load(folder.last / "state.pt", weights_only=True)  # whole: it can be read
    assert (state["key"], state["update"] > 0) == ("run", True)
    assert not folder.is_complete
    run(pulse_toy.train_work(**LONG), pulse_toy.reporter)
    (line,) = [note for note in pulse_toy.reporter.notes if "goes on after update" in note]
    assert int(line.split("update ")[1].split()[0]) >= state["update"]
    assert folder.is_complete
    assert [line["epoch"] for line in folder.metrics()] == [1, 2, 3, 4, 5, 6]


class _StopAfter:
    """Sends the parent a signal when so much was done."""

    def __init__(self, amount, number):
        self.left, self.number, self.notes = amount, number, []

    def item(self, row):
        pass

    def total(self, amount, unit, done=0):
        pass

    def note(self, text):
        self.notes.append(text)

    def advance(self, amount):
        before, self.left = self.left, self.left - amount
        if before > 0 >= self.left:
            os.kill(os.getpid(), self.number)


def _lines(toy, key):
    lines = RunFolder(toy.store.run(key)).metrics()
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


@pytest.mark.usefixtures("forked_training")
@pytest.mark.slow
def test_a_signal_to_the_parent_reaches_all_and_the_run_goes_on(pulse_toy):
    run(pulse_toy.train_work(key="whole", **LONG), pulse_toy.reporter)
    with pytest.raises(Interrupted, match="asked to stop after update"):
        run(pulse_toy.train_work(key="cut", **LONG), _StopAfter(300, signal.SIGUSR1))
    run(pulse_toy.train_work(key="cut", **LONG), pulse_toy.reporter)
    assert any("goes on after update" in note for note in pulse_toy.reporter.notes)
    assert _lines(pulse_toy, "cut") == _lines(pulse_toy, "whole")


@pytest.mark.slow
def test_a_signal_before_the_processes_train_is_no_failure(pulse_toy):
    """They load torch at first, and end as the signal says; nothing was lost, the run is to be queued again."""

    class Starts(_StopAfter):
        def note(self, text):
            if "2 processes share each batch" in text:
                threading.Timer(1.0, os.kill, (os.getpid(), self.number)).start()

    with pytest.raises(Interrupted, match="asked to stop before training began; run again to go on"):
        run(pulse_toy.train_work(key="cut", **LONG), Starts(0, signal.SIGTERM))
    assert not RunFolder(pulse_toy.store.run("cut")).is_complete


@pytest.mark.slow
def test_the_stage_in_two_processes_is_that_in_one(pulse_toy):
    settings = {"task": "per_row", "model": {"name": "gru", "dropout": 0.0}, "batch_size": 50, "device": "cpu"}
    run(pulse_toy.train_work(key="one", **settings), pulse_toy.reporter)
    run(pulse_toy.train_work(key="two", processes=2, **settings), pulse_toy.reporter)
    continuous = ("train_loss", "gradient_norm", "lr", "val_loss")  # not ranks, which rounding turns round
    for a, b in zip(_lines(pulse_toy, "one"), _lines(pulse_toy, "two"), strict=True):
        assert [b[name] for name in continuous] == pytest.approx([a[name] for name in continuous], rel=1e-4)
    assert not list((pulse_toy.root / "scratch").iterdir())


@pytest.mark.usefixtures("forked_training")
@pytest.mark.slow
def test_what_is_wrong_is_told_once_as_from_one_process(pulse_toy):
    rows = np.zeros((20, 6), np.float32)
    rows[7, 2] = np.nan
    pulse_toy.write("emb", "bad", rows)
    pulse_toy.add("bad", "train", Annotation(label=0), video_id="broken.mp4")
    with pytest.raises(InputError, match=r"video 'broken.mp4': row 7 of its embeddings"):
        run(pulse_toy.train_work(processes=2, device="cpu"), pulse_toy.reporter)


@pytest.mark.slow
def test_torchrun_starts_the_same_processes(pulse_toy, tmp_path):
    work = pulse_toy.train_work(device="cpu")
    file = tmp_path / "work.json"
    file.write_text(json.dumps(work_to_plain(work)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "reelwright.stages.fit.processes.process", str(file)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    results = [event["result"] for event in events if event["event"] == "result"]
    assert len(results) == 2
    assert results[0] == results[1]
    assert RunFolder(pulse_toy.store.run("run")).is_complete


def test_a_process_goes_on_on_another_machine_with_a_run_in_a_bucket(pulse_toy, tmp_path, monkeypatch):
    """A job that is queued again comes to any node."""
    settings = {"model": {"name": "linear"}, "epochs": 4, "device": "cpu"}
    run(pulse_toy.train_work(key="whole", **settings), pulse_toy.reporter)
    work = pulse_toy.train_work(key="cut", **settings)
    with pytest.raises(Interrupted):
        run(work, _StopAfter(300, signal.SIGUSR1))
    monkeypatch.setenv("REELWRIGHT_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("REELWRIGHT_EVENTS", str(tmp_path / "events"))
    file = tmp_path / "work.json"
    file.write_text(json.dumps(work_to_plain(replace(work, store=f"file://{pulse_toy.root}"))))
    assert main(str(file)) == 0
    assert "goes on after update" in (tmp_path / "events.0.jsonl").read_text()
    assert _lines(pulse_toy, "cut") == _lines(pulse_toy, "whole")
    assert RunFolder(pulse_toy.store.run("cut")).is_complete
