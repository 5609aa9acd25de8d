"""Action videos: what moves how, where the truth says the object is, labels in parts, files and resume."""

import csv
from collections import Counter

import numpy as np
import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.stages.base.config import parse_config
from reelwright.stages.synthesize.actions import draw as actions
from reelwright.stages.synthesize.actions.pen import SHAPES, TEXTURES
from reelwright.stages.synthesize.config import SourceConfig, SynthesizeConfig
from reelwright.stages.synthesize.family_settings import NOUN_SHAPES, NOUN_TEXTURES, VERBS, ActionsConfig
from reelwright.stages.synthesize.samples import SamplePlan
from reelwright.stages.synthesize.source import SyntheticSet
from reelwright.storage.errors import ConfigError
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.store import Store

STILL = {"jitter": 0.0, "noise": 0.0}


def config_of(**own):
    return SynthesizeConfig.model_validate({"family": "actions", "size": 64, "actions": {"num_frames": 16, **own}})


def video(label, *, seed=0, **own):
    config = config_of(**own)
    frames = actions.render(
        actions.parameters_of(label), rng=np.random.default_rng(seed), config=config, is_instance=True
    )
    return frames, actions.truth_of(np.random.default_rng(seed), config, label=label)


def centre_and_size(truth):
    left, top, right, bottom = truth.box
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def test_the_words_of_the_settings_are_those_that_can_be_drawn():
    assert set(NOUN_TEXTURES) == set(TEXTURES)
    assert set(NOUN_SHAPES) == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_their_own_mirror_image(name):
    """So that a mirrored video differs in its verb alone."""
    points = {(round(x, 6) + 0.0, round(y, 6) + 0.0) for x, y in SHAPES[name]}
    assert points == {(-x + 0.0, y) for x, y in points}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("seed", range(4))
def test_only_the_object_changes_and_only_while_it_acts(verb, seed):
    frames, truth = video(f"{verb}-striped_star", seed=seed, **STILL)
    changed = np.abs(frames.astype(int) - frames[0]).max(axis=3) > 0
    acting = [index for index, one in enumerate(truth) if one.is_acting]
    assert not changed[: acting[0]].any()
    assert (frames[acting[-1] + 1 :] == frames[acting[-1] + 1 :][:1]).all()
    inside = np.zeros(frames.shape[1:3], bool)
    for one in truth:
        if one.box is not None:
            left, top, right, bottom = one.box
            inside[int(top) : int(bottom) + 2, int(left) : int(right) + 2] = True
    assert changed.any()
    assert not (changed.any(axis=0) & ~inside).any()


@pytest.mark.parametrize(
    ("verb", "axis", "sign"),
    [("move_left", 0, -1), ("move_right", 0, 1), ("move_up", 1, -1), ("move_down", 1, 1)],
)
def test_directions(verb, axis, sign):
    _, truth = video(f"{verb}-dotted_disc", **STILL)
    first, last = centre_and_size(truth[0]), centre_and_size(truth[-1])
    assert 0.19 * 64 < sign * (last[axis] - first[axis]) < 0.36 * 64
    assert last[1 - axis] == pytest.approx(first[1 - axis])


def test_sizes_turns_and_what_comes_and_goes():
    config = config_of().actions
    for verb, low, high in (("grow", 1.5, 2.0), ("shrink", 0.5, 1 / 1.5)):
        scene = actions.draw_scene(np.random.default_rng(3), config, label=f"{verb}-dotted_disc")
        assert low <= actions.pose_at(scene, 1000).scale <= high
    turns = {}
    for verb in ("turn_left", "turn_right"):
        scene = actions.draw_scene(np.random.default_rng(3), config, label=f"{verb}-dotted_disc")
        turns[verb] = actions.pose_at(scene, 1000).turn
    assert turns["turn_left"] == -turns["turn_right"]
    assert 80 <= turns["turn_left"] <= 160
    for verb, first, last in (("appear", False, True), ("vanish", True, False)):
        _, truth = video(f"{verb}-dotted_disc", **STILL)
        assert [truth[0].box is not None, truth[-1].box is not None] == [first, last]


def test_turning_left_is_counter_clockwise_as_it_is_seen():
    """A bar that lies flat and turns left by less than a right angle points to the upper right."""
    thing = actions.Thing("dotted_bar", (0.5, 0.5), 0.4, 0.0, (255, 255, 255), (255, 255, 255))
    outline = np.array(actions.textured(thing, turn=45.0).outline)
    x, y = outline[:, 0], -outline[:, 1]  # y up
    assert np.corrcoef(x, y)[0, 1] > 0.5


def test_larger_things_on_a_dark_ground():
    """Later settings, of which nothing is in a key where they are as always."""
    frames, truth = video(
        "grow-dotted_disc", noise=0.0, jitter=0.0, num_distractors=1, ground="dark", radius=(0.2, 0.2)
    )
    left, _, right, _ = truth[0].box
    assert right - left == pytest.approx(2 * 0.2 * 64, abs=0.2)
    assert (frames[:, 0, 0] == 16).all()
    assert config_of().content()["actions"].keys().isdisjoint({"ground", "radius"})
    other = config_of(ground="dark", radius=(0.1, 0.2)).content()["actions"]
    assert (other["ground"], other["radius"]) == ("dark", [0.1, 0.2])


