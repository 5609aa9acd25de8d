"""Decoding processes that start before there is work for them, while their user makes ready what it needs itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from reelwright.stages.decode.processes.child import Child

_ready: list[Child] = []  # started, and taken by no pool yet


@contextlib.contextmanager
def started_ahead(count: int, *, module: str) -> Iterator[None]:
    """``count`` processes that import ``module`` at once, for the pools opened inside; what none takes ends with it."""
    own: list[Child] = []
    try:
        for _ in range(count):
            child = Child()
            own.append(child)
            try:
                child.launch(module)
            except OSError:  # memory or processes are short: the pool tries again when it needs one, and says so
                own.pop().kill()
                break
        _ready.extend(own)
        yield
    finally:
        for child in own:
            if child in _ready:
                _ready.remove(child)
                child.kill()


def next_child() -> Child:
    """One that was started ahead, else a new one that starts when it is needed."""
    return _ready.pop(0) if _ready else Child()
