"""Class files: the parameters of one class of synthetic videos as `.npz` of plain arrays, never pickled.

Published class files of fractals and dead leaves open too; those of octopuses hold pickled objects and are refused.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.families.table import FAMILIES, Parameters, fixed_labels
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.files import replacing

MAX_CLASS_BYTES = 16 << 20  # the largest real ones have some 10 kB
SUFFIX = ".npz"


def write_class(path: Path, parameters: Parameters) -> None:
    """Write a class file in one step; equal parameters give equal bytes."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **dict(parameters))


def read_class(path: Path, *, family: str) -> dict[str, NDArray[Any]]:
    """The parameters of a class. Raises InputError for a file that is no class file of ``family``."""
    check = FAMILIES[family].check
    assert check is not None  # of others none are read
    try:
        _check_bytes(path)
        with np.load(path, allow_pickle=False) as arrays:
            parameters = {name: np.asarray(arrays[name]) for name in arrays.files}
        _check_numbers(parameters)
        check(parameters)
    except KeyError as error:
        raise InputError(
            f"{path} is no class file of {family}: it has no {error}. Make some with --gen-param"
        ) from None
    except (ValueError, TypeError, OSError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no class file of {family}: {error}. Make some with --gen-param") from error
    return parameters


def find_classes(folder: Path) -> dict[str, Path]:
    """Class name -> file of all class files in a folder, 2 before 10. Raises InputError where there is none."""
    paths = {path.stem: path for path in folder.glob(f"*{SUFFIX}")} if folder.is_dir() else {}
    if not paths:
        raise InputError(f"{folder}: no class file (*{SUFFIX}) in it. Make some with --gen-param N --out {folder}")
    return {name: paths[name] for name in in_order(paths)}


def in_order(names: Iterable[str]) -> list[str]:
    """Names of classes in the order in which they are shuffled, 2 before 10."""
    return sorted(names, key=_natural)


def class_files(config: SynthesizeConfig, folder: Path) -> dict[str, Path]:
    """The class files in a folder, as `find_classes`. Raises ConfigError where they do not go with the settings."""
    if known := fixed_labels(config):
        raise ConfigError(f"{config.family} takes no class files: its {len(known)} classes are fixed. Leave them out")
    files = find_classes(folder)
    for path in files.values():
        is_still = "weights" in read_class(path, family=config.family)
        if is_still != config.is_still:
            made, hint = ("images", "ask for still images") if is_still else ("videos", "do not ask for still images")
            raise ConfigError(f"{path} is a class of {made}: {hint}, or give other classes")
    return {name: path.absolute() for name, path in files.items()}


def _check_bytes(path: Path) -> None:
    """A small file may unpack to a large one; nothing is unpacked yet."""
    with zipfile.ZipFile(path) as archive:
        num_bytes = sum(entry.file_size for entry in archive.infolist())
    if num_bytes > MAX_CLASS_BYTES:
        raise ValueError(f"it unpacks to {num_bytes:,} bytes, where a class has at most {MAX_CLASS_BYTES:,}")


def _check_numbers(parameters: Parameters) -> None:
    for name, values in parameters.items():
        if values.dtype.kind not in "biuf":
            raise ValueError(f"{name} holds {values.dtype}, not numbers")
        if np.isinf(values).any() or (name != "controls" and np.isnan(values).any()):
            raise ValueError(f"{name} holds numbers that are not finite")


def _natural(name: str) -> list[tuple[int, str]]:
    """Digits as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]
