"""Blocks of settings that name a thing, ours or a plug-in's, beside its options."""

from __future__ import annotations

from typing import Any, ClassVar

from reelwright.stages.base.config import Settings
from reelwright.stages.base.plugins import PluginUse


class NamedSettings(Settings, extra="allow"):
    """A block with a `name`, ours or a plug-in's, and the options of what is called so."""

    group: ClassVar[str]  # of plug-ins
    num_given: ClassVar[int] = 1  # arguments of a plug-in that come before its options

    name: str

    def options(self) -> dict[str, Any]:
        """All but the name; 32.0 is 32, as in keys."""
        return {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in (self.model_extra or {}).items()
        }

    def is_ours(self) -> bool:
        """Whether the name is one that comes with the package."""
        return False

    def plugin(self) -> PluginUse | None:
        """The plug-in that is named, if it is one."""
        if self.is_ours():
            return None
        return PluginUse(group=self.group, name=self.name, options=self.options(), num_given=self.num_given)
