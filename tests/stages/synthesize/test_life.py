"""Procedure videos as hard as life: their statistics are those of real labels, and the labels are what one sees."""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelwright.models.systems.step_states import steps_of_states
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import SilentReporter
from reelwright.stages.prepare.recordings import RecordingsRequest, prepare_recordings
from reelwright.stages.prepare.work import PrepareRequest, prepare
from reelwright.stages.synthesize.config import SourceConfig
from reelwright.stages.synthesize.family_settings import PRESETS, ProcedureSettings
from reelwright.stages.synthesize.procedures.life import kit_of, make_long_script
from reelwright.stages.synthesize.procedures.look import draw_look
from reelwright.stages.synthesize.procedures.make import make_pouring, make_procedures
from reelwright.stages.synthesize.procedures.recordings import make_recordings
from reelwright.stages.synthesize.procedures.render import Renderer
from reelwright.stages.synthesize.procedures.script import (
    CHECK,
    IDLE,
    LOOK_ALIKES,
    MOUNTED_LIFT,
    PUT_BACK,
    Pose,
    SceneState,
    Script,
    state_at,
)
from reelwright.stages.synthesize.procedures.write import DatasetParameters, VideoJob
from reelwright.storage.errors import ConfigError, InputError
from tests.step_statistics import MECCANO, scripted, statistics_of

REALISTIC = ProcedureSettings(preset="realistic")
QUICK = {**PRESETS["realistic"], "gap_seconds": 0.0, "fastening_seconds": 1.0}  # videos of half a minute
SEEDS = range(12)
DEMO = ("blue_green_red", 90, 39, [3.063, 6.285, 11.047, 16.978], [164.94, 148.4, 140.72])


def script_of(seed: int = 0, *, fps: float = 10.0, **settings: Any) -> Script:
    own = ProcedureSettings(**(settings or {"preset": "realistic"}))
    rng = np.random.default_rng(seed)
    return make_long_script(rng, settings=own, variant="red_blue_green", fps=fps)


# How far the preset may be from the real labels: a share of the real figure, or (of shares and tau) a difference.
SHARES = {
    "changes a minute": 0.1,
    "changed parts a minute": 0.1,
    "gap, percentile 50, s": 0.15,
    "gap, percentile 75, s": 0.2,
    "gap, percentile 95, s": 0.2,
    "gap, mean, s": 0.1,
    "gap, deviation over mean": 0.1,
}
DIFFERENCES = {
    "windows without a change": 0.04,
    "windows with one": 0.04,
    "windows with more": 0.015,
    "changes of several parts": 0.05,
    "removals of changed parts": 0.03,
    "wrong ones to right installations": 0.03,
    "order, mean tau of two recordings": 0.05,
}


def test_the_preset_has_the_statistics_of_real_labels_and_the_demo_has_not() -> None:
    found = statistics_of(scripted(REALISTIC, num_videos=100, seed=1))
    far = [name for name, share in SHARES.items() if abs(found[name] / MECCANO[name] - 1) > share]
    far += [name for name, most in DIFFERENCES.items() if abs(found[name] - MECCANO[name]) > most]
    assert far == []
    easy = statistics_of(scripted(ProcedureSettings(), num_videos=30, seed=1))
    assert easy["changes a minute"] > 10 * MECCANO["changes a minute"]
    assert easy["removals of changed parts"] == easy["wrong ones to right installations"] == 0


def test_statistics_by_hand() -> None:
    """Changes at 30, 90 (of two parts) and 150 s, the last a removal; -1 is no change.

    One in each window that ends less than 25.6 s after one.
    """
    states = [(0, (0, 0, 0)), (30, (1, 0, 0)), (60, (1, -1, 0)), (90, (1, 1, 1)), (150, (1, 0, 1))]
    found = statistics_of([states, states])
    assert found["changes a minute"] == pytest.approx(3 / 2.5)
    assert found["changed parts a minute"] == pytest.approx(4 / 2.5)
    assert found["gap, mean, s"] == 60
    assert found["gap, deviation over mean"] == 0
    assert found["changes of several parts"] == pytest.approx(1 / 3)
    assert found["removals of changed parts"] == pytest.approx(1 / 4)
    assert found["wrong ones to right installations"] == pytest.approx(1 / 3)
    assert found["order, mean tau of two recordings"] == pytest.approx(1)
    assert found["windows with more"] == 0
    assert found["windows with one"] == pytest.approx((25.6 + 25.6) / (150 - 25.6), abs=0.01)


