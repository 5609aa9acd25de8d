"""The training loop: exact resume, determinism, precision, accumulation, and what it refuses."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from reelwright.models.contracts import VideoModel
from reelwright.stages.base.devices import Pending
from reelwright.stages.base.work import SilentReporter
from reelwright.stages.datasets.sampling.draws import EpochSampler
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.stages.fit.loop import saving
from reelwright.stages.fit.loop.batches import Batch
from reelwright.stages.fit.loop.checkpoints import load_last
from reelwright.stages.fit.loop.progress import TIMINGS, Progress
from reelwright.stages.fit.loop.trainer import Rates, Trainer, TrainerSettings
from reelwright.stages.fit.optim.build import build_lr_schedule, build_optimizer, parameter_groups
from reelwright.stages.fit.optim.config import OptimizerSettings, ScheduleSettings
from reelwright.stages.fit.processes.stopping import StopRequests
from reelwright.stages.fit.validation import evaluate
from reelwright.stages.objectives.classification import Classification
from reelwright.storage.errors import ConfigError, Interrupted, StageError, StoreError
from reelwright.storage.results.runs import RunFolder
from tests.models.calling import Modules, Net

NUM_ITEMS, BATCH_SIZE, DIM = 22, 4, 5  # six batches, the last one of two


class Rows:
    """Batches of random vectors; the target is the sign of the first feature."""

    num_items = NUM_ITEMS

    def __init__(self, *, batch_size=BATCH_SIZE, scale=1.0):
        self.x = torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(7)) * scale
        self.y = (self.x[:, 0] > 0).long()
        self.batch_size = batch_size

    @property
    def num_batches(self):
        return -(-NUM_ITEMS // self.batch_size)

    def epoch(self, epoch, *, first=0):
        order = EpochSampler(seed=3).order(NUM_ITEMS, epoch)
        for start in range(first * self.batch_size, NUM_ITEMS, self.batch_size):
            picked = torch.from_numpy(order[start : start + self.batch_size])
            yield Batch({"rows": self.x[picked]}, self.y[picked])


class SignalAt(SilentReporter):
    """Sends this process a signal after so many updates."""

    def __init__(self, update, number=signal.SIGTERM):
        super().__init__()
        self.update = update
        self.number = number

    def advance(self, amount):
        self.update -= 1
        if self.update == 0:
            os.kill(os.getpid(), self.number)


class CrashAfterEpoch(SilentReporter):
    """As a killed process: an error no one expects, after the given epoch's evaluation."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def note(self, text):
        if text.startswith(f"epoch {self.epoch}/"):
            raise KeyboardInterrupt


def _module():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Net(nn.Linear(DIM, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))


def _trainer(path, *, reporter=None, module=None, optimizer=None, objective=None, **settings):
    module = module or _module()
    chosen = OptimizerSettings(**(optimizer or {"lr": 0.01}))
    wanted = {"key": "k", "epochs": 4, "seed": 5, "metric": "loss", **settings}
    return Trainer(
        module,
        optimizer=build_optimizer(parameter_groups(module, chosen), chosen),
        rates=Rates(lr=build_lr_schedule(ScheduleSettings(), epochs=wanted["epochs"], updates_per_epoch=6)),
        objective=objective or Classification(nn.functional.cross_entropy),
        settings=TrainerSettings(**wanted),
        folder=RunFolder(path),
        reporter=reporter or SilentReporter(),
    )


def _evaluate(data):
    def judge(forward):
        with torch.inference_mode():
            logits = forward({"rows": data.x})["logits"]
            return {"loss": float(nn.functional.cross_entropy(logits, data.y))}

    return judge


def _fit(trainer, data=None):
    data = data or Rows()
    trainer.fit(data, _evaluate(data))
    return trainer


def _numbers(folder):
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in folder.metrics()]


