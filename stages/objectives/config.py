"""Settings of losses."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from reelwright.stages.base.config import Settings, parse_config
from reelwright.stages.base.plugins import is_plugin
from reelwright.stages.named import NamedSettings
from reelwright.stages.objectives.self_supervised_settings import SELF_SUPERVISED, SelfSupervisedSettings
from reelwright.stages.objectives.sequence_settings import SEQUENCE_OBJECTIVES, SequenceObjectiveSettings


class ObjectiveSettings(NamedSettings):
    """What is minimised in place of the task's own loss: its name and its own options (checked before training)."""

    group: ClassVar[str] = "objectives"

    name: str
    """scl, tcc, tcn or per_frame, which are of rows of `views`; simclr, moco or byol, which compare whole views; or a
    plug-in's: an entry point of reelwright.objectives, package.module:Objective, or file.py:Objective."""

    def is_ours(self) -> bool:
        """As of every such block."""
        return self.name in (*SEQUENCE_OBJECTIVES, *SELF_SUPERVISED)

    @property
    def compares_views(self) -> bool:
        """Whether it is simclr, moco or byol."""
        return self.name in SELF_SUPERVISED

    def of_frames(self) -> SequenceObjectiveSettings:
        """The whole settings of one of ours. Raises ConfigError for options that it does not have."""
        return parse_config(SequenceObjectiveSettings, {"name": self.name, **self.options()}, where=self.name)

    def of_views(self) -> SelfSupervisedSettings:
        """The whole settings of simclr, moco or byol. Raises ConfigError for options that it does not have."""
        return parse_config(SelfSupervisedSettings, {"name": self.name, **self.options()}, where=self.name)

    @model_validator(mode="after")
    def _objective_is_known(self) -> Self:
        if self.compares_views:
            self.of_views()
        elif self.is_ours():
            self.of_frames()
        elif not is_plugin(self.group, self.name):
            raise ValueError(
                f"unknown objective {self.name!r}: no installed package offers it (reelwright.{self.group}); ours are "
                f"{', '.join((*SEQUENCE_OBJECTIVES, *SELF_SUPERVISED))}; or write package.module:Objective, or "
                "file.py:Objective for a file beside the pipeline file"
            )
        return self


class LossSettings(Settings):
    """Cross entropy, or binary cross entropy for task multi_label."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)  # Share of a target that is spread over all classes.
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
