"""The folder of a synthetic data set: whose it is, what is finished, and the tables for others.

folder/
  dataset.json     what decides the content, written first: samples found later are known to be made from it
  made.jsonl       a line a finished sample, appended after its files are in place
  <label>/<n>.mp4  or <n>.mp4, <n>-<k>.jpg, frames.zarr/<digest>
  manifest.csv     video_id,path,label,split; for pipeline files
  report.json      how many, how large, how fast, and how many degenerate draws were rejected
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelwright.stages.synthesize.config import label_parts
from reelwright.storage.constants import TEMPORARY
from reelwright.storage.digests import files_digest
from reelwright.storage.errors import InputError
from reelwright.storage.files import folder_bytes, remove, write_if_other, write_json, write_text

RECORD, LEDGER, MANIFEST, REPORT, LOCK = "dataset.json", "made.jsonl", "manifest.csv", "report.json", ".lock"
_OURS = {LOCK, RECORD}


def claim(folder: Path, content: Mapping[str, Any]) -> None:
    """Make the folder one of a data set with ``content``.

    Raises InputError where it holds one of other content, or files that are not ours.
    """
    record = folder / RECORD
    asked = json.loads(json.dumps(content))
    if record.exists():
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{record} is not JSON ({error}): choose another folder or remove this one") from error
        if found != asked:
            message = _differences(found if isinstance(found, dict) else {}, asked)
            raise InputError(
                f"{folder} holds a data set made with other settings ({message}): choose another folder, or the same"
            )
        return
    if folder.exists() and any(path.name not in _OURS for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty and has no {RECORD}: choose a new or an empty folder")
    write_json(record, asked)


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed call left half written; nobody else may be at work in the folder."""
    for path in list(folder.rglob(f"{TEMPORARY}*")):
        remove(path)


def finished(folder: Path) -> dict[str, Made]:
    """Samples that are there whole, by name; the ledger is left with these lines only.

    A line counts where its files have the size it says. Degenerate ones count too: they would be so again.
    """
    ledger = folder / LEDGER
    lines = ledger.read_text(encoding="utf-8", errors="replace").splitlines() if ledger.exists() else []
    whole = {made.name: made for line in lines if (made := _made_of(line)) and _is_whole(folder, made)}
    if lines:
        write_text(ledger, "".join(_line(made) for made in whole.values()))
    return whole


def _is_whole(folder: Path, made: Made) -> bool:
    """Whether all files of a sample are there, with the size that they had."""
    places = [folder / path for path in made.paths]
    return all(place.exists() for place in places) and sum(map(folder_bytes, places)) == made.num_bytes


def append(folder: Path, made: Made) -> None:
    """Note a sample that is finished."""
    with (folder / LEDGER).open("a", encoding="utf-8") as file:
        file.write(_line(made))


def write_manifest(folder: Path, samples: Sequence[Made], *, parts: tuple[str, ...] = ()) -> None:
    """Write the table of what there is; an equal one stays untouched.

    ``parts`` name what labels are made of (split at `-`), a column each.
    """
    rows = [
        (
            made.name if len(made.paths) == 1 else str(Path(path).with_suffix("")),
            path,
            made.label,
            made.split,
            *label_parts(made.label, parts).values(),
        )
        for made in samples
        for path in made.paths
    ]
    write_rows(folder / MANIFEST, ("video_id", "path", "label", "split", *parts), rows)


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV in one step; an equal file stays untouched."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_if_other(path, text.getvalue())


def report_of(samples: Sequence[Made]) -> dict[str, Any]:
    """Counts of what there is, as plain data."""
    rejected: Counter[str] = Counter()
    for made in samples:
        rejected[made.label] += made.num_rejected
    good = [made for made in samples if not made.problem]
    return {
        "samples": len(good),
        "files": sum(len(made.paths) for made in good),
        "frames": sum(made.num_frames for made in good),
        "bytes": sum(made.num_bytes for made in good),
        "process_seconds": round(sum(made.seconds for made in samples), 3),
        "rejected_degenerate_draws": rejected.total(),
        "rejected_by_label": {label: count for label, count in sorted(rejected.items()) if count and label},
        "given_up": [{"name": made.name, "problem": made.problem} for made in samples if made.problem],
    }


def _line(made: Made) -> str:
    return json.dumps(made.plain(), ensure_ascii=False) + "\n"


def _made_of(line: str) -> Made | None:
    """None for a line that a killed call did not finish, or that is damaged: its sample is made again."""
    try:
        return Made.of_plain(json.loads(line))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _differences(found: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Settings that are not the same, old and new in one line."""
    changed = [name for name in {**found, **asked} if found.get(name) != asked.get(name)]
    return ", ".join(
        name if isinstance(asked.get(name), dict) else f"{name}: {found.get(name)} -> {asked.get(name)}"
        for name in changed
    )


FRAME_STORE = "frames.zarr"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What came of one sample or class. Paths are relative to the folder."""

    name: str
    label: str
    split: str
    paths: tuple[str, ...] = ()
    num_frames: int = 0
    num_bytes: int = 0
    seconds: float
    num_rejected: int = 0  # degenerate draws before the one that was kept
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
    return files_digest([folder / path for path in paths])