def _same_weights(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_two_runs_with_one_seed_are_equal_and_another_seed_is_not(tmp_path):
    first, second = _fit(_trainer(tmp_path / "a")), _fit(_trainer(tmp_path / "b"))
    other = _fit(_trainer(tmp_path / "c", seed=6))
    assert _same_weights(first.module, second.module)
    assert _numbers(first.folder) == _numbers(second.folder)
    assert not _same_weights(first.module, other.module)


def test_the_global_random_state_is_left_as_it_was(tmp_path):
    before = torch.get_rng_state()
    _fit(_trainer(tmp_path))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("update", [1, 5, 6, 7, 13, 24], ids=lambda update: f"update{update}")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=["TERM", "USR1"])
def test_interrupted_after_any_update_the_next_numbers_are_the_same(tmp_path, update, number):
    whole = _fit(_trainer(tmp_path / "whole"))
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"asked to stop after update {update} "):
        _fit(_trainer(tmp_path / "cut", reporter=SignalAt(update, number)))
    assert signal.getsignal(number) is handler
    resumed = _fit(_trainer(tmp_path / "cut"))
    assert _numbers(resumed.folder) == _numbers(whole.folder)
    assert _same_weights(whole.module, resumed.module)
    assert resumed.progress.update == 24


@pytest.mark.parametrize("every", [1, 2])
def test_killed_after_an_epoch_it_goes_on_from_the_last_checkpoint(tmp_path, every):
    whole = _fit(_trainer(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        _fit(_trainer(tmp_path / "cut", reporter=CrashAfterEpoch(3), checkpoint_every=every))
    resumed = _fit(_trainer(tmp_path / "cut", checkpoint_every=every))
    assert _numbers(resumed.folder) == _numbers(whole.folder)
    assert _same_weights(whole.module, resumed.module)


@pytest.mark.parametrize("crashed_in", [1, 3], ids=["before the first checkpoint", "after a checkpoint"])
def test_killed_between_best_weights_and_checkpoint_the_two_stay_a_pair(tmp_path, crashed_in, monkeypatch):
    """The epoch's weights were the best and were written; done again (on another GPU, say) they are not."""
    monkeypatch.setattr(saving, "CHECKPOINT_SECONDS", 0.0)
    whole = _trainer(tmp_path / "whole", metric="top1")
    weights = {}

    def keep(_forward):
        weights[whole.progress.epoch + 1] = {name: value.clone() for name, value in whole.module.state_dict().items()}
        return {"top1": 0.0}

    whole.fit(Rows(), keep)
    first = _trainer(tmp_path / "cut", metric="top1", reporter=CrashAfterEpoch(crashed_in))
    values = {1: 0.5, 2: 0.6, 3: 0.4, 4: 0.3}
    with pytest.raises(KeyboardInterrupt):
        first.fit(Rows(), lambda _: {"top1": {**values, crashed_in: 0.9}[first.progress.epoch + 1]})
    again = _trainer(tmp_path / "cut", metric="top1")
    progress = again.fit(Rows(), lambda _: {"top1": values[again.progress.epoch + 1]})
    assert (progress.best, progress.best_epoch, progress.best_update) == (0.6, 2, 12)
    assert all(torch.equal(value, weights[2][name]) for name, value in again.module.state_dict().items())
    assert [path.name for path in again.folder.path.glob("checkpoints/best*")] == ["best-12.safetensors"]


def test_a_checkpoint_without_its_best_weights_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _fit(_trainer(tmp_path, reporter=CrashAfterEpoch(3)))
    for path in tmp_path.glob("checkpoints/best-*"):
        path.unlink()
    with pytest.raises(StoreError, match=r"weights are gone .*Remove it to train from the beginning"):
        _fit(_trainer(tmp_path))


def test_a_finished_training_is_not_repeated(tmp_path):
    first = _fit(_trainer(tmp_path))
    again = _fit(_trainer(tmp_path))
    assert again.progress.update == first.progress.update
    assert _same_weights(first.module, again.module)


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    plain, twin = Net(nn.Linear(DIM, 2)), Net(nn.Linear(DIM, 2))
    twin.load_state_dict(plain.state_dict())
    small = _fit(_trainer(tmp_path / "small", module=plain, accumulate=3), Rows(batch_size=4))
    large = _fit(_trainer(tmp_path / "large", module=twin), Rows(batch_size=12))
    for a, b in zip(small.module.parameters(), large.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert [line["update"] for line in small.folder.metrics()] == [2, 4, 6, 8]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_close_to_fp32(tmp_path, precision):
    plain = _fit(_trainer(tmp_path / "fp32")).folder.metrics()
    low = _fit(_trainer(tmp_path / precision, precision=precision)).folder.metrics()
    for a, b in zip(plain, low, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], abs=0.03)


def test_the_best_weights_are_kept_not_the_last(tmp_path):
    values = iter([0.5, 0.9, 0.7, 0.9])
    trainer = _trainer(tmp_path, metric="top1")
    seen = []

    def judge(forward):
        seen.append({name: value.clone() for name, value in trainer.module.state_dict().items()})
        return {"top1": next(values)}

    progress = trainer.fit(Rows(), judge)
    assert (progress.best, progress.best_epoch) == (0.9, 2)
    assert all(torch.equal(value, seen[1][name]) for name, value in trainer.module.state_dict().items())


def test_training_stops_early_and_stays_stopped(tmp_path):
    values = iter([0.5, 0.6, 0.4, 0.4, 0.9])

    def judge(_forward):
        return {"top1": next(values)}

    progress = _trainer(tmp_path, epochs=9, metric="top1", patience=2).fit(Rows(), judge)
    assert (progress.epoch, progress.best_epoch) == (4, 2)
    again = _trainer(tmp_path, epochs=9, metric="top1", patience=2).fit(Rows(), judge)
    assert again.epoch == 4


def test_evaluation_at_an_interval_and_at_the_end(tmp_path):
    trainer = _fit(_trainer(tmp_path, epochs=5, evaluate_every=2))
    assert ["val_loss" in line for line in trainer.folder.metrics()] == [False, True, False, True, True]


def test_without_validation_the_last_weights_are_the_best(tmp_path):
    trainer = _trainer(tmp_path)
    progress = trainer.fit(Rows())
    assert (progress.best, progress.best_epoch) == (None, 4)
    stored = load_file(trainer.folder.best(24))
    assert all(torch.equal(value, stored[name]) for name, value in trainer.module.state_dict().items())


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path):
    data = Rows()
    data.x[int(EpochSampler(seed=3).order(NUM_ITEMS, 1)[9])] = float("nan")  # epoch 2, third batch: update 9
    data.x[data.x.isnan().any(dim=1)] = float("nan")
    trainer = _trainer(tmp_path)
    source = Rows()

    class Poisoned(Rows):
        def epoch(self, epoch, *, first=0):
            return (data if epoch == 1 else source).epoch(epoch, first=first)

    with pytest.raises(StageError, match=r"update 9 \(epoch 2, batch 3\) was not made: the loss is nan"):
        trainer.fit(Poisoned())
    assert all(bool(value.isfinite().all()) for value in trainer.module.state_dict().values())
    assert (trainer.folder.last / "state.pt").is_file()


def _late(trainer):
    """As on a GPU: what an update was like is asked for when the next one was given."""
    trainer.updater.is_late = True
    return trainer


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"ema_decay": 0.9, "evaluate_updates": 4}])
def test_numbers_that_are_read_late_are_the_same(tmp_path, settings):
    first = _fit(_trainer(tmp_path / "at_once", **settings))
    second = _fit(_late(_trainer(tmp_path / "late", **settings)))
    assert _numbers(first.folder) == _numbers(second.folder)
    assert _same_weights(first.module, second.module)


