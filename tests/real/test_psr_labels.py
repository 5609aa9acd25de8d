"""Real step labels of MECCANO: steps derived from raw states are those that were published, but for one recording."""

from __future__ import annotations

import csv
from collections import Counter

import pytest

from reelwright.models.step_states import REMOVE, WRONG, action_of, steps_of_states

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
