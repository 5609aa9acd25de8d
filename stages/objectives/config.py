"""Settings of losses."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from reelwright.stages.base.config import Settings, parse_config
from reelwright.stages.base.fields import of_names
from reelwright.stages.base.plugins import is_plugin
from reelwright.stages.named import NamedSettings

_TEMPERATURES = {"simclr": 0.1, "moco": 0.07}
_MOMENTA = {"moco": 0.999, "byol": 0.997}
_HIDDEN = 512
_ALL = ("simclr", "moco", "byol")


class ComparisonSettings(Settings):
    """Heads, queue and target network of losses that compare two views."""

    name: str
    queue: PositiveInt = of_names(16384, names=("moco",), when=lambda block: block.name == "moco")
    """moco: keys that a query is told apart from; at least a batch of them."""
    momentum: float | None = of_names(
        None, names=("moco", "byol"), when=lambda block: block.momentum is not None, ge=0, lt=1
    )
    """Share of itself that the target network keeps at an update. null: 0.999 of moco; 0.997 of byol at first, which
    rises along half a cosine to 1 at the last."""
    dim: PositiveInt | None = of_names(None, names=_ALL, when=lambda block: block.dim is not None)
    """Size of the vectors that are compared; null: 128, of byol 256."""
    hidden: PositiveInt = of_names(_HIDDEN, names=_ALL, when=lambda block: block.hidden != _HIDDEN)
    """Features inside the projector (linear, SiLU, linear), which is thrown away afterwards."""
    predictor_hidden: PositiveInt = of_names(1024, names=("byol",), when=lambda block: block.name == "byol")
    """byol: features inside the predictor."""

    @property
    def momentum_used(self) -> float:
        """Of moco and byol."""
        return _MOMENTA[self.name] if self.momentum is None else self.momentum

    @property
    def dim_used(self) -> int:
        """Size of what is compared."""
        return self.dim or (256 if self.name == "byol" else 128)

    @property
    def predictor_used(self) -> int | None:
        """Features inside the predictor; None where there is none."""
        return self.predictor_hidden if self.name == "byol" else None

    @model_validator(mode="after")
    def _options_are_of_the_name(self) -> Self:
        for option, field in ComparisonSettings.model_fields.items():
            if not self.is_kept(option, self.name) and getattr(self, option) != field.default:
                raise ValueError(f"{option} is no option of {self.name}; leave it out")
        return self


class SelfSupervisedSettings(ComparisonSettings):
    """Two views of a video are to be alike."""

    name: Literal["simclr", "moco", "byol"] = "simclr"
    """simclr: a view's other one is told apart from all other views of the batch; moco: it is told apart from keys of
    earlier batches, which a network made that follows slowly; byol: a view's prediction is what such a network makes of
    the other."""
    temperature: PositiveFloat | None = Field(None, json_schema_extra={"names": ["simclr", "moco"]})
    """Cosines are divided by it; null: 0.1 of simclr, 0.07 of moco."""

    @property
    def temperature_used(self) -> float:
        """Of simclr and moco."""
        return _TEMPERATURES[self.name] if self.temperature is None else self.temperature

    @model_validator(mode="after")
    def _has_a_temperature(self) -> Self:
        if self.temperature is not None and self.name not in _TEMPERATURES:
            raise ValueError(f"temperature is no option of {self.name}; leave it out")
        return self


SELF_SUPERVISED: tuple[str, ...] = get_args(SelfSupervisedSettings.model_fields["name"].annotation)


class SequenceObjectiveSettings(Settings):
    """The loss of an embedding a frame."""

    name: Literal["scl", "tcc", "tcn", "per_frame"] = "scl"
    """scl: rows of two views of a video that are near in time are alike; tcc: the way to another video's most similar
    row and back ends where it began; tcn: a row is like one shortly before it; per_frame: cross entropy of labels."""
    negatives: Literal["single_noself", "single", "batch_noself", "batch"] = of_names("single_noself", names=("scl",))
    """What frames are told apart from: single, those of the same video; batch, of all videos of a batch; noself leaves
    out the frame's own view."""
    variance: PositiveFloat = of_names(10.0, names=("scl",))
    """Of the Gaussian over distances in time, in rows squared."""
    temperature: PositiveFloat = of_names(0.1, names=("scl", "tcc"))
    """Similarities are divided by it."""
    form: Literal["regression_mse_var", "regression_mse", "regression_huber", "classification"] = of_names(
        "regression_mse_var", names=("tcc",)
    )
    """How the row that the cycle ends at is compared with that it began at."""
    similarity: Literal["l2", "cosine"] = of_names("l2", names=("tcc",))
    """Minus the squared distance, or the dot product; over the size of the embedding."""
    label_smoothing: float = of_names(0.1, names=("tcc",), ge=0, lt=1)
    """Share of the target that the other rows of the video have together."""
    variance_weight: NonNegativeFloat = of_names(0.001, names=("tcc",))
    """On the log variance, of form regression_mse_var."""
    normalize: bool = of_names(True, names=("tcc",))
    """Places in time are shares of a video's length; false: rows."""
    huber_delta: PositiveFloat = of_names(1.0, names=("tcc",))
    """Where squares turn to lines, of form regression_huber."""
    norm_weight: NonNegativeFloat = of_names(0.002, names=("tcn",))
    """On the mean squared length of embeddings."""
    compat: bool = of_names(False, names=("scl", "tcc"))
    """The numbers of the public code: of scl a floor of 1e-6 under shares, masked rows in denominators and no target
    for rows far from all others; of tcc classification of raw similarities."""

    @model_validator(mode="after")
    def _options_are_of_the_name(self) -> Self:
        for option in type(self).model_fields:
            if option in self.model_fields_set and not self.is_kept(option, self.name):
                owners = [name for name in SEQUENCE_OBJECTIVES if self.is_kept(option, name)]
                raise ValueError(f"{option} is of {' and '.join(owners)}, not of {self.name}; leave it out")
        for option, form in {"variance_weight": "regression_mse_var", "huber_delta": "regression_huber"}.items():
            if getattr(self, option) != type(self).model_fields[option].default and self.form != form:
                raise ValueError(f"{option} is of form {form}, not of {self.form}; leave it out")
        return self


SEQUENCE_OBJECTIVES: tuple[str, ...] = get_args(SequenceObjectiveSettings.model_fields["name"].annotation)


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
