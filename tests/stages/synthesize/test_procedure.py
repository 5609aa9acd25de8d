"""Scripts of procedures: times, labels, steps and poses, checked against the arithmetic they promise."""

import math
from itertools import pairwise

import numpy as np
import pytest

from reelwright.stages.synthesize.procedures.draft import make_script
from reelwright.stages.synthesize.procedures.script import (
    IDLE,
    MOUNTED_LIFT,
    MOUNTS,
    PARTS,
    PHASE_OF_PART,
    PHASES,
    PUT_BACK,
    VARIANTS,
    Leg,
    Pose,
    Script,
    ease,
    position_on,
    state_at,
)

SEEDS = range(40)
HOMES = {part: Pose(0.1, 0.1, 0.5) for part in PARTS}


def drawn(seed: int, *, fps: float = 10.0) -> Script:
    variant = tuple(VARIANTS)[seed % len(VARIANTS)]
    return make_script(np.random.default_rng(seed), variant=variant, fps=fps)


def by_hand() -> Script:
    """Reach 1 s, lift 1 s, carry 2 s, lay 1 s, go away 1 s: times and poses one can tell by looking."""
    legs = (
        Leg(0.0, 1.0, (0.5, 0.9), (0.1, 0.1), "add_red_bar"),
        Leg(1.0, 2.0, (0.1, 0.1), (0.1, 0.1), "add_red_bar", part="red_bar", angle=(0.5, 0.5), lift=(0.0, 1.0)),
        Leg(2.0, 4.0, (0.1, 0.1), (0.5, 0.3), "add_red_bar", part="red_bar", angle=(0.5, 0.0), lift=(1.0, 1.0)),
        Leg(
            4.0, 5.0, (0.5, 0.3), (0.5, 0.3), "add_red_bar", part="red_bar", lift=(1.0, 0.3), changes=(("red_bar", 1),)
        ),
        Leg(5.0, 6.0, (0.5, 0.3), (0.5, 0.9), IDLE),
    )
    return Script("red_blue_green", 10.0, 60, HOMES, (0.5, 0.4), legs)


@pytest.mark.parametrize(
    ("share", "way"), [(0.0, 0.0), (0.25, 0.103515625), (0.5, 0.5), (0.75, 0.896484375), (1.0, 1.0)]
)
def test_ease_is_the_minimum_jerk_polynomial(share: float, way: float) -> None:
    assert ease(share) == way


def test_bend_bows_the_path_to_the_side_of_the_movement() -> None:
    point, way = position_on(Leg(0.0, 2.0, (0.0, 0.0), (1.0, 0.0), IDLE, bend=0.2), 1.0)
    assert way == 0.5
    assert point == pytest.approx((0.5, 0.2))


@pytest.mark.parametrize(
    ("time_seconds", "hand", "held", "pose"),
    [
        pytest.param(0.5, (0.3, 0.5), "", Pose(0.1, 0.1, 0.5, 0.0), id="reaching"),
        pytest.param(1.5, (0.1, 0.1), "red_bar", Pose(0.1, 0.1, 0.5, 0.5), id="half lifted"),
        pytest.param(3.0, (0.3, 0.2), "red_bar", Pose(0.3, 0.2, 0.25, 1.0), id="half way"),
        pytest.param(5.0, (0.5, 0.3), "", Pose(0.5, 0.3, 0.0, 0.3), id="laid"),
        pytest.param(5.5, (0.5, 0.6), "", Pose(0.5, 0.3, 0.0, 0.3), id="stays when the hand goes"),
    ],
)
def test_state_follows_the_legs(time_seconds: float, hand: tuple[float, float], held: str, pose: Pose) -> None:
    state = state_at(by_hand(), time_seconds)
    assert state.hand == pytest.approx(hand)
    assert state.held == held
    found = state.parts["red_bar"]
    assert (found.x, found.y, found.angle, found.lift) == pytest.approx((pose.x, pose.y, pose.angle, pose.lift))
    assert {part: state.parts[part] for part in PARTS if part != "red_bar"} == {
        part: HOMES[part] for part in PARTS if part != "red_bar"
    }


