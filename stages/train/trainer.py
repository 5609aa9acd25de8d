"""One training loop for everything that learns: epochs of batches, evaluation, checkpoints, exact resume.

    for every epoch:   for every update:   forward, backward (of `accumulate` batches), check, clip, step
                       evaluate, keep the best, write a line of metrics, checkpoint

It knows neither embeddings nor frames: a module, a source of batches, a loss, and a function that evaluates. What an
epoch looks at follows from the seed and the epoch, so a run that was interrupted after any update goes on with the very
numbers it would have had.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from reelwright.stages.train.batches import Batch, Batches
from reelwright.stages.train.checkpoints import load_last, load_weights, save_last, save_weights
from reelwright.stages.train.objectives import Loss
from reelwright.stages.train.optimizers import Schedule
from reelwright.stages.train.stopping import StopRequests
from reelwright.stages.work import Reporter
from reelwright.storage.errors import Interrupted, StageError, StoreError
from reelwright.storage.runs import RunFolder

Evaluate = Callable[[Callable[..., Tensor]], dict[str, float]]  # the module under autocast -> metrics on val

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAX_SKIPPED = 25  # updates in a row whose fp16 gradients overflow before we give up: 2**16 is halved to below 1


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How long, how, and from which seed."""

    key: str  # of the run: a checkpoint of another one is refused
    epochs: int
    seed: int = 0
    precision: str = "fp32"  # one of PRECISIONS
    accumulate: int = 1  # batches an update
    clip_norm: float | None = 1.0
    evaluate_every: int = 1  # epochs
    checkpoint_every: int = 1  # epochs
    metric: str = "macro_f1"  # 'loss' is better when lower, all others when higher
    patience: int | None = None  # evaluations without improvement before stopping


