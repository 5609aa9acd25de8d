"""What options of models have in common: values that are refused, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any


def check_positive(name: str, value: float) -> None:
    """ValueError unless `value` is at least 1."""
    if value < 1:
        message = f"{name} is {value}; it must be at least 1."
        raise ValueError(message)


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """ValueError unless `value` is among `allowed`."""
    if value not in allowed:
        message = f"{name} is {value!r}; allowed: {', '.join(map(str, allowed))}."
        raise ValueError(message)


def check_unused(options: Any, names: Iterable[str], *, because: str) -> None:
    """ValueError for one of ``names`` of a dataclass of options that is not as usual, though it has no effect."""
    usual = {entry.name: entry.default for entry in fields(options)}
    for name in names:
        if (value := getattr(options, name)) != usual[name]:
            raise ValueError(f"{name} is {value}, which with {because} has no effect; leave it out.")


def check_dropout(value: float) -> None:
    """ValueError unless `value` is in [0, 1)."""
    if not 0 <= value < 1:
        message = f"dropout is {value}; it must be at least 0 and below 1."
        raise ValueError(message)
