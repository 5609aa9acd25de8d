"""Plain YAML read as OmegaConf reads it, without OmegaConf: references, tags and odd numbers are left to that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import yaml

_NOT_PLAIN = ("${", "!", "???", "\\")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_@.-]*")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?[0-9]+(\.[0-9]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)")
_MOST_NODES, _MOST_LEVELS = 1000, 30  # anchors written out; a file may hide a million, or itself, behind a few
_NUMBER_STARTS = frozenset("-+.0123456789")
_STRING, _NULL, _BOOL = (f"tag:yaml.org,2002:{name}" for name in ("str", "null", "bool"))
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _OtherYamlError(Exception):
    """Something that is not plain."""


def read_plain(path: Path) -> dict[str, Any] | None:
    """The mapping in a YAML file; None where it is not there, wrong, or anything in it is not plain.

    Plain are mappings with names as keys, lists, quoted text, words, decimal numbers, true, false and null.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if any(mark in text for mark in _NOT_PLAIN):
            return None
        node = yaml.compose(text, Loader=_Loader)
        values = _plain(node, count(), 0)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, _OtherYamlError):
        return None  # what is wrong is said where it is read again
    return values if isinstance(values, dict) else None


def _plain(node: Any, counted: Iterator[int], depth: int) -> Any:
    if next(counted) > _MOST_NODES or depth > _MOST_LEVELS:
        raise _OtherYamlError
    match node:
        case yaml.MappingNode(value=pairs):
            names = [_key(key) for key, _ in pairs]
            if len(set(names)) < len(names):
                raise _OtherYamlError
            return {name: _plain(value, counted, depth + 1) for name, (_, value) in zip(names, pairs, strict=True)}
        case yaml.SequenceNode(value=entries):
            return [_plain(entry, counted, depth + 1) for entry in entries]
        case yaml.ScalarNode():
            return _scalar(node)
    raise _OtherYamlError


def _key(node: Any) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag != _STRING or not _KEY.fullmatch(node.value):
        raise _OtherYamlError
    return str(node.value)


def _scalar(node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    if node.style and node.tag == _STRING:  # of quotes or a block; plain text has none, "" by the C reader
        return text
    if node.style:
        raise _OtherYamlError
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return yaml.SafeLoader.bool_values[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if node.tag != _STRING or text[0] in _NUMBER_STARTS:
        raise _OtherYamlError
    return text
