"""Feature files: which endings hold features that people already have, and those below a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from reelwright.storage.store import is_url
from reelwright.storage.tables.manifest import ManifestVideo, scan_folder, scan_url

FEATURE_SUFFIXES = frozenset([".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5", ".mat"])


def is_feature_file(path: str | Path) -> bool:
    """Whether a path is named as a file of features; such a file stands for its video where there is no other."""
    return Path(path).suffix.lower() in FEATURE_SUFFIXES


def scan_features(folder: Path | str, *, default_split: str, left_out: list[str] | None = None) -> list[ManifestVideo]:
    """Every feature file below ``folder``, or a URL. With ``train/``, ``val/``, ``test/`` on top, these are the splits.

    The video_id is the path below the folder without its ending. What was left out: see `scan_folder`. Raises
    InputError when there is no such folder.
    """
    scan = partial(scan_url, str(folder)) if is_url(str(folder)) else partial(scan_folder, Path(folder))
    return scan(default_split=default_split, is_wanted=is_feature_file, left_out=left_out, what="features")
