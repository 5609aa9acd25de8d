"""The source of a plug-in that is no installed package: what it is made of, its digest, and its import from just that.

A module and all local modules that it imports, directly or not, are read once. The digest is of their syntax trees, so
that comments, docstrings and formatting do not count; what runs is what was read, never a stale cache. Local is what
lies neither in the standard library nor where packages are installed.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from reelwright.storage.digests import digest, file_digest
from reelwright.storage.errors import ConfigError

_OURS = "reelwright"
_PACKAGES = frozenset({"site-packages", "dist-packages"})  # of this environment, or of one that it is laid over
_WITHOUT_MEANING = frozenset({"ctx", "kind", "type_comment", "type_ignores"})  # fields of syntax trees


@dataclass(frozen=True)
class _Module:
    """One local module."""

    path: Path
    text: str | None = None  # None: a folder without __init__.py, or no Python source
    is_package: bool = False

    def tree(self) -> ast.Module:
        try:
            return ast.parse(self.text or "", filename=str(self.path))
        except SyntaxError as error:
            raise ConfigError(f"{self.path}:{error.lineno}: no Python: {error.msg}") from None

    def plain(self) -> Any:
        """What enters the digest."""
        if self.text is not None:
            return _plain(self.tree())
        return None if self.path.is_dir() else file_digest(self.path)


@dataclass(frozen=True)
class Source:
    """A module with its local imports, as they were read."""

    module: str
    modules: Mapping[str, _Module] = field(repr=False)  # by full name

    @classmethod
    def of_file(cls, path: Path) -> Source:
        """Of a single file; modules beside it are local. Raises ConfigError where it is not there or no Python."""
        if not path.is_file():
            raise ConfigError(f"{path}: no such file")
        if path.stem in sys.stdlib_module_names or path.stem == _OURS or not path.stem.isidentifier():
            raise ConfigError(f"{path}: a module cannot be called {path.stem}; rename the file")
        return cls(path.stem, _closure(path.stem, [str(path.parent)]))

    @classmethod
    def of_module(cls, name: str) -> Source | None:
        """Of a module that Python finds; None where it is not local, or not there."""
        found = _closure(name, [])
        return cls(name, found) if name in found else None

    @cached_property
    def digest(self) -> str:
        """Of the syntax of all modules."""
        return digest({name: module.plain() for name, module in self.modules.items()})

    def load(self) -> ModuleType:
        """The module, imported from what was read; anew where it was imported from anything else.

        Raises ConfigError where it imports local modules in a way that is not seen in its source.
        """
        served = {name: _served[name].modules[name] for name in self.modules if name in _served}
        if any(self.modules[name] != module for name, module in served.items()):
            served = {}
        for name in self.modules.keys() - served.keys():
            _forget(name, self.modules[name])
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        _served.update(dict.fromkeys(self.modules, self))
        before = set(sys.modules)
        with contextlib.ExitStack() as undo:
            undo.callback(self._withdraw)
            loaded = importlib.import_module(self.module)
            self._check_unseen(set(sys.modules) - before)
            undo.pop_all()
        return loaded

    def _withdraw(self) -> None:
        """Leave nothing of an import that failed half way."""
        for name in self.modules:
            _served.pop(name, None)
            sys.modules.pop(name, None)

    def _check_unseen(self, imported: set[str]) -> None:
        for name in sorted(imported - self.modules.keys()):
            path = getattr(sys.modules.get(name), "__file__", None)
            is_known = name.partition(".")[0] == _OURS or name.startswith("__")  # such as __mp_main__
            if path and Path(path).is_absolute() and not is_known and not is_installed(path):
                raise ConfigError(
                    f"{self.modules[self.module].path} imports {name} ({path}) in a way that its source does not show, "
                    "so that its changes would not be seen: write `import` or `from ... import` with its name"
                )


def is_installed(path: str | os.PathLike[str]) -> bool:
    """Whether a file is of the standard library or of an installed package."""
    place = os.path.realpath(path)
    return place.startswith(_library_folders()) or not _PACKAGES.isdisjoint(Path(place).parts)


@cache
def _library_folders() -> tuple[str, ...]:
    folders = map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))
    return tuple({os.path.realpath(folder) + os.sep for folder in folders})


def _closure(name: str, folders: Sequence[str]) -> dict[str, _Module]:
    """A module and its local imports, with the packages that they are in; local ones lie in ``folders`` first."""
    found: dict[str, _Module] = {}
    waiting = [name]
    while waiting:
        parts = waiting.pop().split(".")
        for end in range(1, len(parts) + 1):
            full = ".".join(parts[:end])
            if full in found:
                continue
            module = _find(full, found, folders)
            if module is None:
                break
            found[full] = module
            waiting += _imports(module, full) if module.text is not None else ()
    return dict(sorted(found.items()))


def _find(name: str, known: Mapping[str, _Module], folders: Sequence[str]) -> _Module | None:
    """A local module; None where it is not local, or not there. Nothing is imported."""
    parent, _, last = name.rpartition(".")
    if parent:
        spec = PathFinder.find_spec(name, [str(_folder(known[parent]))]) if known[parent].is_package else None
    elif last in sys.stdlib_module_names or last in {_OURS, "__main__"}:
        return None
    else:
        spec = PathFinder.find_spec(name, list(folders)) if folders else None
        spec = spec or _spec_of_top(name)
    if spec is None:
        return None
    if spec.origin is None or not os.path.isfile(spec.origin):  # noqa: PTH113 - `origin` may be a word
        places = list(spec.submodule_search_locations or ())
        is_local = len(places) == 1 and not is_installed(places[0])
        return _Module(Path(places[0]), is_package=True) if is_local else None
    if is_installed(spec.origin):
        return None
    path = Path(spec.origin)
    text = importlib.util.decode_source(path.read_bytes()) if path.suffix == ".py" else None
    return _Module(path, text, is_package=spec.submodule_search_locations is not None)


def _spec_of_top(name: str) -> ModuleSpec | None:
    """As Python finds it: also where an installer (an editable one) has left a finder of its own."""
    for finder in sys.meta_path:
        spec = None if finder is _finder else finder.find_spec(name, None)
        if spec is not None:
            return spec
    return None


def _folder(module: _Module) -> Path:
    return module.path if module.path.is_dir() else module.path.parent


def _imports(module: _Module, name: str) -> Iterator[str]:
    """Full names of what a module imports, anywhere in it; of `from a import b` also a.b, which may be a module."""
    package = name if module.is_package else name.rpartition(".")[0]
    for node in ast.walk(module.tree()):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".") if package else []
                kept = parents[: len(parents) - node.level + 1]
                if not kept:
                    continue  # Python refuses it too
                base = ".".join([*kept, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _plain(value: Any) -> Any:
    """A syntax tree as plain data, without positions, docstrings and what is empty: the same in every Python."""
    if isinstance(value, ast.Constant):
        return [type(value.value).__name__, repr(value.value)]
    if isinstance(value, ast.AST):
        fields = {name: _plain(part) for name, part in ast.iter_fields(value) if name not in _WITHOUT_MEANING}
        return [type(value).__name__, {name: part for name, part in fields.items() if part not in (None, [])}]
    if isinstance(value, list):
        return [_plain(entry) for entry in value if not _is_text(entry)]
    return value


def _is_text(node: Any) -> bool:
    """A string that stands alone does nothing: it is documentation."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


