"""Real step labels of MECCANO: steps derived from raw states are those that were published, but for one recording."""

from __future__ import annotations

import csv
import json
from collections import Counter

import pytest

from reelwright.models.systems.step_states import REMOVE, WRONG, action_of, steps_of_states
from reelwright.stages.prepare.recordings import RecordingsRequest, builtin_procedure, prepare_recordings
from reelwright.stages.steps.procedure import read_procedure

# psr_and_carl.md A1.2: raw rows, correct steps, incorrect steps
COUNTS = {"train": (183, 224, 12), "val": (32, 36, 0)}


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [(int(row[0][:-4]), *row[1:]) for row in csv.reader(file)]


@pytest.mark.parametrize("split", COUNTS)
def test_steps_of_raw_states(real_data, split):
    totals: Counter[str] = Counter()
    differing = []
    for recording in sorted((real_data / "psr" / "MECCANO_PSR_Annotations" / split).iterdir()):
        raw = [(frame, tuple(map(int, state))) for frame, *state in rows(recording / "PSR_labels_raw.csv")]
        found = steps_of_states(raw, include_errors=False).steps
        published = [(frame, int(step)) for frame, step, _ in rows(recording / "PSR_labels.csv")]
        with_errors = [(frame, int(step)) for frame, step, _ in rows(recording / "PSR_labels_with_errors.csv")]
        if sorted(found) != sorted(published):
            differing.append((recording.name, len(published) - len(found)))
        totals["raw"] += len(raw)
        totals["right"] += len(published)
        totals["wrong"] += sum(action_of(step) == WRONG for _, step in with_errors)
        totals["removed"] += sum(action_of(step) == REMOVE for _, step in published)
    assert (totals["raw"], totals["right"], totals["wrong"]) == COUNTS[split]
    assert differing == ([("0016", 4)] if split == "train" else [])


def test_prepare_counts_what_the_reference_counts(real_data, tmp_path):
    procedure = builtin_procedure("meccano")
    assert procedure is not None
    root = real_data / "psr" / "MECCANO_PSR_Annotations"
    found = prepare_recordings(RecordingsRequest(procedure=procedure, root=root, out=tmp_path))
    names = ("state rows", "right steps", "wrong steps")
    assert {split: tuple(counts[name] for name in names) for split, counts in found.counts.items()} == COUNTS
    differing = {problem.video: problem.detail for problem in found.problems if problem.kind == "steps"}
    assert set(differing) == {"0016"}
    assert "1144 Install headlamp" in differing["0016"]
    assert not [problem for problem in found.problems if problem.kind in {"split", "labels"}]


@pytest.mark.parametrize(("name", "file"), [("industreal", "industreal"), ("meccano", "MECCANO")])
def test_our_procedures_are_those_that_were_published(real_data, name, file):
    procedure = read_procedure(builtin_procedure(name))
    entries = json.loads((real_data / "psr" / f"procedure_info_{file}.json").read_text(encoding="utf-8"))
    assert [entry["id"] for entry in entries] == list(range(len(procedure.step_names)))
    assert [entry["state_idx"] for entry in entries] == [step // 3 for step in range(len(entries))]
    expected = {entry["id"] for entry in entries if entry["expected_in_assy"]}
    assert set(procedure.expected(procedure.kind_of("01_assy_0_1"))) == expected
