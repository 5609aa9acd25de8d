"""What stages make: one entry for each kind of output, by which it is written, planned, verified, collected and read.

A new kind is one entry here, and what its stage calls `produces`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True, kw_only=True)
class OutputKind:
    """One kind of output."""

    folder: str  # of the store; in it lies one folder for each key
    marker: str  # the file in a key's folder that is written last, and says that the rest is there
    ending: str = ""  # of the name of a key's folder, after the key
    is_rows: bool = False  # rows of single videos, all of one spec; else something whole, its files in the record
    reader: str  # `module:name` of what reads a key's folder
    is_listed: bool = False  # single files, which the rows of the ledger name
    page: str = ""  # the file in a key's folder that people look at; empty where there is none
    check: str = ""  # `module:name` of what compares data of single videos with the ledger; empty where there is none
    beside: str = ""  # the kind whose items have it too, where their settings ask for it (`also_produces`)

    def open(self, folder: Path) -> Any:
        """What reads the output in a key's folder."""
        return resolve_name(self.reader)(folder)


def _zarr(folder: str, *, reader: str, beside: str = "") -> OutputKind:
    """A kind of rows: a Zarr group a spec, a group in it a video."""
    check = "reelwright.storage.integrity.check:check_group"
    reader = f"reelwright.storage.{reader}"
    return OutputKind(
        folder=folder, ending=".zarr", marker="zarr.json", is_rows=True, reader=reader, check=check, beside=beside
    )


KINDS: dict[str, OutputKind] = {  # by what stages call it (`StageConfig.produces`)
    "frames": _zarr("frames", reader="arrays.frames:FrameStore"),
    "embeddings": _zarr("embeddings", reader="arrays.embeddings:EmbeddingStore"),
    "run": OutputKind(folder="runs", marker="model.safetensors", reader="reelwright.storage.results.runs:RunFolder"),
    "predictions": OutputKind(
        folder="predictions",
        marker="windows.parquet",
        reader="reelwright.storage.results.predictions:PredictionSet",
        check="reelwright.storage.integrity.check:check_scores",
    ),
    "videos": OutputKind(
        folder="synthetic",
        marker="",  # its ledger alone says what is there
        is_listed=True,
        reader="pathlib:Path",
        check="reelwright.storage.integrity.check:check_files",
    ),
    "attention": _zarr("attention", reader="arrays.window_outputs:WindowOutputStore", beside="predictions"),
    "steps": OutputKind(folder="steps", marker="steps.parquet", reader="reelwright.storage.results.steps:StepSet"),
    "scores": OutputKind(folder="reports", marker="metrics.json", page="report.html", reader="pathlib:Path"),
    "pictures": OutputKind(folder="pictures", marker="pictures.json", page="index.html", reader="pathlib:Path"),
}

# folders of the store, by how what lies in them is found
GROUPED = tuple(kind.folder for kind in KINDS.values() if kind.is_rows)
RECORDED = tuple(kind.folder for kind in KINDS.values() if not kind.is_rows)
LISTED = tuple(kind.folder for kind in KINDS.values() if kind.is_listed)
WITH_ITEMS = {kind.folder: kind for kind in KINDS.values() if kind.check}
