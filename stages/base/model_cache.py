"""Models that a worker of a cluster keeps between units of work, so that each is loaded once; elsewhere none are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_held: OrderedDict[str, Any] = OrderedDict()
_limits = {"held": 0}  # how many are kept; 0: none


def hold(limit: int) -> None:
    """From now on keep the ``limit`` things that were used last; 0 lets go of all."""
    _limits["held"] = limit
    while len(_held) > limit:
        _held.popitem(last=False)


def held(name: str, make: Callable[[], T]) -> T:
    """What is kept under ``name``, else what ``make`` makes."""
    if name in _held:
        _held.move_to_end(name)
        found: T = _held[name]
        return found
    made = make()
    if _limits["held"]:
        _held[name] = made
        hold(_limits["held"])
    return made