@pytest.mark.parametrize("radius", [(0.2, 0.1), (0.0, 0.1), (0.1, 0.3)])
def test_sizes_that_there_cannot_be(radius):
    with pytest.raises(ValueError, match=r"radius is .*: two shares of the side, above 0, up to 0.2"):
        config_of(radius=radius)


def test_a_mirrored_video_is_of_the_other_class():
    """Where the things are drawn as mirror images, moving left becomes moving right, pixel by pixel of the truth."""
    config = config_of(**STILL).actions
    left = actions.draw_scene(np.random.default_rng(1), config, label="move_left-dotted_disc")
    way = [actions.pose_at(left, index).shift[0] for index in range(16)]
    right = actions.draw_scene(np.random.default_rng(1), config, label="move_right-dotted_disc")
    assert way == [-actions.pose_at(right, index).shift[0] for index in range(16)]


def test_the_camera_moves_everything_alike_and_the_truth_follows():
    frames, truth = video("turn_left-checked_square", jitter=0.1, noise=0.0)
    centres = np.array([centre_and_size(one)[:2] for one in truth])
    assert np.ptp(centres, axis=0).max() > 1
    assert np.ptp(centres, axis=0).max() <= 2 * 0.1 * 64 + 1
    assert (frames[0] != frames[1]).mean() > 0.3


def test_things_do_not_touch():
    for seed in range(20):
        scene = actions.draw_scene(np.random.default_rng(seed), config_of().actions, label="grow-dotted_disc")
        things = [scene.actor, *scene.others]
        for number, one in enumerate(things):
            for other in things[number + 1 :]:
                distance = np.hypot(one.centre[0] - other.centre[0], one.centre[1] - other.centre[1])
                assert distance > one.radius + other.radius
        assert all(other.noun != "dotted_disc" for other in scene.others)


def test_every_class_takes_its_turn_so_that_verb_and_noun_are_independent():
    config = config_of(verbs=["grow", "jump"], nouns=["striped_disc", "dotted_star", "checked_bar"])
    plan = SamplePlan(config, tuple(actions.labels(config)))
    counts = Counter(plan.sample(step).label for step in range(1, 13))
    assert set(counts.values()) == {2}
    assert len(counts) == 6


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_command_writes_parts_of_labels_and_the_truth(tmp_path):
    arguments = ["synthesize", "actions", "--out", str(tmp_path / "a"), "--samples", "3", "--res", "32", "-j", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    manifest = table(tmp_path / "a" / "manifest.csv")
    assert [f"{row['verb']}-{row['noun']}" for row in manifest] == [row["label"] for row in manifest]
    truth = table(tmp_path / "a" / "objects.csv")
    assert Counter(row["video_id"] for row in truth) == {row["video_id"]: 32 for row in manifest}
    seen = [row for row in truth if row["x"]]
    assert all(float(row["x"]) >= 0 and float(row["x"]) + float(row["w"]) <= 32.01 for row in seen)
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*.mp4")}
    again = CliRunner().invoke(app, [*arguments[:5], "4", *arguments[6:]])
    assert again.exit_code == 0, again.output
    assert "3 were there" in again.output
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(table(tmp_path / "a" / "objects.csv")) == 4 * 32


def test_of_a_pipeline_they_have_the_columns_verb_and_noun(tmp_path):
    values = {"family": "actions", "samples": 2, "size": 32, "num_val": 1, "actions": {"verbs": ["grow"]}}
    config = parse_config(SourceConfig, values, where="videos.synthesize")
    found = SyntheticSet(config, Store.at(tmp_path), {})
    label = "grow-dotted_star"
    row = ItemRow(digest="a" * 32, status="ok", rows=32, name=f"{label}/1", file=f"{label}/1.mp4")
    ItemLedger(found.store.node(found.key)).commit(row)
    assert dict(found.videos[0].extra) == {"verb": "grow", "noun": "dotted_star"}
    assert found.videos[0].split == "val"
    assert found.material["spec"]["actions"]["verbs"] == ["grow"]
    other = parse_config(SourceConfig, {"family": "octopus", "samples": 2}, where="videos.synthesize")
    assert "actions" not in SyntheticSet(other, Store.at(tmp_path), {}).material["spec"]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"verbs": ["fly"]}, "there is no 'fly'. Allowed: move_left"),
        ({"nouns": []}, "name at least one"),
        ({"verbs": ["grow", "grow"]}, "each once"),
        ({"acting": [0.5, 0.3]}, "least first"),
        ({"acting": [0.0, 0.3]}, "above 0"),
        ({"radius": [0.1, 0.25]}, r"radius is 0.1 to 0.25: .* up to 0.2"),
    ],
)
def test_refused(own, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(SynthesizeConfig, {"family": "actions", "actions": own}, where="synthesize")


def test_things_are_of_the_size_that_is_set_and_the_usual_one_leaves_keys_as_they_were():
    for radius in ((0.085, 0.12), (0.15, 0.2)):
        settings = parse_config(ActionsConfig, {"radius": radius}, where="actions")
        assert ("radius" in settings.content()) == (radius[0] == 0.15)
        scene = actions.draw_scene(np.random.default_rng(3), settings, label="grow-striped_star")
        assert radius[0] <= scene.actor.radius <= radius[1]


def test_settings_of_actions_are_of_actions():
    with pytest.raises(ConfigError, match="settings of actions have no meaning for octopus"):
        parse_config(SynthesizeConfig, {"family": "octopus", "actions": {"num_frames": 9}}, where="synthesize")
