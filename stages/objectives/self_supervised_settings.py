"""Settings of losses that compare two views of a video without labels."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from reelwright.stages.base.config import Settings
from reelwright.stages.base.fields import of_names

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
    """simclr: a view's other one is told apart from all other views of the batch; moco: from keys of earlier batches,
    which a network made that follows slowly; byol: a view's prediction is what such a network makes of the other."""
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
