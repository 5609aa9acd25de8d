"""Settings of losses of frames: CARL's, and those that it is compared with."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import NonNegativeFloat, PositiveFloat, model_validator

from reelwright.stages.base.config import Settings
from reelwright.stages.base.fields import of_names


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
