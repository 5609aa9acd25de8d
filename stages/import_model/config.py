"""Settings of import_model: a trained model from outside the store, taken as a run."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import field_validator

from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.fields import source_file
from reelwright.stages.base.plugins import GROUPS, PluginUse


class ImportModelConfig(StageConfig):
    """A model of train, finetune or pretrain that was trained elsewhere: predict, embed and init_from take it.

    `export-model` writes such a folder, with the pipeline file that names this stage.
    """

    stage: ClassVar[str] = "import_model"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "run"
    produces: ClassVar[str] = "run"
    costs: ClassVar[tuple[str, ...] | None] = ()

    weights: str = source_file()
    """The model.safetensors of a run."""
    config: str | None = source_file(None)
    """The config.yaml of that run; null: the one beside the weights."""
    imports: tuple[str, ...] = ()
    """Plug-ins that the model is made of, as GROUP:NAME (models:net.py:Net); no other code is imported for it."""

    @field_validator("imports")
    @classmethod
    def _named_with_group(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            group, _, rest = name.partition(":")
            if group not in GROUPS or not rest:
                raise ValueError(f"{name!r} does not begin with what it is; write GROUP:NAME, of {', '.join(GROUPS)}")
        return tuple(sorted(set(names)))

    @property
    def learns_labels(self) -> bool:
        """Nothing is learned here: labels change nothing."""
        return False

    def wanted_splits(self) -> tuple[str, ...] | None:
        """No video is read."""
        return ()

    def plugins(self) -> dict[str, PluginUse]:
        """As of every stage."""
        parts = [name.partition(":") for name in self.imports]
        return {
            f"imports[{number}]": PluginUse(group=group, name=name, options={}, num_given=1)
            for number, (group, _, name) in enumerate(parts)
        }

    def sources(self) -> dict[str, str]:
        """Both files, whether or not the second is named."""
        beside = Path(self.weights).with_name("config.yaml")
        return {"weights": self.weights, "config": self.config or str(beside)}
