"""Feature files: which endings hold features that people already have, and those below a folder."""

from __future__ import annotations

from pathlib import Path

from reelwright.storage.errors import InputError
from reelwright.storage.manifest import ManifestVideo, scan_url
from reelwright.storage.urls import is_url

FEATURE_SUFFIXES = frozenset([".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5", ".mat"])


def is_feature_file(path: str | Path) -> bool:
    """Whether a path is named as a file of features; such a file stands for its video where there is no other."""
    return Path(path).suffix.lower() in FEATURE_SUFFIXES


def scan_features(folder: Path | str, *, default_split: str) -> list[ManifestVideo]:
    """Every feature file below ``folder``, or a URL. With ``train/``, ``val/``, ``test/`` on top, these are the splits.

    The video_id is the path below the folder without its ending. Raises InputError when there is no such folder.
    """
    if is_url(str(folder)):
        return scan_url(str(folder), default_split=default_split, is_wanted=is_feature_file, what="features")
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of features")
    paths = sorted(path for path in folder.rglob("*") if is_feature_file(path) and path.is_file())
    videos = []
    for number, path in enumerate(paths, start=1):
        relative = path.relative_to(folder)
        top = relative.parts[0] if len(relative.parts) > 1 else ""
        split = top if top in {"train", "val", "test"} else default_split
        name = relative.with_suffix("").as_posix()
        videos.append(ManifestVideo(video_id=name, path=str(path.absolute()), split=split, row=number))
    return videos
