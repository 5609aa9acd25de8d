"""What of a store is looked at, to find what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Digests = frozenset[str] | None  # of videos; None: all


@dataclass
class Scope:
    """What is looked at."""

    # area -> names in it: keys, paths of files in projects and weights; of frames, embeddings and cached predictions
    # which videos. "outputs" are those of the records with these keys, in whatever area.
    names: dict[str, dict[str, Digests]] = field(default_factory=dict)
    is_whole: bool = False  # also what belongs to nothing

    def add(self, area: str, name: str, digests: Digests = None) -> None:
        """Look at this too, and at these videos besides those that are looked at."""
        before = self.of(area).get(name, frozenset())
        self.names.setdefault(area, {})[name] = None if digests is None or before is None else before | digests

    def of(self, area: str) -> Mapping[str, Digests]:
        """What is looked at of an area."""
        return self.names.get(area, {})
