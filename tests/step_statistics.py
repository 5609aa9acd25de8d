"""How often and in which order an assembly changes: python -m tests.step_statistics FOLDER ...

FOLDER holds SPLIT/RECORDING/PSR_labels_raw.csv, as the labels of MECCANO, or the recordings of `synthesize`. Several
columns are printed side by side, with the stand-in's presets beside them. A change is a moment in which the set of
rightly mounted parts changes; every recording is measured from its first frame to its last change.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reelwright.models.systems.step_states import without_errors
from reelwright.stages.synthesize.config import ProcedureSettings
from reelwright.stages.synthesize.procedures.write import DatasetParameters, list_jobs

Recording = Sequence[tuple[float, Sequence[int]]]  # (seconds, state of every part), the first at the start

WINDOW_SECONDS = 25.6  # of 65 rows, every fourth frame at 10 frames a second: the window of the published recipe
MECCANO_FPS = 12.0
_HOP_SECONDS = 0.4
_PERCENTILES = (5, 25, 50, 75, 95)
MECCANO = {  # of the 13 recordings of train and val, by this script
    "changes a minute": 0.6878,
    "changed parts a minute": 0.9219,
    "windows without a change": 0.7454,
    "windows with one": 0.231,
    "windows with more": 0.02366,
    "gap, percentile 5, s": 8.271,
    "gap, percentile 25, s": 37.4,
    "gap, percentile 50, s": 66.0,
    "gap, percentile 75, s": 105.7,
    "gap, percentile 95, s": 266.7,
    "gap, mean, s": 86.26,
    "gap, deviation over mean": 0.8493,
    "changes of several parts": 0.2461,
    "removals of changed parts": 0.08594,
    "wrong ones to right installations": 0.05983,
    "order, mean tau of two recordings": 0.8549,
    "order, percentile 5 of tau": 0.5757,
}


def recordings_of(folder: Path, *, fps: float) -> list[Recording]:
    """The raw states of all recordings below a folder; the first row's frame is the first."""
    found = []
    for path in sorted(folder.rglob("PSR_labels_raw.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(int(row[0].partition(".")[0]), tuple(map(int, row[1:]))) for row in csv.reader(file)]
        found.append([((frame - rows[0][0]) / fps, state) for frame, state in rows])
    return found


def scripted(settings: ProcedureSettings, *, num_videos: int, seed: int) -> list[Recording]:
    """The same of stand-ins that are scripted, not drawn."""
    parameters = DatasetParameters(num_videos, 0, 0, seed, 64, 64, 10.0, procedure=settings.changed())
    return [job.script_and_look()[0].states for job in list_jobs(parameters)]


def statistics_of(recordings: Sequence[Recording]) -> dict[str, float]:
    """Figures over all recordings together, by name."""
    gaps: list[float] = []
    counts: list[np.ndarray] = []
    orders: list[dict[int, float]] = []
    seconds = num_changes = num_parts = num_together = num_removed = num_installed = num_wrong = 0.0
    for states in recordings:
        times, first = [0.0], dict[int, float]()
        for (_, before), (now, after) in itertools.pairwise(states):
            num_wrong += sum(new == -1 != old for old, new in zip(before, after, strict=True))
            pairs = list(zip(without_errors(before), without_errors(after), strict=True))
            changed = [part for part, (old, new) in enumerate(pairs) if old != new]
            installed = [part for part in changed if pairs[part][1]]
            times += [now] if changed else []
            num_parts += len(changed)
            num_installed += len(installed)
            num_removed += len(changed) - len(installed)
            num_together += len(changed) > 1
            first.update({part: now for part in installed if part not in first})
        gaps += np.diff(times[1:]).tolist()
        seconds, num_changes = seconds + times[-1], num_changes + len(times) - 1
        stops = np.arange(WINDOW_SECONDS, times[-1] + 1e-9, _HOP_SECONDS)
        inside = (np.asarray(times[1:]) > stops[:, None] - WINDOW_SECONDS) & (np.asarray(times[1:]) <= stops[:, None])
        counts.append(inside.sum(axis=1))
        orders.append(first)
    count = np.concatenate(counts)
    agreements = _agreements(orders, num_parts=len(recordings[0][0][1]))
    return {
        "changes a minute": num_changes / seconds * 60,
        "changed parts a minute": num_parts / seconds * 60,
        "windows without a change": float(np.mean(count == 0)) if len(count) else float("nan"),
        "windows with one": float(np.mean(count == 1)) if len(count) else float("nan"),
        "windows with more": float(np.mean(count > 1)) if len(count) else float("nan"),
        **{f"gap, percentile {p}, s": float(np.percentile(gaps, p)) for p in _PERCENTILES},
        "gap, mean, s": float(np.mean(gaps)),
        "gap, deviation over mean": float(np.std(gaps) / np.mean(gaps)),
        "changes of several parts": num_together / num_changes,
        "removals of changed parts": num_removed / num_parts,
        "wrong ones to right installations": num_wrong / num_installed,
        "order, mean tau of two recordings": float(np.mean(agreements)),
        "order, percentile 5 of tau": float(np.percentile(agreements, 5)),
    }


def _agreements(orders: Sequence[dict[int, float]], *, num_parts: int) -> np.ndarray:
    """Kendall's tau-b of each two recordings: of the times at which the parts of both were mounted first."""
    times = np.array([[order.get(part, np.nan) for part in range(num_parts)] for order in orders])
    one, other = np.triu_indices(num_parts, k=1)
    signs = np.sign(times[:, one] - times[:, other])  # (recordings, pairs of parts); nan: one of the two never was
    known = (~np.isnan(signs)).astype(float)
    signs = np.nan_to_num(signs)
    ordered = (signs**2) @ known.T  # pairs that the first orders, of those that both know
    return (signs @ signs.T / np.sqrt(ordered * ordered.T))[np.triu_indices(len(orders), k=1)]


def main() -> None:
    """Print a table, a column each."""
    parser = argparse.ArgumentParser(prog="python -m tests.step_statistics", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--fps", type=float, default=MECCANO_FPS, help="of the folders' frame numbers")
    parser.add_argument("--videos", type=int, default=200, help="scripts of each preset")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    columns = {str(folder): statistics_of(recordings_of(folder, fps=given.fps)) for folder in given.folders}
    for preset in ("easy", "realistic"):
        settings = ProcedureSettings(preset=preset)  # type: ignore[arg-type]
        columns[preset] = statistics_of(scripted(settings, num_videos=given.videos, seed=given.seed))
    print("| " + " | ".join(["", *columns]) + " |\n|" + "---|" * (len(columns) + 1))
    for name in next(iter(columns.values())):
        print("| " + " | ".join([name, *(f"{column[name]:.3g}" for column in columns.values())]) + " |")


if __name__ == "__main__":
    main()
