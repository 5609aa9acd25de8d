"""An objective that is a plug-in: built from what it may know of the targets, and its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reelwright.stages.objectives.contract import Objective
from reelwright.stages.plugins import checked_options, load_plugin
from reelwright.storage.errors import ConfigError

if TYPE_CHECKING:
    from reelwright.stages.learning.config import ObjectiveSettings


@dataclass(frozen=True)
class ObjectiveSizes:
    """What is known of the targets."""

    task: str  # video, last_row, majority, per_row, multi_label or heads
    counts: npt.NDArray[np.int64]  # (K,) training targets by class

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.counts)


def plugin_objective(settings: ObjectiveSettings, sizes: ObjectiveSizes, *, plugins: Mapping[str, Any]) -> Objective:
    """The objective that ``settings`` name; ``plugins`` are those of the unit of work. Raises ConfigError."""
    thing = load_plugin(settings.group, settings.name, plugins)
    options = checked_options(thing, settings.options(), name=settings.name, num_given=settings.num_given)
    try:
        objective = thing(sizes, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"objective: {settings.name}: {error}") from error
    if not isinstance(objective, Objective):
        raise ConfigError(
            f"objective: {settings.name} gives {type(objective).__name__}, not a subclass of "
            "reelwright.stages.objectives.contract.Objective"
        )
    return objective