class _Waits(TorchFunctionMode):
    """Notes what would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.tensor, Tensor.cpu, Tensor.tolist, Tensor.numpy, Tensor.__bool__):
            self.found.append(function)
        return function(*args, **(kwargs or {}))


def test_an_update_that_is_read_late_waits_for_nothing(tmp_path):
    updater = _late(_trainer(tmp_path)).updater
    updater._download = lambda tensors: Pending({name: value.clone() for name, value in tensors.items()})
    group = list(itertools.islice(Rows().epoch(0), 2))
    with _Waits() as waits:
        step = updater.update(group, Progress(), is_stopping=True)
    assert not waits.found
    assert step.result().is_stopping


@pytest.mark.parametrize("update", [1, 6, 9, 24])
def test_read_late_and_interrupted_the_next_numbers_are_the_same(tmp_path, update):
    whole = _fit(_trainer(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        _fit(_late(_trainer(tmp_path / "cut", reporter=SignalAt(update))))
    again = _fit(_late(_trainer(tmp_path / "cut")))
    assert _numbers(whole.folder) == _numbers(again.folder)
    assert _same_weights(whole.module, again.module)


@pytest.mark.parametrize(("place", "named"), [(9, r"9 \(epoch 2, batch 3\)"), (21, r"12 \(epoch 2, batch 6\)")])
def test_what_is_not_finite_and_seen_late_is_in_no_checkpoint(tmp_path, place, named):
    data, source = Rows(), Rows()
    data.x[int(EpochSampler(seed=3).order(NUM_ITEMS, 1)[place])] = float("nan")

    class Poisoned(Rows):
        def epoch(self, epoch, *, first=0):
            return (data if epoch == 1 else source).epoch(epoch, first=first)

    trainer = _late(_trainer(tmp_path))
    with pytest.raises(StageError, match=rf"update {named} was void: the loss is nan.*inputs that are not finite"):
        trainer.fit(Poisoned(), _evaluate(source))
    found = load_last(trainer.folder.last)
    assert found.update == 6  # of the end of the first epoch
    for path in (tmp_path / "checkpoints").rglob("*.safetensors"):
        assert all(bool(value.isfinite().all()) for value in load_file(path).values())
    assert len(_numbers(trainer.folder)) == 1


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when")],
)
def test_memory_that_does_not_suffice_is_told_with_what_to_do(tmp_path, error):
    class Full(Net):
        def forward(self, batch):
            if self.training:
                raise error
            return super().forward(batch)

    module = Full(nn.Linear(DIM, 2))
    with pytest.raises(StageError, match=r"memory of cpu does not suffice to learn from 8 items in 2 batch.*CU"):
        _trainer(tmp_path, module=module, accumulate=2).fit(Rows())


def test_memory_that_does_not_suffice_on_val_is_told_with_what_to_do(tmp_path):
    class Full(Net):
        def forward(self, batch):
            if not self.training:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(batch)

    trainer = _trainer(tmp_path, module=Full(nn.Linear(DIM, 2)), evaluate_updates=4)
    with pytest.raises(StageError, match=r"memory of cpu does not suffice to evaluate on val \(CUDA out.*batch_size"):
        _fit(trainer)


def test_gradients_that_are_not_finite_are_named(tmp_path):
    class Root(VideoModel):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(DIM, 2))

        def forward(self, batch):
            return {"logits": (batch["rows"] @ self.weight).abs().sqrt()}  # the slope of the root is infinite at 0

    with pytest.raises(StageError, match="not finite: gradients of weight"):
        _trainer(tmp_path, module=Root()).fit(Rows())


def test_clipping_bounds_the_update(tmp_path):
    plain = {"name": "momentum", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    before = _module()
    trainer = _trainer(tmp_path, optimizer=plain, epochs=1, clip_norm=1e-3)
    trainer.updater.rates = Rates(lr=lambda _update: 1.0)
    trainer.fit(Rows(batch_size=NUM_ITEMS))
    moved = torch.cat(
        [(a - b).flatten() for a, b in zip(before.parameters(), trainer.module.parameters(), strict=True)]
    )
    assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-3)


def test_a_checkpoint_of_another_model_is_refused_and_left_alone(tmp_path):
    _fit(_trainer(tmp_path))
    before = (tmp_path / "checkpoints" / "last" / "state.pt").read_bytes()
    with pytest.raises(
        StageError, match=r"weights of another model: 4 tensors differ by name or shape, such as 0.bias"
    ):
        _fit(_trainer(tmp_path, module=Net(nn.Linear(DIM, 2))))
    with pytest.raises(StoreError, match="is of run k, not of other"):
        _fit(_trainer(tmp_path, key="other"))
    assert (tmp_path / "checkpoints" / "last" / "state.pt").read_bytes() == before


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("how", ["torch", "pickle", "noise"])
def test_a_malicious_checkpoint_is_refused_not_executed(tmp_path, how):
    folder = RunFolder(tmp_path / "run")
    folder.last.mkdir(parents=True)
    state = folder.last / "state.pt"
    marker = tmp_path / "executed"
    if how == "torch":
        torch.save({"key": "k", "update": _Evil(marker)}, state)
    else:
        state.write_bytes(pickle.dumps(_Evil(marker), protocol=2) if how == "pickle" else b"no checkpoint")
    with pytest.raises(StoreError, match="no checkpoint of ours or is damaged"):
        _fit(_trainer(folder.path))
    assert not marker.exists()


def test_a_full_disk_leaves_the_last_checkpoint_intact(tmp_path, monkeypatch):
    _fit(_trainer(tmp_path, epochs=2))
    before = (tmp_path / "checkpoints" / "last" / "state.pt").read_bytes()
    trainer = _trainer(tmp_path, epochs=4)

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reelwright.stages.fit.loop.checkpoints.save_file", full)
    with pytest.raises(StoreError, match=r"No space left on device.*the one before is intact"):
        _fit(trainer)
    assert (tmp_path / "checkpoints" / "last" / "state.pt").read_bytes() == before


def test_metrics_are_lines_of_json_and_tensorboard_events(tmp_path):
    trainer = _fit(_trainer(tmp_path))
    lines = [json.loads(line) for line in trainer.folder.metrics_file.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[0]) == {"epoch", "update", "lr", "train_loss", "gradient_norm", "val_loss", *TIMINGS}
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_stop_requests_restore_the_handlers():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_stopping
    assert signal.getsignal(signal.SIGTERM) is before


def test_groups_share_rate_and_decay():
    module = Modules({"spatial": nn.Linear(3, 2), "temporal": nn.Linear(2, 2)})
    module["spatial"].bias.requires_grad_(False)
    groups = parameter_groups(module, OptimizerSettings(lr=0.1, weight_decay=0.5), multipliers={"spatial.": 0.1})
    found = [(group["lr"], group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in groups]
    assert found == [
        (pytest.approx(0.01), 0.5, [(2, 3)]),
        (0.1, 0.5, [(2, 2)]),
        (0.1, 0.0, [(2,)]),
    ]


SCHEDULES = {
    "constant": ({"name": "constant", "warmup_epochs": 0}, [1, 1, 1, 1]),
    "warm-up": ({"name": "constant", "warmup_epochs": 2, "warmup_start": 0.5}, [0.5, 0.625, 0.75, 0.875, 1.0]),
    "step": ({"name": "step", "warmup_epochs": 0, "period_epochs": 1, "gamma": 0.1}, [1, 1, 0.1, 0.1, 0.01]),
    "cosine": ({"name": "cosine", "warmup_epochs": 0}, [1.0, 0.961940, 0.853553, 0.691342, 0.5]),
    "restarts": ({"name": "cosine_restarts", "warmup_epochs": 0, "period_epochs": 1}, [1, 0.5, 1, 0.5]),
}


@pytest.mark.parametrize(("settings", "expected"), SCHEDULES.values(), ids=SCHEDULES)
def test_schedules_count_in_epochs(settings, expected):
    schedule = build_lr_schedule(ScheduleSettings(**settings), epochs=4, updates_per_epoch=2)
    assert [schedule(update) for update in range(len(expected))] == pytest.approx(expected, abs=1e-6)


def test_a_warm_up_longer_than_the_training_is_refused():
    with pytest.raises(ConfigError, match="warmup_epochs is 5, but there are only 4 epochs"):
        build_lr_schedule(ScheduleSettings(warmup_epochs=5), epochs=4, updates_per_epoch=2)


@pytest.mark.parametrize(
    ("sampling", "count", "distinct"),
    [
        (EpochSampler(seed=1), 10, 10),
        (EpochSampler(seed=1, per_epoch=4), 4, 4),
        (EpochSampler(seed=1, per_epoch=25), 25, None),
    ],
)
def test_orders_follow_from_seed_and_epoch(sampling, count, distinct):
    first = sampling.order(10, 0)
    assert len(first) == count
    assert distinct is None or len(set(first.tolist())) == distinct
    assert first.tolist() == sampling.order(10, 0).tolist()
    assert first.tolist() != sampling.order(10, 1).tolist()
    assert first.tolist() != replace(sampling, seed=2).order(10, 0).tolist()


def test_answers_on_val_that_are_not_finite_are_refused():
    batches = Rows()
    with pytest.raises(StageError, match="answers on val are not finite"):
        evaluate(
            lambda inputs: {"logits": inputs["rows"][:, :2] * float("inf")},
            batches,
            task=build_task("last_row", LabelSpace(classes=("a", "b"))),
            objective=Classification(nn.functional.cross_entropy),
            device=torch.device("cpu"),
        )


def test_evaluation_within_epochs(tmp_path):
    """Every four of six updates an epoch: after 4 and 8, after 12 once, at the end of its epoch."""
    trainer = _fit(_trainer(tmp_path, epochs=2, evaluate_updates=4))
    lines = _numbers(trainer.folder)
    assert [(line["epoch"], line["update"]) for line in lines] == [(0.7273, 4), (1, 6), (1.3636, 8), (2, 12)]
    assert all("val_loss" in line for line in lines)
    assert ["train_loss" in line for line in lines] == [False, True, False, True]
    plain = _fit(_trainer(tmp_path / "plain", epochs=2))
    assert _numbers(plain.folder) == [line for line in lines if "train_loss" in line]


def test_the_best_weights_may_be_those_within_an_epoch(tmp_path):
    values = iter([0.5, 0.9, 0.7, 0.6])
    trainer = _trainer(tmp_path, epochs=2, metric="top1", evaluate_updates=4)
    seen = []

    def judge(forward):
        seen.append({name: value.clone() for name, value in trainer.module.state_dict().items()})
        return {"top1": next(values)}

    progress = trainer.fit(Rows(), judge)
    assert (progress.best, progress.best_epoch, progress.best_update) == (0.9, 1, 6)
    values = iter([0.5, 0.4, 0.7, 0.6])
    seen.clear()
    trainer = _trainer(tmp_path / "within", epochs=2, metric="top1", evaluate_updates=4)
    progress = trainer.fit(Rows(), judge)
    assert (progress.best, progress.best_epoch, progress.best_update) == (0.7, 1.3636, 8)
    assert all(torch.equal(value, seen[2][name]) for name, value in trainer.module.state_dict().items())


@pytest.mark.parametrize("update", [3, 4, 5, 8])
def test_interrupted_around_an_evaluation_within_an_epoch(tmp_path, update):
    how = {"epochs": 2, "evaluate_updates": 4, "ema_decay": 0.9}
    whole = _fit(_trainer(tmp_path / "whole", **how))
    with pytest.raises(Interrupted):
        _fit(_trainer(tmp_path / "cut", reporter=SignalAt(update), **how))
    resumed = _fit(_trainer(tmp_path / "cut", **how))
    assert _numbers(resumed.folder) == _numbers(whole.folder)
    assert _same_weights(whole.module, resumed.module)


@pytest.mark.parametrize("update", [8, 9, 10, 11])
def test_patience_that_ran_out_within_an_epoch_ends_it_no_sooner_when_interrupted(tmp_path, update):
    """Evaluations after updates 2, 4, 6, ...: those after 6 and 8 are no better, that after 10 or of the end is."""
    values = {2: 0.4, 4: 0.5, 6: 0.5, 8: 0.5, 10: 0.9, 12: 0.3, 14: 0.3, 16: 0.3, 18: 0.3}

    def fit(name, **how):
        trainer = _trainer(tmp_path / name, metric="top1", patience=2, evaluate_updates=2, **how)
        trainer.fit(Rows(), lambda _: {"top1": values[trainer.progress.update]})
        return trainer

    whole = fit("whole")
    assert (whole.progress.best_update, whole.progress.update) == (10, 18)
    with pytest.raises(Interrupted):
        fit("cut", reporter=SignalAt(update))
    resumed = fit("cut")
    assert _numbers(resumed.folder) == _numbers(whole.folder)
    assert _same_weights(whole.module, resumed.module)


class _SignalWithin:
    """Measures in three forward passes; before the last of the ``place``-th evaluation a signal comes."""

    def __init__(self, data, place=0):
        self.data, self.left, self.passes = data, place, 0

    def __call__(self, forward):
        self.left -= 1
        with torch.inference_mode():
            for number in range(3):
                if number == 2 and self.left == 0:
                    os.kill(os.getpid(), signal.SIGTERM)
                logits = forward({"rows": self.data.x})["logits"] + torch.rand(())  # it draws, too
                self.passes += 1
        return {"loss": float(nn.functional.cross_entropy(logits, self.data.y))}


@pytest.mark.parametrize("place", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("updates", [None, 4], ids=["", "within epochs"])
def test_a_signal_gives_up_an_evaluation_which_is_done_when_training_goes_on(tmp_path, place, updates):
    """Before the first update (1), within an epoch, at its end: none is waited for, the next numbers are equal."""
    data, how = Rows(), {"epochs": 5, "ema_decay": 0.9, "evaluate_updates": updates, "evaluate_start": True}
    whole, calm = _trainer(tmp_path / "whole", **how), _SignalWithin(data)
    whole.fit(data, calm)
    first, cut = _trainer(tmp_path / "cut", **how), _SignalWithin(data, place)
    with pytest.raises(Interrupted, match="asked to stop after update"):
        first.fit(data, cut)
    assert cut.passes == 3 * place - 1
    second, rest = _trainer(tmp_path / "cut", **how), _SignalWithin(data)
    second.fit(data, rest)
    assert cut.passes + rest.passes == calm.passes + 2
    assert _numbers(second.folder) == _numbers(whole.folder)
    assert _same_weights(whole.module, second.module)


class _Curriculum(Classification):
    """Remembers how far the training was at each loss that was learned from."""

    def __init__(self):
        super().__init__(nn.functional.cross_entropy)
        self.seen = []

    def forward(self, outputs, batch):
        self.seen.append((self.epoch, self.step))
        return super().forward(outputs, batch)


def test_an_objective_knows_how_far_the_training_is(tmp_path):
    whole = _Curriculum()
    _fit(_trainer(tmp_path / "whole", epochs=2, objective=whole))
    assert whole.seen == [(update // 6, update) for update in range(12)]
    first, second = _Curriculum(), _Curriculum()
    with pytest.raises(Interrupted):
        _fit(_trainer(tmp_path / "cut", epochs=2, objective=first, reporter=SignalAt(7)))
    _fit(_trainer(tmp_path / "cut", epochs=2, objective=second))
    assert first.seen + second.seen == whole.seen
