"""From the arrays of a file to rows with their spans of time. Pure arithmetic, apart from reading the file.

fps 10, hop 2, length 4     row 0 [0.0, 0.4)  row 1 [0.2, 0.6)  row 2 [0.4, 0.8)   source frames [0, 4) [2, 6) [4, 8)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.stages.features.config import FeaturesConfig
from reelwright.stages.features.files import choose, open_arrays
from reelwright.storage.arrays.spans import FloatArray, Spans
from reelwright.storage.errors import ItemError
from reelwright.storage.tables.text_tables import real_in

Array = npt.NDArray[Any]


def read_features(path: Path, config: FeaturesConfig, *, times: Array | None = None) -> tuple[Array, Spans]:
    """Rows (T, ...) in the stored dtype and their spans, of one file.

    ``times`` are those of the times table, (T,) or (T, 2) seconds. Raises ItemError for what cannot be used.
    """
    with open_arrays(path) as arrays:
        values = choose(arrays, config.key, besides=config.times_key, path=path)()
        if config.times_key is not None:
            times = np.asarray(choose(arrays, config.times_key, besides=None, path=path)())
    rows = _as_rows(values, config, path)
    return rows, spans_of(len(rows), config, times=times, path=path)


def spans_of(num_rows: int, config: FeaturesConfig, *, times: Array | None, path: Path) -> Spans:
    """Where so many rows lie; by ``times`` in seconds where given, else by frame rate and hop.

    Rows of times without an end last to the next one, the last row as long as most. Raises ItemError.
    """
    starts = np.arange(num_rows, dtype=np.int64) * config.hop
    stops = starts + (config.length or config.hop)
    if config.fps is not None:
        return Spans(
            config.start_seconds + starts / config.fps, config.start_seconds + stops / config.fps, starts, stops
        )
    if times is None:
        raise ItemError("no_times", f"{path.name}: the times table has no line for this video.")
    start_seconds, stop_seconds = _spans_of_times(_squeezed(times).astype(np.float64), path)
    if len(start_seconds) != num_rows:
        raise ItemError("times_differ", f"{path.name} has {num_rows} rows, but there are {len(start_seconds)} times.")
    return Spans(start_seconds, stop_seconds, starts, stops)


def times_by_video(columns: Mapping[str, Sequence[str]], *, path: Path) -> dict[str, Array]:
    """Seconds (T,) or (T, 2) of each video of a times table. Raises ItemError for a cell that is no number."""
    names = ["start_seconds", *(["stop_seconds"] if "stop_seconds" in columns else [])]
    try:
        values = np.array([[real_in(cell, name) for cell in columns[name]] for name in names]).T
    except ValueError as error:
        raise ItemError("times_not_numbers", f"{path.name}: {error}; times are seconds.") from None
    ids = np.asarray(columns["video_id"])
    order = np.argsort(ids, kind="stable")
    found, first = np.unique(ids[order], return_index=True)
    parts = np.split(values[order], first[1:])
    return {str(name): part for name, part in zip(found, parts, strict=True)}


def _as_rows(values: Array, config: FeaturesConfig, path: Path) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ItemError("not_numbers", f"{path.name} holds {array.dtype}, not real numbers.")
    if config.one_hot is not None:
        return _one_hot(_squeezed(array), config.one_hot, path).astype(config.dtype)
    if array.size == 0:
        raise ItemError("no_rows", f"{path.name} has no rows: shape {array.shape}.")
    rows = _time_first(array, config, path)
    dim = rows.shape[-1 if rows.ndim < 4 else 1]
    if config.dim is not None and dim != config.dim:
        hint = " Set `transposed: true`?" if array.shape[0 if not config.transposed else -1] == config.dim else ""
        raise ItemError("other_dim", f"{path.name} has rows of {rows.shape[1:]}, not of dim {config.dim}.{hint}")
    _check_finite(rows, config, path)
    return np.ascontiguousarray(rows, dtype=config.dtype)


def _time_first(array: Array, config: FeaturesConfig, path: Path) -> Array:
    """(T, D), (T, N, D) or (T, C, H, W), as the table of `FeaturesConfig` says. Raises ItemError for other shapes."""
    rows = np.moveaxis(array, -1, 0) if config.transposed and array.ndim > 1 else array
    if rows.ndim > 2 and config.output.rpartition(".")[2] not in {"tokens", "map"}:
        is_map = rows.ndim == 4 and config.channels_last is not None
        if rows.ndim in {3, 4} and len(rows) == 1 and sum(size > 1 for size in rows.shape[1:]) > 1 and not is_map:
            one = "tokens` where it is one row of so many tokens" if rows.ndim == 3 else "map` where it is one map"
            raise ItemError(
                "not_rows",
                f"{path.name} has the shape {array.shape}: is the first axis a batch? Save it without (`array[0]`); "
                f"or set `output: {one}.",
            )
        wide = [size for size in rows.shape[1:] if size > 1]
        rows = rows.reshape(len(rows), *(wide or [1])) if len(wide) <= 1 else rows
    if rows.ndim not in {2, 3, 4}:
        raise ItemError(
            "not_rows",
            f"{path.name} has the shape {array.shape}; rows are (T, D), (T, N, D) or (T, C, H, W), or with time last "
            "and `transposed: true`. For a class id a row, (T,), set `one_hot`.",
        )
    if rows.ndim == 4:
        first, second, last = rows.shape[1:]
        if config.channels_last is None and first == second < last:
            raise ItemError(
                "which_axis",
                f"{path.name} has maps of {rows.shape[1:]}: set `channels_last: true` where that is (H, W, C), or "
                "false where it is (C, H, W).",
            )
        rows = np.moveaxis(rows, -1, 1) if config.channels_last else rows
    return rows


def _check_finite(rows: Array, config: FeaturesConfig, path: Path) -> None:
    """Raise ItemError (not_finite) where values are NaN or infinite, or too large for the stored dtype."""
    if rows.dtype.kind != "f" and config.dtype == "float32":
        return
    with np.errstate(over="ignore"):
        stored = rows.astype(config.dtype).reshape(len(rows), -1)
    bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
    if not len(bad):
        return
    where = f"{path.name}: {len(bad):,} of {len(rows):,} rows, row {bad[0]} first,"
    given = rows.reshape(len(rows), -1)
    if np.isfinite(given).all():
        largest = float(np.abs(given).max())
        more = "Set dtype: float32." if config.dtype == "float16" else "Scale them before they are saved."
        raise ItemError(
            "not_finite",
            f"{where} hold values up to {largest:.3g}; {config.dtype} holds them up to "
            f"{float(np.finfo(config.dtype).max):.3g}. {more}",
        )
    raise ItemError(
        "not_finite",
        f"{where} hold {int(np.isnan(given).sum()):,} NaN and {int(np.isinf(given).sum()):,} infinite values in the "
        "file itself. Make the features of this video again, or write numbers there.",
    )


def _one_hot(ids: Array, num_classes: int, path: Path) -> Array:
    if ids.ndim != 1 or ids.size == 0 or (ids != np.floor(ids)).any():
        raise ItemError("not_ids", f"{path.name}: one_hot needs whole numbers (T,), not {ids.dtype} {ids.shape}.")
    wrong = ids[(ids < 0) | (ids >= num_classes)]
    if len(wrong):
        raise ItemError("not_ids", f"{path.name}: class {wrong[0]} is outside 0 to {num_classes - 1} (one_hot).")
    return np.eye(num_classes)[ids.astype(np.int64)]


def _squeezed(values: Array) -> Array:
    """MATLAB has no (T,): a row or a column of numbers is one."""
    return values.reshape(-1) if values.ndim == 2 and 1 in values.shape and values.shape != (1, 2) else values


def _spans_of_times(times: Array, path: Path) -> tuple[FloatArray, FloatArray]:
    if times.ndim == 2 and times.shape[1] == 2:
        start, stop = times[:, 0].copy(), times[:, 1].copy()
    elif times.ndim == 1 and len(times) > 1:
        steps = np.diff(times)
        start, stop = times, np.append(times[1:], times[-1] + np.median(steps))
    else:
        raise ItemError(
            "not_times",
            f"{path.name}: times are (T, 2) starts and stops, or (T,) of two rows or more, not {times.shape}.",
        )
    if not np.isfinite(times).all() or (stop <= start).any() or (np.diff(start) < 0).any():
        raise ItemError("not_times", f"{path.name}: times must ascend, and every row must stop after its start.")
    return start, stop
