"""Scores, tables and the page of completed steps, from tables on disk."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from reelwright.stages.base.work import InputRef, SilentReporter, Work
from reelwright.stages.evaluate.config import StepScoreSettings
from reelwright.stages.evaluate.step_scores import step_intervals, step_videos
from reelwright.stages.evaluate.work import run
from reelwright.storage.errors import ConfigError, StageError
from reelwright.storage.results.steps import StepSet, StepsInfo, write_steps
from reelwright.storage.store import Store

NAMES = ("take <b>board</b>", "board wrongly", "board off", "drive screw", "screw wrongly", "screw off")
BAD_ID = "<script>alert(1)</script>"
# video_id -> split, errors, true (frame, step), recognised (frame, step); two frames a second
VIDEOS = {
    "late": ("test", False, [(10, 0), (20, 3)], [(12, 0), (26, 3)]),
    "mixed": ("test", True, [(10, 0), (14, 4), (20, 3)], [(8, 0), (30, 5)]),
    "same": ("val", False, [(10, 0)], [(10, 0)]),
    "empty": ("val", True, [], []),
    BAD_ID: ("test", None, None, [(4, 0)]),
}


def named(video_id, split):
    return {"video_id": video_id, "video_digest": f"digest of {video_id}", "split": split}


def rows_of(video_id, split, steps, fps):
    for position, (frame, step) in enumerate(steps or ()):
        yield {
            **named(video_id, split),
            "position": position,
            "time_seconds": frame / 2,
            "frame": frame if fps else position,
            "step_id": step,
            "step": NAMES[step],
            "component": "board",
            "action": ("install", "wrong", "remove")[step % 3],
            "score": 1.0,
            "observed": True,
            "source": "changes",
        }


@pytest.fixture
def work(tmp_path: Path):
    """Makes the work unit of an evaluate node over the videos above."""

    def make(*, fps=2.0, **settings):
        store = Store.at(tmp_path / "store")
        info = StepsInfo(
            key="t" * 32,
            procedure="shelf",
            decoder="expected",
            fps=fps,
            window=3,
            step_names=NAMES,
            expected={"p": [0, 3]},
            extra={"threshold": 6.0, "decay": 0.75},
        )
        tables = {"steps": [], "truth": [], "videos": []}
        for video_id, (split, errors, true, found) in VIDEOS.items():
            tables["steps"] += rows_of(video_id, split, found, fps)
            tables["truth"] += rows_of(video_id, split, true, fps)
            numbers = {"duration_seconds": 18.0, "num_steps": len(found), "procedure": "p"}
            known = {"has_truth": true is not None, "has_errors": errors}
            tables["videos"].append({**named(video_id, split), **numbers, **known})
        store.output("steps", info.key).mkdir(parents=True, exist_ok=True)
        write_steps(store.output("steps", info.key), info, tables)
        return Work(
            node="scores",
            stage="evaluate",
            key="s" * 32,
            config={"predictions": "steps", "splits": ["test", "val"], "thumbnails": 0, **settings},
            spec={},
            store=str(store.root),
            inputs={
                "predictions": (
                    InputRef(
                        node="steps",
                        stage="steps",
                        key=info.key,
                        config={"procedure": "shelf.yaml", "predictions": ["changes"]},
                    ),
                )
            },
            payload={"videos": []},
        )

    return make


def evaluated(work):
    outputs = run(work, SilentReporter())
    folder = Store.at(work.store).report(work.key)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return outputs, metrics, folder


def lines(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("fps", [2.0, None], ids=["frames", "seconds"])
def test_scores(work, fps):
    outputs, metrics, _ = evaluated(work(fps=fps))
    # late: 1, 1; mixed: distance 2 of 2 (screw off for drive screw), F1 of 0 right; same: 1, 1; empty: 1 and nothing
    assert outputs["num_videos"] == 5
    assert outputs["num_scored"] == 4
    assert outputs["step_pos"] == pytest.approx((1 + 0 + 1 + 1) / 4)
    assert outputs["step_f1"] == pytest.approx((1 + 0 + 1 + 0) / 4, abs=1e-5)
    assert outputs["step_delay_seconds"] == pytest.approx((2.0 + 0.0) / 2)
    counts = [outputs[f"step_{name}"] for name in ("true_positives", "false_positives", "false_negatives")]
    assert counts == [3, 2, 1]  # the wrong step of `mixed` is not scored
    groups = metrics["splits"]["test"]["groups"]
    assert [groups[name]["num_videos"] for name in ("all", "with_errors", "without_errors")] == [2, 1, 1]
    assert groups["without_errors"]["delay_seconds"] == pytest.approx(2.0)
    assert groups["with_errors"]["delay_seconds"] is None
    curve = metrics["splits"]["test"]["delay_curve"]
    assert curve["delay_seconds"] == [0.0, 1.0, 3.0]
    assert curve["percent_of_all"] == [0.0, 25.0, 50.0]
    assert curve["percent_of_recognised_once"] == [0.0, 50.0, 100.0]
    step = metrics["splits"]["all"]["per_step"]["drive screw"]
    assert [step["num_true"], step["num_predicted"], step["false_negatives"], step["delay_seconds"]] == [2, 1, 1, 3.0]


@pytest.mark.parametrize(
    ("variant", "delay"), [("corrected", 1.0), ("storm", 2.0 / 4), ("industreal", (2 + 10 + 0 + 50) / 4)]
)
def test_variants(work, variant, delay):
    # industreal: the early board of `mixed` is taken for what came at 15 s; nothing in `empty` counts 100 frames
    outputs, metrics, _ = evaluated(work(steps={"variant": variant}))
    assert outputs["step_delay_seconds"] == pytest.approx(delay)
    assert metrics["variant"] == variant


def test_a_variant_that_counts_frames_needs_an_fps(work):
    with pytest.raises(ConfigError, match="storm counts in frames, but the procedure shelf has no fps"):
        run(work(fps=None, steps={"variant": "storm"}), SilentReporter())


def test_tables(work):
    _, _, folder = evaluated(work())
    videos = {row["video_id"]: row for row in lines(folder / "per_video.csv")}
    assert [videos["late"]["pos"], videos["late"]["delay_seconds"], videos["late"]["has_errors"]] == ["1", "2", "False"]
    assert [videos[BAD_ID]["pos"], videos[BAD_ID]["num_recognised"]] == ["", "1"]
    events = [(row["video_id"], row["verdict"], row["delay_seconds"]) for row in lines(folder / "events.csv")]
    assert events == [
        ("late", "right", "1"),
        ("late", "right", "3"),
        ("mixed", "early", "-1"),
        ("mixed", "missed", ""),
        ("mixed", "extra", ""),
        ("same", "right", "0"),
    ]
    assert [row["step"] for row in lines(folder / "per_step.csv")] == [NAMES[0], NAMES[3], NAMES[5]]
    assert lines(folder / "delay_curve.csv")[-1]["percent_of_recognised_once"] == "100"


def test_page(work):
    _, _, folder = evaluated(work())
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>board</b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    for text in ("+3.0 s", "1.0 s early", "missed", "truth not known", "POS 1.00", "has errors"):
        assert text in page
    _, _, folder = evaluated(work(report=False))
    assert not (folder / "report.html").exists()


def test_only_videos_without_truth(work, monkeypatch):
    monkeypatch.setitem(globals(), "VIDEOS", {BAD_ID: VIDEOS[BAD_ID]})
    outputs, metrics, folder = evaluated(work())
    assert outputs == {"num_videos": 1, "num_scored": 0}
    assert metrics["splits"] == {}
    assert "nothing can be scored" in (folder / "report.html").read_text(encoding="utf-8")


def test_no_video_of_the_splits(work):
    with pytest.raises(StageError, match=r"no video is of the splits \['train'\]; steps are of \['test', 'val'\]"):
        run(work(splits=["train"]), SilentReporter())


def test_where_all_steps_are_right_f1_is_as_uncertain_as_the_order(work):
    made = work()
    steps = StepSet(Store.at(made.store).output("steps", made.inputs["predictions"][0].key))
    videos = step_videos(steps, splits=("test", "val"), settings=StepScoreSettings())
    found = step_intervals([video for video in videos if video.video_id in {"late", "same"}], info=steps.info)
    assert found["step_pos"] == pytest.approx([0.025**0.5, 1])
    assert found["step_f1"] == pytest.approx([0.025**0.5, 1], abs=1e-6)
