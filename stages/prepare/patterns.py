"""Patterns of paths: `{label}/{file}` filled with what is known, the rest taken from the paths that fit.

Matched at the end of a path: `cut/a.avi` fits `clips/cut/a.avi`, and `{label}/a.avi` gives label `cut` there.
"""

from __future__ import annotations

import re
import string
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

_FORMATTER = string.Formatter()


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its values; `{start:06d}` is a number. Raises KeyError for a value that is not there."""
    return _FORMATTER.vformat(template, (), {name: _Value(value) for name, value in values.items()})


def compile_pattern(pattern: str, values: Mapping[str, str]) -> re.Pattern[str]:
    """A regular expression over whole paths; names without a value become groups, ``*`` is anything but ``/``."""
    parts = ["(?:.*/)?"]
    for literal, name, form, _ in _FORMATTER.parse(pattern):
        parts.append("[^/]*".join(re.escape(text) for text in literal.split("*")))
        if name is not None and name in values:
            parts.append(re.escape(format(_Value(values[name]), form or "")))
        elif name is not None:
            parts.append(f"(?P<{name}>[^/]+)")
    return re.compile("".join(parts), re.IGNORECASE)


class PathIndex:
    """Relative paths, found by the end of their name: 200,000 videos are looked up without comparing all with all."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = sorted(paths)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            name = PurePosixPath(path).name.lower()
            for stem in {name, name.rpartition(".")[0] or name}:
                self._by_stem[stem].append(path)

    def matches(self, pattern: str, values: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
        """Paths that fit, each with the values taken from it; where one is the pattern itself, only that one."""
        compiled = compile_pattern(pattern, values)
        found = [(path, match) for path in self._candidates(pattern, values) if (match := compiled.fullmatch(path))]
        whole = [(path, match) for path, match in found if path.count("/") == pattern_depth(pattern, values)]
        chosen = whole if len(whole) == 1 else found
        return [(path, match.groupdict()) for path, match in chosen]

    def _candidates(self, pattern: str, values: Mapping[str, str]) -> list[str]:
        last = pattern.rpartition("/")[2]
        try:
            name = PurePosixPath(fill(last.removesuffix(".*"), values)).name.lower()
        except KeyError:
            return self.paths
        return self.paths if "*" in name or not name else self._by_stem.get(name, [])


def pattern_depth(pattern: str, values: Mapping[str, str]) -> int:
    """How many folders a path has that is just the pattern."""
    known = {name: values.get(name, "x") for _, name, _, _ in _FORMATTER.parse(pattern) if name is not None}
    plain = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", pattern)  # without forms such as ``:06d``, which only numbers take
    return _FORMATTER.vformat(plain, (), known).count("/")


class _Value(str):
    """A text that is formatted as a number where a number's form is asked for."""

    __slots__ = ()

    def __format__(self, form: str) -> str:
        return format(int(self), form) if form.endswith("d") else format(str(self), form)
