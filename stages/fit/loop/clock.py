"""Where the time of a training step goes, by part; costs nothing unless it was asked for."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

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
