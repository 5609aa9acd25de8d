"""What came of one sample or class, as its line in the ledger says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelwright.storage.digests import digest as digest_of_value
from reelwright.storage.digests import file_digest

FRAME_STORE = "frames.zarr"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What came of one sample or class. Paths are relative to the folder."""

    name: str
    label: str
    split: str
    paths: tuple[str, ...]
    num_frames: int
    num_bytes: int
    seconds: float
    num_rejected: int  # degenerate draws before the one that was kept
    problem: str = ""  # why there is none
    digest: str = ""  # of the content of all paths together

    def plain(self) -> dict[str, Any]:
        """For the ledger."""
        return {**asdict(self), "paths": list(self.paths)}

    @classmethod
    def of_plain(cls, values: Mapping[str, Any]) -> Made:
        """Back from the ledger."""
        return cls(**{**values, "paths": tuple(values["paths"])})


def digest_of(folder: Path, paths: Sequence[str]) -> str:
    """The digest of the content of files or folders, by their paths relative to ``folder``."""
    return digest_of_all([folder / path for path in paths])


def digest_of_all(places: Sequence[Path]) -> str:
    """The same, by the paths themselves."""
    return digest_of_value([file_digest(place) for place in places])
