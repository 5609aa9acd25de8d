"""Where training stands, as plain values that every checkpoint has; how fast it is, and where a step's time goes."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch

TIMINGS = ("seconds", "items_per_second", "updates_per_second", "peak_memory_bytes")  # differ from run to run


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How long, how, and from which seed."""

    key: str  # of the run: a checkpoint of another one is refused
    epochs: int
    seed: int = 0
    precision: str = "fp32"  # one of PRECISIONS
    accumulate: int = 1  # batches an update
    clip_norm: float | None = 1.0
    ema_decay: float | None = None  # None: no mean of the weights
    ema_warmup: bool = True
    evaluate_every: int = 1  # epochs
    evaluate_updates: int | None = None  # besides: updates between two evaluations; None: at ends of epochs only
    checkpoint_every: int = 1  # epochs
    keep_every: int | None = None  # epochs between weights that stay; None: none stay
    resume: bool = True  # from the last checkpoint, if there is one
    metric: str = "macro_f1"  # of val, which chooses the best weights
    evaluate_start: bool = False  # the weights it starts from too, as epoch 0: the best are never worse than those
    patience: int | None = None  # evaluations without improvement before stopping
    max_minutes: float | None = None  # of this process; then a checkpoint and Interrupted
    profile: bool = False
    log_to: tuple[str, ...] = ()  # besides TensorBoard
    about: Mapping[str, Any] = field(default_factory=dict)  # what loggers are told of the run


@dataclass(kw_only=True)
class Progress:
    """Where training stands: all that changes besides weights, optimizer, scaler and random states."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the epoch that runs
    update: int = 0  # finished updates of all epochs
    loss_sum: float = 0.0  # of this epoch so far, by weight
    part_sums: dict[str, float] = field(default_factory=dict)  # of its parts and of measures, as logs call them
    weight_sum: float = 0.0
    norm_sum: float = 0.0  # of this epoch, over its updates
    num_items: int = 0  # of this epoch so far
    num_skipped: int = 0  # updates in a row that fp16 left out
    best: float | None = None  # best value of the metric
    best_epoch: float = 0  # a fraction where it was evaluated within an epoch
    best_update: int | None = None  # of the best weights, which are named by it; None: none are written yet
    num_stale: int = 0  # evaluations since then
    seconds: float = 0.0  # of training, over all interruptions
    records: list[dict[str, Any]] = field(default_factory=list)  # lines of metrics.jsonl

    def start_epoch(self) -> None:
        """Forget what belongs to the epoch that ended."""
        self.batch, self.num_items = 0, 0
        self.part_sums = {}
        self.loss_sum, self.weight_sum, self.norm_sum = 0.0, 0.0, 0.0

    def record(self, epoch: int, *, lr: float, accumulate: int) -> dict[str, Any]:
        """The line of metrics of the epoch that just ended, but for its speed."""
        return {
            "epoch": epoch,
            "update": self.update,
            "lr": lr,
            "train_loss": self.loss_sum / max(self.weight_sum, 1e-12),
            **{f"train_{name}": value / max(self.weight_sum, 1e-12) for name, value in self.part_sums.items()},
            "gradient_norm": self.norm_sum / -(-self.batch // accumulate),
            "seconds": round(self.seconds, 3),
        }

    def final(self, metric: str) -> dict[str, float]:
        """How it ended, for loggers: the last loss, and of what was evaluated the best value, and when that was."""
        loss = {"train_loss": self.records[-1]["train_loss"]} if self.records else {}
        best = {} if self.best is None else {f"best_val_{metric}": self.best}
        return {"epochs": self.epoch, **loss, **best, "best_epoch": self.best_epoch}


@dataclass
class Speed:
    """Throughput of this process's part of an epoch."""

    seconds: float = 0.0
    num_items: int = 0
    num_updates: int = 0

    def values(self, device: torch.device) -> dict[str, float]:
        """What a line of metrics says of it; peak memory is that of the GPU, else of the process."""
        seconds = max(self.seconds, 1e-9)
        return {
            "items_per_second": round(self.num_items / seconds, 3),
            "updates_per_second": round(self.num_updates / seconds, 3),
            "peak_memory_bytes": peak_memory_bytes(device),
        }


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that tensors on the GPU, or this process, have had so far."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def line(record: Mapping[str, Any], *, epochs: int, metric: str) -> str:
    """A line of the log for an epoch."""
    value = record.get(f"val_{metric}")
    measured = "" if value is None else f", val {metric} {value:.4f}"
    updates = record["updates_per_second"]
    speed = f", {record['items_per_second']:,.0f} items/s ({updates:{',.0f' if updates >= 100 else '.3g'}} updates/s)"
    memory = f", {record['peak_memory_bytes'] / (1 << 20):,.0f} MiB"
    return f"epoch {record['epoch']}/{epochs}: loss {record['train_loss']:.4f}{measured}{speed}{memory}"


PARTS = ("data", "forward", "backward", "communication", "optimizer", "other")
_NOTHING: AbstractContextManager[None] = contextlib.nullcontext()


class Clock:
    """Adds up seconds by part. On a GPU each part waits for the device, so profiling slows training down."""

    def __init__(self, device: torch.device, *, is_on: bool) -> None:
        self.device, self.is_on = device, is_on
        self.seconds: dict[str, float] = defaultdict(float)
        self.num_updates = 0
        self._started = 0.0

    def part(self, name: str) -> AbstractContextManager[None]:
        """A block whose time belongs to ``name``."""
        return self._measured(name) if self.is_on else _NOTHING

    def start_update(self) -> None:
        """A step begins; until `stop_update` all that belongs to no part is `other`."""
        self._started = self._now() if self.is_on else 0.0

    def stop_update(self) -> None:
        """The step is done."""
        if self.is_on:
            self.num_updates += 1
            self.seconds["all"] += self._now() - self._started

    def table(self) -> str:
        """A line a part: milliseconds a step and share."""
        total, steps = self.seconds["all"], max(self.num_updates, 1)
        parts = {name: self.seconds[name] for name in PARTS}
        parts["other"] = max(0.0, total - sum(value for name, value in parts.items() if name != "communication"))
        lines = [f"{'part':<14} {'ms/step':>10} {'share':>7}"]
        lines += [
            f"{name:<14} {1000 * value / steps:>10.3f} {100 * value / total if total else 0:>6.1f}%"
            for name, value in parts.items()
        ]
        lines.append(f"{'all':<14} {1000 * total / steps:>10.3f} {'':>7} of {self.num_updates} steps")
        lines.append("communication overlaps with backward, which counts it too")
        return "\n".join(lines)

    @contextlib.contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        started = self._now()
        try:
            yield
        finally:
            self.seconds[name] += self._now() - started

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
