"""Feature files: which endings hold features that people already have."""

from __future__ import annotations

from pathlib import Path

FEATURE_SUFFIXES = frozenset([".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5", ".mat"])


def is_feature_file(path: str | Path) -> bool:
    """Whether a path is named as a file of features; such a file stands for its video where there is no other."""
    return Path(path).suffix.lower() in FEATURE_SUFFIXES
