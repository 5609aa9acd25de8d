"""What `import reelwright` gives: Project, Store and Model, each imported when it is first asked for.

    from reelwright import Model, Project, Store

    project = Project("reelwright.yaml")
    project.run("train").curves()

The five folders of the repository are packages below this one (`reelwright.cli`, ..., `reelwright.storage`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reelwright.pipeline.api.model import Model
    from reelwright.pipeline.api.outputs import Store
    from reelwright.pipeline.api.project import Project

    __version__: str

__all__ = ["Model", "Project", "Store", "__version__"]

_PLACES = {
    "Model": "reelwright.pipeline.api.model",
    "Project": "reelwright.pipeline.api.project",
    "Store": "reelwright.pipeline.api.outputs",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: `import reelwright` alone takes no time."""
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("reelwright")
    elif name in _PLACES:
        from importlib import import_module

        found = getattr(import_module(_PLACES[name]), name)
    else:
        raise AttributeError(f"module 'reelwright' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted({*globals(), *__all__})
