"""Scores are shown for the runs they rest on: through predictions, and through rows that a run made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reelwright.pipeline.inspect.comparison import run_rows, seed_groups
from reelwright.pipeline.plan.history import History
from reelwright.storage.ledger.records import Record
from reelwright.storage.store import Store


def record(key: str, stage: str, *, outputs: dict[str, Any] | None = None, **inputs: Any) -> Record:
    """A finished node that read others by key."""
    material = {"stage": stage, "version": 1, "spec": {"splits": ["test"]}, "inputs": inputs}
    return Record(node=key, stage=stage, key=key, spec_key=key, material=material, outputs=outputs or {})


# rows of an encoder that one run trained, rows of a second run made of these, and a third run that read them
BEHIND = (
    record("frames", "decode"),
    record("encoder", "pretrain", frames=["frames"]),
    record("rows", "embed", frames=["frames"], run=["encoder"]),
    record("carl", "train", embeddings=["rows"]),
    record("aligned", "embed", embeddings=["rows"], run=["carl"]),
    record("head", "train", embeddings=["aligned"]),
    record("predicted", "predict", embeddings=["aligned"], run=["head"]),
)
PROBED = {"num_videos": 2, "kendalls_tau": 0.5}


@pytest.mark.parametrize(
    ("scores", "runs"),
    [
        (record("probe", "probe", outputs=PROBED, embeddings=["aligned"]), {"carl"}),
        (record("probe", "probe", outputs=PROBED, embeddings=["rows"]), {"encoder"}),
        (record("probe", "probe", outputs=PROBED, embeddings=["aligned"], beside=["rows"]), {"carl"}),
        (record("scores", "evaluate", outputs=PROBED, predictions=["predicted"]), {"head"}),
        (record("scores", "evaluate", outputs=PROBED, predictions=["predicted"], embeddings=["aligned"]), {"head"}),
    ],
    ids=["rows of a run", "rows of an encoder", "others beside", "predictions", "with a map"],
)
def test_the_runs_behind_scores(tmp_path: Path, scores: Record, runs: set[str]) -> None:
    history = History(Store.at(tmp_path), {each.key: each for each in (*BEHIND, scores)})
    found = {run.key: history.scores_of(run) for run in history.runs}
    assert {key for key, values in found.items() if values} == runs
    assert all(found[key] == {scores.node: PROBED} for key in runs)


def test_probes_on_other_labels_are_not_compared_unawares(tmp_path: Path) -> None:
    probes = [
        record(f"probe{number}", "probe", embeddings=["aligned"], **{"names and labels": labels})
        for number, labels in enumerate(["one", "other", "one"])
    ]
    history = History(Store.at(tmp_path), {each.key: each for each in (*BEHIND, *probes)})
    targets = history.targets_of(history.records["carl"])
    assert targets["probe0"] == targets["probe2"] != targets["probe1"]


def test_runs_of_other_weights_are_no_seeds_of_one(tmp_path: Path) -> None:
    """Weights of an encoder are a file, whose content is in no setting."""
    rows = [record(f"rows{number}", "embed", weights=weights) for number, weights in enumerate("aab")]
    runs = [record(f"run{number}", "train", embeddings=[f"rows{number}"], videos="v") for number in range(3)]
    for number, run in enumerate(runs):
        run.material["spec"]["seed"] = number
    history = History(Store.at(tmp_path), {each.key: each for each in (*rows, *runs)})
    (group,) = seed_groups(run_rows(history))
    assert [row.record.key for row in group.runs] == ["run0", "run1"]
