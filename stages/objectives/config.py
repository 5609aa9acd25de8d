"""Settings of losses."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from reelwright.stages.base.config import Settings
from reelwright.stages.base.plugins import is_plugin
from reelwright.stages.named import NamedSettings


class ObjectiveSettings(NamedSettings):
    """A loss of one's own: its name and its own options (checked before training starts)."""

    group: ClassVar[str] = "objectives"

    name: str
    """An entry point of reelwright.objectives, package.module:Objective, or file.py:Objective."""

    @model_validator(mode="after")
    def _objective_is_known(self) -> Self:
        if not is_plugin(self.group, self.name):
            raise ValueError(
                f"unknown objective {self.name!r}: no installed package offers it (reelwright.{self.group}); or write "
                "package.module:Objective, or file.py:Objective for a file beside the pipeline file"
            )
        return self


class LossSettings(Settings):
    """Cross entropy, or binary cross entropy for task multi_label."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: inverse to the class's share of the training targets."""

    attention_weight: float | None = Field(None, ge=0)
    """Of models with an attention branch: factor on the loss of the branch, beside that of the answer; null: 1."""

    @model_serializer(mode="wrap")
    def _unset_leaves_keys_as_they_were(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        return {name: value for name, value in values.items() if name != "attention_weight" or value is not None}

    @property
    def is_balanced(self) -> bool:
        """Whether classes weigh inversely to their share."""
        return self.class_weights == "balanced"
