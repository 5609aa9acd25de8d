"""Predictions as one file, its form by the ending: Parquet as it is, CSV with a column a class, ActivityNet's JSON."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from reelwright.stages.export.predictions import PredictionExport, export_activitynet
from reelwright.storage.errors import ConfigError
from reelwright.storage.files import replacing
from reelwright.storage.results.predictions import PredictionSet, scores_matrix

ENDINGS = (".parquet", ".csv", ".json")
_NOT_IN_CSV = ("video_digest", "scores", "targets")  # lists have no cell, and digests are for machines


def check_scores_file(out: Path) -> None:
    """Raise ConfigError where a file of this name could not be written, before anything is predicted."""
    if out.suffix not in ENDINGS:
        raise ConfigError(
            f"--out {out}: the ending says the form: .parquet (windows with the scores of all classes), .csv (the "
            "same, a column a class), .json (ActivityNet's segments)"
        )
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; name a file in it")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.absolute().parent}; make it first")


def write_scores_file(predictions: PredictionSet, out: Path) -> int:
    """Write the windows of all videos (of .json the segments) to ``out``, in one step; returns the number of videos."""
    count = int(predictions.videos(columns=["video_id"]).num_rows)
    with replacing(out) as temporary:
        if out.suffix == ".parquet":
            shutil.copyfile(predictions.folder / "windows.parquet", temporary)
        elif out.suffix == ".csv":
            _write_csv(predictions, temporary)
        else:
            with tempfile.TemporaryDirectory(dir=temporary.parent) as folder:
                export_activitynet(predictions, Path(folder), PredictionExport())
                (Path(folder) / "predictions.json").replace(temporary)
    return count


def _write_csv(predictions: PredictionSet, path: Path) -> None:
    """One line a window, video by video; times in seconds, `score.CLASS` in [0, 1]."""
    writer = None
    try:
        for table in predictions.by_video("windows"):
            plain = plain_scores(table, predictions.info.classes)
            writer = writer or pa_csv.CSVWriter(path, plain.schema)
            writer.write_table(plain)
    finally:
        if writer is not None:
            writer.close()


def plain_scores(table: pa.Table, classes: tuple[str, ...]) -> pa.Table:
    """A table of predictions without codes and lists: texts, and a column `score.CLASS` for each class."""
    names = [name for name in table.column_names if name not in _NOT_IN_CSV]
    coded = {name for name in names if pa.types.is_dictionary(table.schema.field(name).type)}
    columns = {name: table[name].cast(pa.string()) if name in coded else table[name] for name in names}
    scores_NK = scores_matrix(table)
    return pa.table({**columns, **{f"score.{name}": scores_NK[:, place] for place, name in enumerate(classes)}})