_served: dict[str, Source] = {}  # module -> what it was, or is to be, imported from


class _Finder(MetaPathFinder):
    """Finds what plug-ins were read from."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See MetaPathFinder."""
        del path, target
        source = _served.get(fullname)
        if source is None:
            return None
        module = source.modules[fullname]
        if module.text is None and not module.path.is_dir():
            return importlib.util.spec_from_file_location(fullname, module.path)
        loader = None if module.text is None else _TextLoader(module)
        spec = ModuleSpec(fullname, loader, origin=str(module.path), is_package=module.is_package)
        if module.is_package:
            spec.submodule_search_locations = [str(_folder(module))]
        spec.has_location = module.text is not None
        return spec


class _TextLoader(Loader):
    """Runs the text that was read."""

    def __init__(self, module: _Module) -> None:
        self._module = module

    def exec_module(self, module: ModuleType) -> None:
        """See Loader."""
        code = compile(self._module.text or "", str(self._module.path), "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - the user named this file in the pipeline file, or installed it


_finder = _Finder()


def _forget(name: str, module: _Module) -> None:
    """Take an older import out. Raises ConfigError where the name is another module's, which is in use."""
    old = sys.modules.get(name)
    place = getattr(old, "__file__", None)
    if old is not None and name not in _served and place and os.path.realpath(place) != os.path.realpath(module.path):
        raise ConfigError(f"{module.path}: a module called {name} is imported already, from {place}; rename the file")
    sys.modules.pop(name, None)
