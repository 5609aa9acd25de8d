"""Pipeline files to start from; `reelwright init --recipe NAME` writes one."""

from __future__ import annotations

from importlib.resources import files

from reelwright.storage.errors import ConfigError, nearest


def recipe_summaries() -> dict[str, str]:
    """Name -> first comment line of every recipe."""
    found = {}
    for entry in sorted(files(__name__).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            found[entry.name.removesuffix(".yaml")] = entry.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    return found


def read_recipe(name: str) -> str:
    """The text of a recipe. Raises ConfigError that names the nearest."""
    known = recipe_summaries()
    if name not in known:
        raise ConfigError(f"no recipe {name!r}.{nearest(name, known)} There are: {', '.join(known)}")
    return (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