def test_segments_merge_legs_of_one_phase_and_steps_end_their_leg() -> None:
    script = by_hand()
    assert [(s.start_seconds, s.stop_seconds, s.label) for s in script.segments] == [
        (0.0, 5.0, "add_red_bar"),
        (5.0, 6.0, IDLE),
    ]
    assert script.steps == ((5.0, "add_red_bar"),)


@pytest.mark.parametrize("time_seconds", [-0.1, 6.0], ids=["before", "at the end"])
def test_times_outside_are_refused(time_seconds: float) -> None:
    with pytest.raises(ValueError, match=r"outside the script: choose one in \[0, 6.0\) s"):
        state_at(by_hand(), time_seconds)


@pytest.mark.parametrize("fps", [1.0, 10.0, 29.97], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_segments_cover_the_whole_video_without_gaps(seed: int, fps: float) -> None:
    script = drawn(seed, fps=fps)
    segments = script.segments
    assert 12.0 <= script.num_frames / fps <= 25.0
    assert segments[0].start_seconds == 0.0
    assert segments[-1].stop_seconds == script.num_frames / fps
    for before, after in pairwise(segments):
        assert before.stop_seconds == after.start_seconds
        assert before.label != after.label
    assert all(segment.start_seconds < segment.stop_seconds for segment in segments)
    assert {segment.label for segment in segments} == set(PHASES)


@pytest.mark.parametrize("seed", SEEDS)
def test_steps_follow_the_variant_and_end_the_phase_of_their_part(seed: int) -> None:
    script = drawn(seed)
    assert [step for _, step in script.steps] == [PHASE_OF_PART[part] for part in ("base", *VARIANTS[script.variant])]
    stops = {(segment.stop_seconds, segment.label) for segment in script.segments}
    assert set(script.steps) <= stops


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_end_mounted_and_the_peg_at_home(seed: int) -> None:
    script = drawn(seed)
    state = state_at(script, script.num_frames / script.fps - 1e-6)
    for part, (x, y) in MOUNTS.items():
        pose = state.parts[part]
        expected = (script.work_centre[0] + x, script.work_centre[1] + y, 0.0, MOUNTED_LIFT)
        assert (pose.x, pose.y, pose.angle, pose.lift) == pytest.approx(expected)
    assert state.parts["yellow_peg"] == script.homes["yellow_peg"]


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_jumps(seed: int) -> None:
    """At 100 frames per second hand and parts move less than 0.1 of the scene between two frames."""
    script = drawn(seed)
    states = [state_at(script, index / 100) for index in range(round(100 * script.num_frames / script.fps))]
    for before, after in pairwise(states):
        assert math.dist(before.hand, after.hand) < 0.1
        for part in PARTS:
            old, new = before.parts[part], after.parts[part]
            assert math.dist((old.x, old.y), (new.x, new.y)) < 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_put_back_begins_with_a_part_in_the_hand_and_ends_with_it_in_the_tray(seed: int) -> None:
    script = drawn(seed)
    for segment in (s for s in script.segments if s.label == PUT_BACK):
        held = state_at(script, segment.start_seconds).held
        assert held in VARIANTS[script.variant]
        assert state_at(script, segment.start_seconds - 1e-6).held == held
        assert state_at(script, segment.stop_seconds).parts[held] == script.homes[held]


def test_the_order_differs_between_variants_and_the_finished_assembly_does_not() -> None:
    assert len(set(VARIANTS.values())) == len(VARIANTS) == 3
    assert {frozenset(order) for order in VARIANTS.values()} == {frozenset(MOUNTS) - {"base"}}


@pytest.mark.parametrize("fps", [0.0, -1.0, math.nan, math.inf], ids=str)
def test_fps_is_checked(fps: float) -> None:
    with pytest.raises(ValueError, match=r"fps is .*: it has to be a finite number above 0"):
        make_script(np.random.default_rng(0), variant="red_blue_green", fps=fps)


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown variant 'red': choose one of red_blue_green, "):
        make_script(np.random.default_rng(0), variant="red", fps=10.0)
