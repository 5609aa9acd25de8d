"""Plug-ins: models, objectives, encoders, metrics, evaluators and stages of other people, found by name.

    net.py:Net            a file beside the pipeline file
    package.module:Net    a module that Python finds
    net                   an entry point `net` of the group reelwright.models (objectives, encoders, ...) of a package

`find_plugin` says what such a name is without importing anything: where it lies, and its identity, which enters keys:
distribution and version of an installed package (with what its installer noted of its files, since a package may be
installed again under an old version), else the digest of its source. `load_plugin` imports it, where it still is what
the key says. Only what a pipeline file names, or an installed package offers, is imported; what the record of a run
says is not enough.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_type_hints

from reelwright.stages.base.plugin_source import Source, is_installed
from reelwright.storage.digests import digest
from reelwright.storage.errors import ConfigError, nearest

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUPS = ("models", "objectives", "encoders", "metrics", "evaluators", "stages")
_FILE = ".py"
# What a module may raise while it is imported; whatever else it raises is its own affair, and told as it is.
_IMPORT_ERRORS = (
    *(ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError, LookupError, ArithmeticError),
    *(AssertionError, OSError, RuntimeError),
)


@dataclass(frozen=True, kw_only=True)
class PluginUse:
    """A setting that names a plug-in, with the options that stand beside it."""

    group: str  # one of GROUPS
    name: str
    options: Mapping[str, Any]
    num_given: int  # arguments before the options, which are ours to give

    @property
    def key(self) -> str:
        """How units of work name it."""
        return f"{self.group}:{self.name}"


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """What a name is."""

    name: str  # as it is written
    target: str  # `module:attribute`, or `/folder/file.py:attribute`
    identity: Mapping[str, str]  # distribution, version, files; or source

    def material(self) -> dict[str, str]:
        """What of it enters a key."""
        return {"name": self.name, **self.identity}

    def plain(self) -> dict[str, Any]:
        """For units of work."""
        return {"name": self.name, "target": self.target, "identity": dict(self.identity)}


def is_reference(name: str) -> bool:
    """Whether a name says where a plug-in is: `module:thing` or `file.py:thing`."""
    place, colon, thing = name.rpartition(":")
    return bool(colon and place) and thing.isidentifier()


def offered(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group of ours, by name."""
    return _offered(group, tuple(sys.path))


@functools.lru_cache(maxsize=2 * len(GROUPS))
def _offered(group: str, places: tuple[str, ...]) -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    del places  # where packages are looked for
    return {entry.name: entry for entry in entry_points(group=f"reelwright.{group}")}


def is_plugin(group: str, name: str) -> bool:
    """Whether a name that is none of ours may be a plug-in's; the thing itself is looked for later."""
    return is_reference(name) or name in offered(group)


def find_plugin(group: str, name: str, *, folder: Path) -> Plugin:
    """What a name is; files lie in ``folder``, that of the pipeline file. Raises ConfigError where it is nothing."""
    if not is_reference(name):
        return _find_offered(group, name)
    place, _, thing = name.rpartition(":")
    if place.endswith(_FILE):
        path = (folder / place).absolute()
        return Plugin(name=name, target=f"{path}:{thing}", identity={"source": Source.of_file(path).digest})
    return Plugin(name=name, target=name, identity=_identity(place))


def _find_offered(group: str, name: str) -> Plugin:
    entry = offered(group).get(name)
    if entry is None:
        raise ConfigError(
            f"{name!r} is no plug-in: no installed package offers it as an entry point of reelwright.{group}."
            f"{nearest(name, offered(group))} Write package.module:Thing, or file.py:Thing for a file beside the "
            "pipeline file"
        )
    target = f"{entry.module}:{entry.attr}"
    return Plugin(name=name, target=target, identity=_identity(entry.module, entry.dist))


def identity_of(*modules: str) -> dict[str, str]:
    """Of several modules together."""
    found = {module: _identity(module) for module in modules}
    each = list(found.values())
    return each[0] if all(identity == each[0] for identity in each) else {"source": digest(found)}


def _identity(module: str, distribution: Distribution | None = None) -> dict[str, str]:
    """Of a module that Python finds; of one that runs from a folder, where it may change at any time, its source."""
    source = Source.of_module(module)
    if source is not None:
        return {"source": source.digest}
    distribution = distribution or _distribution_with(module.partition(".")[0])
    if distribution is None:
        raise ConfigError(f"no module {module!r} is found: install its package, or set PYTHONPATH")
    return _installed(distribution)


def _distribution_with(package: str) -> Distribution | None:
    """The one that has put a package where Python finds it; all that are installed would take seconds to read."""
    from importlib.metadata import distributions

    spec = None if package == "reelwright" else find_spec(package)
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin).parent
    place = place.parent if spec.submodule_search_locations is not None else place
    starts = (f"\n{package}/", f"\n{Path(spec.origin).name},")
    for found in distributions(path=[str(place)]):
        files = "\n" + (found.read_text("RECORD") or "")
        if any(start in files for start in starts):
            return found
    return None


