"""Settings of summary: whose scores are put together."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import model_validator

from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.fields import node_input


class SummaryConfig(StageConfig):
    """Mean and standard deviation of scores, as of several seeds or of several folds.

    Where a node has `seeds`, one is there without being written: under the name of the node whose scores it sums up.
    """

    stage: ClassVar[str] = "summary"
    version: ClassVar[int] = 2
    kind: ClassVar[str] = "table"
    produces: ClassVar[str] = "scores"
    costs: ClassVar[tuple[str, ...] | None] = ()

    scores: tuple[str, ...] = node_input(kinds=("scores",), min_length=1)
    """Nodes with the same measures: evaluate nodes of several runs, or probe nodes."""
    report: bool = True
    """Write report.html: every number of every node beside mean and standard deviation."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        twice = next((name for name in self.scores if self.scores.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"scores names {twice!r} more than once, which would count once; name each node once")
        return self

    def spec(self) -> dict[str, Any]:
        """With the names of the nodes, by which the report calls their columns."""
        return {**super().spec(), "names": list(self.scores)}