@pytest.mark.parametrize("fps", [1.0, 29.97], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_segments_cover_the_video_and_no_leg_jumps(seed: int, fps: float) -> None:
    script = script_of(seed, fps=fps)
    segments = script.segments
    assert (segments[0].start_seconds, segments[-1].stop_seconds) == (0.0, script.num_frames / fps)
    assert all(before.stop_seconds == after.start_seconds for before, after in pairwise(segments))
    assert {segment.label for segment in segments} <= {IDLE, CHECK, PUT_BACK, *LOOK_ALIKES.phases.values()}
    for track in (script.legs, script.second_hand):
        assert (track[0].start_seconds, track[-1].stop_seconds) == (0.0, script.num_frames / fps)
        for before, after in pairwise(track):
            assert before.stop_seconds == after.start_seconds < after.stop_seconds
            assert before.target == after.origin


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_states_say_is_what_lies_there(seed: int) -> None:
    """Replays the changes against the poses of the parts: just before each, just after it, and at the end."""
    script = script_of(seed, undone=0.5, wrong=0.5, look_alikes=bool(seed % 2), gap_seconds=5.0, fastening_seconds=2.0)
    kit = script.kit

    def at_place(part: str, seconds: float) -> list[str]:
        x, y = kit.mounts[part]
        place = (script.work_centre[0] + x, script.work_centre[1] + y)
        poses = state_at(script, seconds).parts
        lying = {name: pose for name, pose in poses.items() if pose.lift == pytest.approx(MOUNTED_LIFT, abs=0.01)}
        return [name for name, pose in lying.items() if math.dist((pose.x, pose.y), place) < 0.01]

    seen = set()
    for leg in script.legs:
        after = min(leg.stop_seconds + 1e-3, script.num_frames / script.fps - 1e-6)
        for part, value in leg.changes:
            seen.add(value)
            lying = at_place(part, after)
            if value == 1:
                assert lying == [part]
                assert state_at(script, after).parts[part].angle == pytest.approx(0.0, abs=1e-6)
            elif value == -1:
                assert lying in ([kit.twins.get(part)], [part])
                assert lying != [part] or abs(state_at(script, after).parts[part].angle) > 1
            else:
                assert lying == []
                assert len(at_place(part, leg.start_seconds)) == 1
    assert {1, 0} <= seen
    assert script.states[-1][1] == (1,) * len(kit.phases)
    end = state_at(script, script.num_frames / script.fps - 1e-6)
    for part, (x, y) in kit.mounts.items():
        expected = (script.work_centre[0] + x, script.work_centre[1] + y, 0.0, MOUNTED_LIFT)
        pose = end.parts[part]
        assert (pose.x, pose.y, pose.angle, pose.lift) == pytest.approx(expected)


def test_steps_follow_from_states_and_a_step_ends_its_phase_or_is_a_removal() -> None:
    script = script_of(3, undone=1.0, wrong=1.0, look_alikes=True, fastening_seconds=1.0)
    names = {3 * index: phase for index, phase in enumerate(script.kit.phases.values())}
    names |= {3 * index + 2: f"remove_{part}" for index, part in enumerate(script.kit.phases)}
    derived = steps_of_states(script.states, include_errors=False).steps
    assert [(seconds, names[step]) for seconds, step in derived] == list(script.steps)
    assert steps_of_states(script.states, include_errors=True).num_errors == 13  # 7 parts, 6 of them done again
    removed = [step for _, step in script.steps if step.startswith("remove_")]
    assert len(removed) == 6  # every small part; the base stays
    stops = {(segment.stop_seconds, segment.label) for segment in script.segments}
    assert {step for step in script.steps if step[1] not in removed} <= stops


def test_gaps_have_the_mean_asked_for_and_pauses_their_share() -> None:
    scripts = [script_of(seed, gap_seconds=40.0, gap_shape=2.0, pauses=0.7, checks=0.3) for seed in range(40)]
    gaps = np.concatenate([np.diff([0.0, *(seconds for seconds, _ in script.states[1:])]) for script in scripts])
    assert gaps.mean() == pytest.approx(40.0, rel=0.15)
    assert gaps.std() / gaps.mean() == pytest.approx(1 / math.sqrt(2), rel=0.2)
    seconds = {IDLE: 0.0, CHECK: 0.0}
    for script in scripts:
        for leg in script.legs:
            if leg.phase in seconds:
                seconds[leg.phase] += leg.stop_seconds - leg.start_seconds
    assert 0.15 < seconds[CHECK] / sum(seconds.values()) < 0.45
    none = script_of(0, gap_seconds=40.0, pauses=1.0, checks=0.0)
    assert CHECK not in {segment.label for segment in none.segments}


def test_several_parts_are_complete_in_one_moment() -> None:
    script = script_of(0, together=1.0, fastening_seconds=1.0)
    assert [sum(state) for _, state in script.states] == [0, 1, 4]
    assert len({seconds for seconds, _ in script.steps}) == 2


def test_one_usual_order_with_steps_out_of_place() -> None:
    settings = {"usual_order": True, "look_alikes": True}
    parameters = DatasetParameters(6, 0, 0, 0, 64, 64, 10.0, procedure=settings)
    jobs = [VideoJob(parameters, "train", index) for index in range(6)]
    assert {job.variant for job in jobs} == {"red_blue_green"}
    orders = {tuple(step for _, step in job.script_and_look()[0].steps) for job in jobs}
    assert orders == {("place_base", *(f"add_{part}" for part in LOOK_ALIKES.orders["red_blue_green"]))}
    assert len({script_of(seed, order_spread=0.8).steps[1][1] for seed in range(20)}) > 1


# What one sees.


def frames_of(script: Script, times: list[float], *, hands: bool = True, **look: float) -> np.ndarray:
    renderer = Renderer(draw_look(np.random.default_rng(0), **look), size=(64, 64), work_centre=script.work_centre)
    away = {"hand": (0.5, 3.0), "held": "", "tool": False, "second_hand": None}
    states = [state_at(script, seconds) for seconds in times]
    shown = states if hands else [SceneState(**{**away, "parts": state.parts}) for state in states]
    return np.stack([
        renderer.render(state, index=0, time_seconds=seconds) for state, seconds in zip(shown, times, strict=True)
    ])  # fmt: skip


def hidden(seed: int, *, hand_size: float = 1.0, **settings: Any) -> float:
    """Share of the assembly that hands cover in the second before a step is complete."""
    script = script_of(seed, look_alikes=True, fastening_seconds=3.0, **settings)
    done = [leg.stop_seconds for leg in script.legs if leg.changes]
    times = [seconds - back for seconds in done for back in (0.2, 0.5, 0.8)]
    with_hands, without = (
        frames_of(script, times, hands=hands, hand_size=hand_size).astype(int) for hands in (True, False)
    )
    (left, right), (top, bottom) = (
        (round(64 * (centre - half)), round(64 * (centre + half)))
        for centre, half in zip(script.work_centre, (0.19, 0.22), strict=True)
    )
    return float((np.abs(with_hands - without)[:, top:bottom, left:right].max(axis=-1) > 20).mean())


def test_hands_hide_the_work() -> None:
    plain = np.mean([hidden(seed) for seed in range(4)])
    covered = np.mean([hidden(seed, second_hand=True, tool=True, hand_size=1.5) for seed in range(4)])
    assert covered > 0.2
    assert covered > 1.5 * plain


@pytest.mark.parametrize("part", LOOK_ALIKES.orders["red_blue_green"][::2])
def test_look_alikes_differ_in_a_small_mark(part: str) -> None:
    def shown(name: str) -> np.ndarray:
        state = SceneState((0.5, 3.0), "", {name: Pose(0.5, 0.5, 0.0, MOUNTED_LIFT)})
        renderer = Renderer(draw_look(np.random.default_rng(0)), size=(128, 128), work_centre=(0.7, 0.4))
        return renderer.render(state, index=0, time_seconds=0.0).astype(int)

    empty = Renderer(draw_look(np.random.default_rng(0)), size=(128, 128), work_centre=(0.7, 0.4)).render(
        SceneState((0.5, 3.0), "", {}), index=0, time_seconds=0.0
    )
    of_part = (np.abs(shown(part) - empty).max(axis=-1) > 20).sum()
    of_mark = (np.abs(shown(part) - shown(LOOK_ALIKES.twins[part])).max(axis=-1) > 20).sum()
    assert 0 < of_mark < 0.1 * of_part


def test_the_camera_moves_as_much_as_asked() -> None:
    script = script_of(0, gap_seconds=0.0, look_alikes=True)
    still = frames_of(script, [0.0], hands=False)[0].astype(int)
    moved = {
        amount: np.abs(frames_of(script, [0.5 * i for i in range(8)], hands=False, camera=amount) - still).mean()
        for amount in (0.0, 0.3, 1.0)
    }
    assert moved[0.0] < moved[0.3] < moved[1.0]
    camera = draw_look(np.random.default_rng(1), camera=1.0).camera
    assert camera is not None
    seen = np.array([camera.at(index / 10) for index in range(3000)])
    assert np.abs(seen[:, :2]).max() <= 0.22
    assert seen[:, 0].std() > 0.05
    assert (seen[:, 3] >= 0.75).all()


def test_the_demo_is_drawn_as_ever() -> None:
    """Numbers of the release before there were settings."""
    script, look = VideoJob(DatasetParameters(2, 1, 1, 7, 64, 48, 5.0), "train", 1).script_and_look()
    assert (script.variant, script.num_frames, len(script.legs)) == DEMO[:3]
    assert [seconds for seconds, _ in script.steps] == DEMO[3]
    frame = Renderer(look, size=(64, 48), work_centre=script.work_centre).render(
        state_at(script, 4.0), index=20, time_seconds=4.0
    )
    assert frame.mean(axis=(0, 1)) == pytest.approx(DEMO[4], abs=0.05)
    assert DatasetParameters(2, 1, 1, 7, 64, 48, 5.0).content().keys() == {"seed", "height", "width", "fps", "version"}


# What is written.


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_recordings_say_what_was_undone_and_what_was_wrong(tmp_path: Path) -> None:
    settings = {**QUICK, "undone": 1.0, "wrong": 1.0, "together": 0.0, "order_spread": 0.0}
    parameters = DatasetParameters(1, 0, 0, 0, 48, 48, 3.0, procedure=settings)
    make_recordings(tmp_path / "data", parameters)
    folder = tmp_path / "data" / "recordings" / "train" / "01_assy_0_1"
    script, _ = VideoJob(parameters, "train", 0).script_and_look()
    assert len(list((folder / "rgb").iterdir())) == script.num_frames
    raw = rows_of(folder / "PSR_labels_raw.csv")
    by_frame = {math.ceil(3 * seconds - 1e-6): [str(value) for value in state] for seconds, state in script.states}
    assert raw == [[f"{frame:06d}.jpg", *state] for frame, state in by_frame.items()]
    steps = rows_of(folder / "PSR_labels.csv")
    assert [step for _, step, _ in steps][:3] == ["0", "3", "5"]  # base, red bar, red bar off again
    assert ["Incorrectly installed red bar"] in [row[2:] for row in rows_of(folder / "PSR_labels_with_errors.csv")]
    request = RecordingsRequest(
        procedure=tmp_path / "data" / "procedure.yaml", root=tmp_path / "data", out=tmp_path / "tables"
    )
    found = prepare_recordings(request)
    assert found.problems == ()
    assert found.counts["train"]["of these removals"] == 6
    assert found.counts["train"]["wrong steps"] == 13
    assert found.procedure.components == LOOK_ALIKES.components
    assert found.procedure.states[:3] == ("1000000", "1100000", "1100100")
    with pytest.raises(InputError, match="made with other settings"):
        make_recordings(tmp_path / "data", DatasetParameters(1, 0, 0, 0, 48, 48, 3.0))


@pytest.mark.parametrize("settings", [{}, {**QUICK, "undone": 1.0, "wrong": 1.0}], ids=["easy", "hard"])
def test_the_layout_of_pouring_with_phases_as_labels(tmp_path: Path, settings: dict[str, Any]) -> None:
    parameters = DatasetParameters(2, 1, 0, 0, 48, 48, 1.0, procedure=settings)
    make_pouring(tmp_path / "data", parameters)
    prepare(PrepareRequest(dataset="pouring", root=tmp_path / "data", out=tmp_path / "tables"), SilentReporter())
    manifest = rows_of(tmp_path / "tables" / "manifest.csv")
    assert [row[manifest[0].index("split")] for row in manifest[1:]] == ["train", "train", "val"]
    script, _ = VideoJob(parameters, "train", 0).script_and_look()
    rows = [int(row[-1]) for row in rows_of(tmp_path / "tables" / "rows.csv")[1:] if row[0] == "train_00"]
    assert len(rows) == script.num_frames
    for frame, label in enumerate(rows):
        steps = [step for seconds, step in script.steps if seconds <= frame + 1e-6]
        assert label == len(steps) - 2 * sum(step.startswith("remove_") for step in steps)
    assert (rows[0], rows[-1]) == (0, len(script.kit.phases))
    assert (sorted(rows) == rows) == (not settings)  # undone steps go back a phase


def test_videos_keep_their_settings_and_others_are_refused(tmp_path: Path) -> None:
    amounts = {"num_samples": 1, "num_val": 0, "num_test": 0, "workers": 1, "reporter": SilentReporter()}
    small = {"size": 48, "fps": 2.0}
    made = make_procedures(tmp_path, **amounts, **small, procedure=QUICK)
    assert (made.num_new, made.report["files"]) == (1, 1)
    assert make_procedures(tmp_path, **amounts, **small, procedure=QUICK).num_found == 1
    steps = rows_of(tmp_path / "steps.csv")[1:]
    assert {row[2] for row in steps} >= set(LOOK_ALIKES.phases.values())
    with pytest.raises(InputError, match=r"other settings \(procedure"):
        make_procedures(tmp_path, **amounts, **small)
    with pytest.raises(InputError, match=r"other settings \(procedure"):
        make_procedures(tmp_path, **amounts, **small, procedure={**QUICK, "camera": 0.1})
    with pytest.raises(ConfigError, match=r"'pourin'\. Did you mean 'pouring'"):
        make_procedures(tmp_path / "new", **amounts, layout="pourin")
    with pytest.raises(ConfigError, match=r"has the splits train and val alone: leave --test 1 out"):
        make_procedures(tmp_path / "new", **{**amounts, "num_samples": 2, "num_test": 1}, layout="pouring")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"cameras": 0.5}, "cameras: unknown key. Did you mean 'camera'"),
        ({"preset": "hard"}, "preset"),
        ({"camera": 2}, "camera"),
        ({"pauses": 0.8, "checks": 0.5}, "are shares: give at most 1 together"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_config(ProcedureSettings, settings, where="procedure")


def test_settings_in_a_pipeline_file_enter_its_content_by_value() -> None:
    def source(**values: Any) -> SourceConfig:
        return parse_config(SourceConfig, {"family": "procedure", "samples": 2, **values}, where="videos.synthesize")

    assert "procedure" not in source().content()
    assert source(procedure={"preset": "easy", "camera": 0.0}).content() == source().content()
    assert source(procedure={"preset": "realistic"}).content()["procedure"] == REALISTIC.changed()
    spelled = source(procedure=PRESETS["realistic"])
    assert spelled.content() == source(procedure={"preset": "realistic"}).content()
    assert source(procedure={"preset": "realistic", "camera": 0.0}).procedure.camera == 0.0
    with pytest.raises(ConfigError, match="no meaning for fractal"):
        source(family="fractal", procedure={"camera": 0.5})
    assert kit_of(source(procedure={"look_alikes": True}).procedure) is LOOK_ALIKES
