"""Settings of losses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reelwright.stages.config import Settings


class LossSettings(Settings):
    """Cross entropy, or binary cross entropy for task multi_label."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: inverse to the class's share of the training targets."""

    @property
    def is_balanced(self) -> bool:
        """Whether classes weigh inversely to their share."""
        return self.class_weights == "balanced"