@dataclass(kw_only=True)
class Progress:
    """Where training stands: all that changes besides weights, optimizer, scaler and random states."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the epoch that runs
    update: int = 0  # finished updates of all epochs
    loss_sum: float = 0.0  # of this epoch, over its items so far
    norm_sum: float = 0.0  # of this epoch, over its updates
    num_items: int = 0  # of this epoch so far
    num_skipped: int = 0  # updates in a row that fp16 left out
    best: float | None = None  # best value of the metric
    best_epoch: int = 0
    num_stale: int = 0  # evaluations since then
    seconds: float = 0.0  # of training, over all interruptions
    records: list[dict[str, Any]] = field(default_factory=list)  # lines of metrics.jsonl


class Trainer:
    """Trains ``module``; every argument is made by the stage that uses it."""

    def __init__(
        self,
        module: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        loss: Loss,
        settings: TrainerSettings,
        folder: RunFolder,
        reporter: Reporter,
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.schedule = schedule
        self.loss = loss
        self.settings = settings
        self.folder = folder
        self.reporter = reporter
        self.device = next(module.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.progress = Progress()

    def fit(self, batches: Batches, evaluate: Evaluate | None = None) -> Progress:
        """Train to the end, from the last checkpoint if there is one; the module ends with the best weights.

        Without ``evaluate`` the last weights are the best. Raises Interrupted after a signal (a checkpoint is written),
        StageError when loss or gradients are not finite.
        """
        with _seeded(self.settings.seed, self.device), StopRequests() as stop:
            self._resume()
            self.reporter.total(self.settings.epochs * batches.num_items, "windows")
            self.reporter.advance(self.progress.epoch * batches.num_items + self.progress.num_items)
            with contextlib.closing(SummaryWriter(self.folder.path, purge_step=self.progress.epoch + 1)) as board:
                while not self._is_finished():
                    self._train_epoch(batches, stop)
                    self._end_epoch(evaluate, board)
        load_weights(self.folder.best, self.module)
        return self.progress

    def forward(self, *inputs: Tensor) -> Tensor:
        """The module's logits under the settings' precision."""
        dtype = PRECISIONS[self.settings.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits: Tensor = self.module(*inputs)
        return logits

    def _train_epoch(self, batches: Batches, stop: StopRequests) -> None:
        self.module.train()
        started, progress = time.perf_counter(), self.progress
        source = batches.epoch(progress.epoch, first=progress.batch)
        while group := list(itertools.islice(source, self.settings.accumulate)):
            loss, norm = self._update(group)
            num_items = sum(len(batch) for batch in group)
            progress.loss_sum += loss * num_items
            progress.norm_sum += norm
            progress.num_items += num_items
            progress.batch += len(group)
            progress.update += 1
            self.reporter.advance(num_items)
            if stop.is_stopping:
                progress.seconds += time.perf_counter() - started
                self._checkpoint()
                raise Interrupted(
                    f"asked to stop after update {progress.update} (epoch {progress.epoch + 1}); "
                    f"{self.folder.last} is written, run again to go on."
                )
        progress.seconds += time.perf_counter() - started

    def _update(self, group: list[Batch]) -> tuple[float, float]:
        """One weight update from a group of batches; returns mean loss and norm of the gradients."""
        factor = self.schedule(self.progress.update)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = parameters["initial_lr"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        num_items = sum(len(batch) for batch in group)
        total = torch.zeros((), device=self.device)
        for batch in group:
            moved = batch.to(self.device)
            loss = self.loss(self.forward(*moved.inputs), moved.targets) * (len(batch) / num_items)
            scaled: Any = self.scaler.scale(loss)  # torch types backward only in part
            scaled.backward()
            total += loss.detach()
        self.scaler.unscale_(self.optimizer)
        clip_norm = self.settings.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), clip_norm)
        loss_value, norm_value = torch.stack([total, norm.to(total.dtype)]).tolist()
        self._check_finite(loss_value, norm_value)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss_value, norm_value if math.isfinite(norm_value) else 0.0

    def _check_finite(self, loss: float, norm: float) -> None:
        """Refuse an update that would spoil the weights; fp16 overflows are left out by the scaler, within reason."""
        is_overflow = self.scaler.is_enabled() and math.isfinite(loss) and not math.isfinite(norm)
        self.progress.num_skipped = self.progress.num_skipped + 1 if is_overflow else 0
        if (math.isfinite(loss) and math.isfinite(norm)) or (is_overflow and self.progress.num_skipped < MAX_SKIPPED):
            return
        raise StageError(
            f"update {self.progress.update + 1} (epoch {self.progress.epoch + 1}, batch {self.progress.batch + 1}) was "
            f"not made: the loss is {loss:g}, the norm of the gradients {norm:g}; not finite: {self._bad_gradients()}. "
            "Lower optimizer.lr, lengthen the warm-up, or use precision: fp32; the last checkpoint is intact."
        )

    def _bad_gradients(self) -> str:
        named = [(name, parameter.grad) for name, parameter in self.module.named_parameters()]
        bad = [name for name, gradient in named if gradient is not None and not bool(gradient.isfinite().all())]
        return f"gradients of {', '.join(bad[:3])}{' ...' if len(bad) > 3 else ''}" if bad else "the loss only"

    def _end_epoch(self, evaluate: Evaluate | None, board: SummaryWriter) -> None:
        progress, settings = self.progress, self.settings
        progress.epoch += 1
        record = self._record()
        is_last = progress.epoch == settings.epochs
        if evaluate is not None and (progress.epoch % settings.evaluate_every == 0 or is_last):
            self.module.eval()
            found = evaluate(self.forward)
            record |= {f"val_{name}": value for name, value in found.items()}
            self._keep_best(found[settings.metric])
        elif evaluate is None:
            progress.best_epoch = progress.epoch
        progress.records.append(record)
        self.folder.add_metrics(record)
        for name, value in record.items():
            board.add_scalar(name.replace("_", "/", 1), value, progress.epoch)
        self.reporter.note(_line(record, settings))
        progress.batch, progress.num_items, progress.loss_sum, progress.norm_sum = 0, 0, 0.0, 0.0
        if evaluate is None and self._is_finished():
            save_weights(self.folder.best, self.module)
        if progress.epoch % settings.checkpoint_every == 0 or self._is_finished():
            self._checkpoint()

    def _record(self) -> dict[str, Any]:
        """The line of metrics of the epoch that just ended."""
        progress = self.progress
        num_updates = -(-progress.batch // self.settings.accumulate)
        return {
            "epoch": progress.epoch,
            "update": progress.update,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "train_loss": progress.loss_sum / progress.num_items,
            "gradient_norm": progress.norm_sum / num_updates,
            "seconds": round(progress.seconds, 3),
        }

    def _keep_best(self, value: float) -> None:
        progress = self.progress
        is_lower_better = self.settings.metric == "loss"
        if progress.best is None or (value < progress.best if is_lower_better else value > progress.best):
            progress.best, progress.best_epoch, progress.num_stale = value, progress.epoch, 0
            save_weights(self.folder.best, self.module)
        else:
            progress.num_stale += 1

    def _is_finished(self) -> bool:
        patience = self.settings.patience
        is_stale = patience is not None and self.progress.num_stale >= patience
        return self.progress.epoch >= self.settings.epochs or is_stale

    def _checkpoint(self) -> None:
        state = {
            "key": self.settings.key,
            "update": self.progress.update,
            "progress": asdict(self.progress),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        save_last(self.folder.last, self.module, state)

    def _resume(self) -> None:
        """Take up the last checkpoint, if there is one."""
        state = load_last(self.folder.last, self.module)
        if state is None:
            self.folder.keep_metrics([])
            return
        if state["key"] != self.settings.key:
            raise StoreError(
                f"{self.folder.last} is of run {state['key']}, not of {self.settings.key}. Remove it to train from the "
                "beginning."
            )
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
        self.progress = Progress(**state["progress"])
        self.folder.keep_metrics(self.progress.records)
        self.reporter.note(f"goes on after update {self.progress.update} (epoch {self.progress.epoch + 1})")


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global random state from ``seed`` (dropout needs it) while the block runs; as it was afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _line(record: dict[str, Any], settings: TrainerSettings) -> str:
    value = record.get(f"val_{settings.metric}")
    judged = "" if value is None else f", val {settings.metric} {value:.4f}"
    return f"epoch {record['epoch']}/{settings.epochs}: loss {record['train_loss']:.4f}{judged}"
