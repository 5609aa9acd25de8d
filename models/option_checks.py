"""What options of models have in common: values that are refused, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar


def check_positive(name: str, value: float) -> None:
    """ValueError unless `value` is at least 1."""
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1.")


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """ValueError unless `value` is among `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed: {', '.join(map(str, allowed))}.")


def check_unused(options: Any, names: Iterable[str], *, because: str) -> None:
    """ValueError for one of ``names`` of a dataclass of options that is not as usual, though it has no effect."""
    usual = {entry.name: entry.default for entry in fields(options)}
    for name in names:
        if (value := getattr(options, name)) != usual[name]:
            raise ValueError(f"{name} is {value}, which with {because} has no effect; leave it out.")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Options of a model; subclasses say which values are possible. None is, of those that are None by default."""

    POSITIVE: ClassVar[tuple[str, ...]] = ()  # at least 1
    SHARES: ClassVar[tuple[str, ...]] = ("dropout",)  # at least 0 and below 1
    CHOICES: ClassVar[Mapping[str, Sequence[object]]] = MappingProxyType({})

    def without_effect(self) -> tuple[str, ...]:
        """Options that change nothing as the others are, whatever their value; runs that have them are read."""
        return ()

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        values = ((entry, getattr(self, entry.name)) for entry in fields(self))
        given = {entry.name: value for entry, value in values if value is not None or entry.default is not None}
        for name in self.POSITIVE:
            check_positive(name, given.get(name, 1))
        for name, allowed in self.CHOICES.items():
            if name in given:
                check_choice(name, given[name], allowed)
        for name in self.SHARES:
            if not 0 <= given.get(name, 0) < 1:
                raise ValueError(f"{name} is {given[name]}; it must be at least 0 and below 1.")
