"""The model of a node, by name: of rows in windows, of one of the systems, or of clips of frames."""

from __future__ import annotations

from typing import Any, ClassVar, Self, get_type_hints

from pydantic import TypeAdapter, ValidationError, model_validator

from reelwright.models.clip_options import CLIP_MODEL_OPTIONS
from reelwright.models.systems.carl_options import FRAME_MODEL_OPTIONS
from reelwright.models.temporal.options import TEMPORAL_OPTIONS, check_options, output_names
from reelwright.stages.base.plugins import is_plugin
from reelwright.stages.named import NamedSettings

MODEL_OPTIONS = {**TEMPORAL_OPTIONS, **FRAME_MODEL_OPTIONS, **CLIP_MODEL_OPTIONS}  # of all that come with the package


class ModelSettings(NamedSettings):
    """The model that learns: its name and its own options (checked before training starts)."""

    group: ClassVar[str] = "models"

    name: str = "transformer"
    """linear, mlp, transformer, storm_transformer (STORM-PSR's), gru, lstm, ms_tcn or attention_branch (ST-ABN's); of
    views carl, conv or vanilla; of frames (finetune) st_abn or cast (which train takes of tokens); or a plug-in's: an
    entry point of reelwright.models, package.module:Model, or file.py:Model. Another name, given with -S or -m, takes
    none of the options that the file gives the old one."""

    def is_ours(self) -> bool:
        """As of every such block."""
        return self.name in MODEL_OPTIONS

    @property
    def keeps_positions(self) -> bool:
        """Whether it reads tokens and maps as they are; else they are averaged over their positions."""
        return bool(getattr(MODEL_OPTIONS.get(self.name), "reads_grids", False))

    @property
    def joins_tokens(self) -> bool:
        """Whether it reads the tokens of several embeddings, one behind the other."""
        return bool(getattr(MODEL_OPTIONS.get(self.name), "joins_tokens", False))

    @property
    def has_branch(self) -> bool:
        """Whether one of ours has an attention branch, a classifier of its own."""
        return "aux.attention_logits" in output_names(self.name, self.options(), known=MODEL_OPTIONS)

    @model_validator(mode="after")
    def _model_is_known(self) -> Self:
        if not self.is_ours() and is_plugin(self.group, self.name):
            return self
        options, owner = self.options(), MODEL_OPTIONS.get(self.name)
        check_options(self.name, options, known=MODEL_OPTIONS)
        assert owner is not None
        types = get_type_hints(owner) if options else {}
        for name, value in options.items():
            try:
                TypeAdapter(types[name]).validate_python(value, strict=True)
            except ValidationError as error:
                raise ValueError(f"{name} is {value!r}: {error.errors()[0]['msg']}") from None
        owner(**options)
        return self

    def without_effect(self) -> tuple[str, ...]:
        """As of every block; of ours, options that differ from the usual."""
        if not self.is_ours():
            return ()
        owner, options = MODEL_OPTIONS[self.name], self.options()
        names = owner(**options).without_effect()
        return tuple(name for name in names if name in options and options[name] != getattr(owner, name))

    def option(self, name: str, default: Any = None) -> Any:
        """The value of an option, given or the model's own default; ``default`` for models that have no such option."""
        return self.options().get(name, getattr(MODEL_OPTIONS.get(self.name), name, default))