def _installed(distribution: Distribution) -> dict[str, str]:
    files = [[str(file), file.hash.value] for file in distribution.files or () if file.suffix == _FILE and file.hash]
    known = {"distribution": distribution.name, "version": distribution.version}
    return {**known, "files": digest(sorted(files))} if files else known


def load_plugin(group: str, name: str, named: Mapping[str, Any]) -> Any:
    """The thing that a name means; ``named`` are the plug-ins of the unit of work (`Work.plugins`).

    Raises ConfigError where the pipeline file does not name it and no package offers it, where it cannot be imported,
    and where it is not any more what the plan was made of.
    """
    known = named.get(f"{group}:{name}")
    if known is None and (is_reference(name) or name not in offered(group)):
        raise ConfigError(
            f"{name!r} is a plug-in of the group {group} that nothing here names: code is not imported because a run "
            f"says so. Name it in the pipeline file, or install a package that offers it (reelwright.{group})"
        )
    plugin = _find_offered(group, name) if known is None else Plugin(**known)
    place, _, thing = plugin.target.rpartition(":")
    module = _import(plugin, place)
    if not hasattr(module, thing):
        raise ConfigError(f"{name}: {place} has no {thing}.{nearest(thing, vars(module))}")
    return getattr(module, thing)


def _import(plugin: Plugin, place: str) -> ModuleType:
    """The module, after a look that it is what the plan was made of."""
    from importlib.metadata import Distribution, PackageNotFoundError

    source = None
    if "source" in plugin.identity:
        source = Source.of_file(Path(place)) if place.endswith(_FILE) else Source.of_module(place)
        found = {} if source is None else {"source": source.digest}
    else:
        try:
            found = _installed(Distribution.from_name(plugin.identity["distribution"]))
        except PackageNotFoundError:
            found = {}
    if found != plugin.identity:
        what = "has changed since" if found else "is not found here"
        raise ConfigError(f"{plugin.name} is not what the plan was made of: {plugin.target} {what}; run again")
    with importing(plugin.name):
        return import_module(place) if source is None else source.load()


@contextmanager
def importing(what: str) -> Iterator[None]:
    """While code that is not ours is imported: what is wrong with it becomes a ConfigError that says where."""
    try:
        yield
    except _IMPORT_ERRORS as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{what} cannot be imported: {type(error).__name__}: {error}{_where(error)}") from error


def _where(error: Exception) -> str:
    """The last line of code that is neither ours nor Python's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_installed(frame.filename)]
    frames = [
        frame for frame in frames if Path(frame.filename).parent != Path(__file__).parent and frame.filename[0] != "<"
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def check_plugin(use: PluginUse, plugin: Plugin) -> None:
    """Import a plug-in and hold its options against its signature. Raises ConfigError that names what does not fit."""
    thing = load_plugin(use.group, use.name, {use.key: plugin.plain()})
    checked_options(thing, use.options, name=use.name, num_given=use.num_given)


def checked_options(
    thing: Callable[..., Any], options: Mapping[str, Any], *, name: str, num_given: int
) -> dict[str, Any]:
    """Options as the signature of a class or function wants them, behind its first ``num_given`` arguments.

    Raises ConfigError for one that it does not take, with the nearest, one that is missing, or of another type.
    """
    if not callable(thing):
        raise ConfigError(f"{name} is {type(thing).__name__}, not a class or function")
    parameters = list(inspect.signature(thing).parameters.values())
    named = [
        entry for entry in parameters[num_given:] if entry.kind in {entry.POSITIONAL_OR_KEYWORD, entry.KEYWORD_ONLY}
    ]
    known = [entry.name for entry in named]
    num_taken = sum(entry.kind in {entry.POSITIONAL_ONLY, entry.POSITIONAL_OR_KEYWORD} for entry in parameters)
    if num_taken < num_given and not any(entry.kind is entry.VAR_POSITIONAL for entry in parameters):
        raise ConfigError(f"{name} takes {num_taken} arguments, but is given {num_given} besides its options")
    if not any(entry.kind is entry.VAR_KEYWORD for entry in parameters):
        for option in options:
            if option not in known:
                message = f"Known: {', '.join(known)}" if known else "It has none"
                raise ConfigError(f"unknown option of {name} {option!r}.{nearest(option, known)} {message}")
    missing = [entry.name for entry in named if entry.default is entry.empty and entry.name not in options]
    if missing:
        raise ConfigError(f"{name}: option {missing[0]} is missing; it has no default")
    hints = _hints(thing)
    return {option: _checked(value, hints.get(option), name=option) for option, value in options.items()}


def _hints(thing: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(thing.__init__ if inspect.isclass(thing) else thing)
    except (NameError, TypeError):  # a name that only a type checker sees; no annotations at all
        return {}


def _checked(value: Any, hint: Any, *, name: str) -> Any:
    # not at the top: the table of stages asks this module for entry points, and `--help` asks that
    from pydantic import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, TypeAdapter, ValidationError

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(Any if hint is None else hint)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return value  # a type that is not plain data
    try:
        return adapter.validate_json(json.dumps(value), strict=True)  # of JSON, where a list may be a tuple
    except ValidationError as error:
        raise ConfigError(f"{name} is {value!r}: {error.errors()[0]['msg']}") from None
