"""Videos that a pipeline makes for itself: what is made when, what that changes, and who knows of it.

The table says of each change how many videos are made and how many the decode node does; it was written by hand, from:
the key of a set follows from the settings and the seed of the generator, a video's from that and its number; how many
there are, and of which split, is in no key.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.executors.executors import LocalExecutor, sized
from reelwright.pipeline.executors.progress_file import LiveReporter
from reelwright.pipeline.executors.unit_scheduler import DEATHS, Ended, Pool, Spreader
from reelwright.pipeline.inspect.logs import account
from reelwright.pipeline.plan.lockfile import Frozen
from reelwright.pipeline.plan.synthetic import NODE, why_to_make
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.estimate import MAKING, estimates
from reelwright.pipeline.run.reading import read_for_run, read_videos
from reelwright.pipeline.run.results import RunOptions, all_failures
from reelwright.pipeline.run.runner import open_planner
from reelwright.pipeline.upkeep.gc import Limits, sweep
from reelwright.pipeline.upkeep.repair import repair
from reelwright.pipeline.upkeep.verify import verify
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.unit import STARTED, Unit, do_unit
from reelwright.stages.base.work import Reporter, SilentReporter, VideoItem, Work
from reelwright.stages.synthesize import make, source
from reelwright.stages.synthesize.config import SourceConfig, SynthesizeConfig
from reelwright.stages.synthesize.families.class_files import write_class
from reelwright.stages.synthesize.family_settings import NOUNS, VERBS
from reelwright.stages.synthesize.items import items_to_make, run_items
from reelwright.stages.synthesize.source import SyntheticSet
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import ConfigError, InputError, StageError
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.ledger.records import read_records, write_record
from reelwright.storage.store import Store
from tests.pipeline.test_key_properties import QUICK, at, leaves, name_of, values_of

PIPELINE = """
videos:
  synthesize: {family: dead_leaves, size: 32, seed: 3, samples: 4, num_classes: 2, num_test: 1}
  workers: 1
labels: {column: label}
stages:
  frames: {uses: decode, fps: 6, workers: 1}
"""
Change = Callable[[Path], object] | str


class Counting(SilentObserver):
    """Counts the videos that are made."""

    def __init__(self) -> None:
        self.num_made = 0

    def making(self, num_videos: int) -> Reporter:
        self.num_made += num_videos
        return SilentReporter()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "project"
    folder.mkdir()
    (folder / "reelwright.yaml").write_text(PIPELINE, encoding="utf-8")
    assert run(folder) == {"made": 4, "decoded": 4}
    return folder


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Path:
    """The finished project, moved; so nothing may depend on where it lies."""
    return Path(shutil.copytree(pristine, tmp_path / "project", symlinks=True))


def run(folder: Path, *overrides: str) -> dict[str, int]:
    observer = Counting()
    result = Project.open(folder / "reelwright.yaml", overrides=overrides).run(observer=observer)
    assert result.exit_code == 0, result
    return {"made": observer.num_made, "decoded": sum(node.num_done for node in result.nodes)}


def planner_of(folder: Path, *overrides: str) -> Any:
    return open_planner(load_pipeline(folder / "reelwright.yaml", overrides))


def videos_of(folder: Path, *overrides: str) -> dict[str, Path]:
    return {video.video_id: Path(video.path) for video in planner_of(folder, *overrides).dataset.videos}


def first(folder: Path, *overrides: str) -> Path:
    return next(iter(videos_of(folder, *overrides).values()))


def move_store(folder: Path) -> str:
    (folder / ".reelwright" / "store").rename(folder / "elsewhere")
    return "store=elsewhere"


def append_nothing_in_time(folder: Path) -> None:
    os.utime(first(folder), ns=(1, 1))


CHANGES: dict[str, tuple[Change, int, int]] = {
    # what                        change, videos made, videos decoded
    "more samples": ("videos.synthesize.samples=6", 2, 2),
    "fewer samples": ("videos.synthesize.samples=3", 0, 0),
    "another split": ("videos.synthesize.num_test=0", 0, 0),
    "a split more": ("videos.synthesize.num_val=1", 0, 0),
    "processes": ("videos.workers=2", 0, 0),
    "seed": ("videos.synthesize.seed=4", 4, 4),
    "size": ("videos.synthesize.size=34", 4, 4),
    "size, the same written otherwise": ("videos.synthesize.size='32'", 0, 0),
    "rate": ("videos.synthesize.fps=10", 4, 4),
    "codec": ("videos.synthesize.codec=h265", 4, 4),
    "a class more": ("videos.synthesize.num_classes=3", 4, 4),
    "no classes": ("videos.synthesize.num_classes=null", 4, 4),
    "family": ("videos.synthesize.family=octopus", 4, 4),
    "frames in place of files": ("videos.synthesize.into=frames", 4, 4),
    "a setting of another stage": ("frames.fps=3", 0, 4),
    "a file removed": (lambda folder: first(folder).unlink(), 1, 0),
    "a file altered": (lambda folder: first(folder).write_bytes(b"x"), 1, 0),
    "a file touched": (append_nothing_in_time, 0, 0),
    "all files removed": (lambda folder: [path.unlink() for path in videos_of(folder).values()], 4, 0),
    "frames removed": (lambda folder: shutil.rmtree(folder / ".reelwright" / "store" / "frames"), 0, 4),
    "store moved": (move_store, 0, 0),
    "what is known of files removed": (lambda folder: (folder / ".reelwright/store/files.json").unlink(), 0, 0),
    "labels left out": (lambda folder: edit(folder, "labels:", "# labels:"), 0, 0),
}


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "reelwright.yaml").read_text(encoding="utf-8")
    assert old in text
    (folder / "reelwright.yaml").write_text(text.replace(old, new), encoding="utf-8")


def overrides_of(change: Change, folder: Path) -> list[str]:
    if isinstance(change, str):
        return [change]
    message = change(folder)
    return [message] if isinstance(message, str) else []


@pytest.mark.parametrize(("change", "made", "decoded"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_known_before_anything_runs(project: Path, change: Change, made: int, decoded: int) -> None:
    overrides = overrides_of(change, project)
    planner = planner_of(project, *overrides)
    altered = change is CHANGES["a file altered"][0]  # its content is looked at by `run`
    assert planner.dataset.num_to_make == (0 if altered else made)
    message = planner.plan("frames").reasons
    assert (f"videos: {made} still to be made" in message) == (made > 0 and not altered)


@pytest.mark.slow
@pytest.mark.parametrize(("change", "made", "decoded"), CHANGES.values(), ids=CHANGES)
def test_a_change_makes_just_that(project: Path, change: Change, made: int, decoded: int) -> None:
    overrides = overrides_of(change, project)
    assert run(project, *overrides) == {"made": made, "decoded": decoded}
    assert run(project, *overrides) == {"made": 0, "decoded": 0}


def test_more_samples_make_only_the_new_ones_and_going_back_is_a_hit(project: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in videos_of(project).values()}
    assert run(project, "videos.synthesize.samples=5") == {"made": 1, "decoded": 1}
    assert {path: path.stat().st_mtime_ns for path in videos_of(project).values()} == before
    assert run(project) == {"made": 0, "decoded": 0}
    assert not planner_of(project).dataset.unread


@pytest.mark.slow
def test_what_is_made_is_what_the_command_makes(project: Path, tmp_path: Path) -> None:
    out, classes = tmp_path / "set", tmp_path / "classes"
    common = ["dead_leaves", "--res", "32", "--seed", "3", "-j", "1"]
    for more in (["--gen-param", "2", "--out", classes], ["--dir-in", classes, "--samples", "4", "--out", out]):
        done = CliRunner().invoke(app, ["synthesize", *common, *map(str, more)], catch_exceptions=False)
        assert done.exit_code == 0
    made = videos_of(project)
    assert sorted(made) == sorted(path.relative_to(out).with_suffix("").as_posix() for path in out.rglob("*.mp4"))
    assert all(path.read_bytes() == (out / f"{name}.mp4").read_bytes() for name, path in made.items())


def test_labels_and_splits(project: Path) -> None:
    dataset = planner_of(project).dataset
    assert dataset.labels.classes == ("1", "2")
    assert [video.label for video in dataset.videos] == [video.video_id.split("/")[0] for video in dataset.videos]
    assert sorted((video.label, video.split) for video in dataset.videos) == [
        ("1", "test"), ("1", "train"), ("2", "test"), ("2", "train"),
    ]  # fmt: skip


def test_reasons(project: Path) -> None:
    assert run(project) == {"made": 0, "decoded": 0}  # notes them for the pipeline file in this place

    def message(*overrides: str) -> list[str]:
        planner = planner_of(project, *overrides)
        return why_to_make(planner.file, planner.dataset.synthetic)

    assert message("videos.synthesize.seed=4", "videos.synthesize.fps=10") == [
        "fps: 12 -> 10",
        "seed: 3 -> 4",
        "4 of 4 to make",
    ]
    shutil.rmtree(project / ".reelwright" / "store" / "projects")
    assert message("videos.synthesize.seed=4") == ["never ran", "4 of 4 to make"]


def test_the_lock_file_has_them_and_frozen_runs_keep_to_it(project: Path) -> None:
    file = load_pipeline(project / "reelwright.yaml")
    lock = Frozen(file)
    lock.check_videos(planner_of(project).dataset.synthetic)
    for override, match in (
        ("videos.synthesize.seed=4", r"videos\.settings\.seed: locked 3, now 4"),
        ("videos.synthesize.samples=5", r"videos\.samples: locked 4, now 5"),
        ("videos.synthesize.num_classes=1", r"videos\.settings\.num_classes: locked 2, now 1"),
    ):
        with pytest.raises(ConfigError, match=match):
            lock.check_videos(planner_of(project, override).dataset.synthetic)
    with pytest.raises(ConfigError, match=r"videos: locked \{.*now \(not set\)"):
        lock.check_videos(None)
    observer = Counting()
    overridden = Project.open(project / "reelwright.yaml", overrides=["videos.synthesize.seed=4"])
    with pytest.raises(ConfigError, match="seed: locked 3"):
        overridden.run(observer=observer, frozen=True)
    assert observer.num_made == 0


@pytest.mark.slow
def test_gc_keeps_what_is_reached_by_this_or_another_pipeline_file(project: Path) -> None:
    sets = project / ".reelwright" / "store" / "synthetic"
    (project / "other.yaml").write_text(PIPELINE.replace("seed: 3", "seed: 5"), encoding="utf-8")
    read_videos(load_pipeline(project / "other.yaml"), SilentObserver())
    assert len(list(sets.iterdir())) == 2
    now = Limits(guard_seconds=0)
    file = load_pipeline(project / "reelwright.yaml")
    assert not [item for item in sweep([file], SilentObserver(), limits=now).going if item.kind == "synthetic"]
    going = sweep([file], SilentObserver(), limits=now, only_these=True).going
    reached = {planner_of(project).dataset.synthetic.key}
    assert {item.path.name for item in going if item.kind == "synthetic"} == {
        path.name for path in sets.iterdir()
    } - reached


def test_gc_makes_nothing_and_keeps_frames_of_videos_that_are_to_be_made(project: Path) -> None:
    first(project).unlink()
    file, observer = load_pipeline(project / "reelwright.yaml"), Counting()
    assert not sweep([file], observer, limits=Limits(guard_seconds=0)).going
    assert observer.num_made == 0


def test_a_video_that_was_not_committed_is_a_leftover(project: Path) -> None:
    video = first(project)
    shutil.copy(video, video.with_name("99.mp4"))
    report = verify(load_pipeline(project / "reelwright.yaml"))
    assert [(problem.path.name, problem.kind) for problem in report.problems] == [("99.mp4", "leftover")]
    assert report.is_whole


@pytest.mark.slow
def test_frames_that_were_not_committed_are_leftovers(project: Path) -> None:
    lossless = ["videos.synthesize.into=frames"]
    assert run(project, *lossless)["made"] == 4
    made = first(project, *lossless)
    shutil.copytree(made, made.with_name("0" * 32))
    made.rename(made.with_name(f".partial-{made.name}-1"))
    kinds = {
        problem.path.parts[-2]: problem.kind
        for problem in verify(load_pipeline(project / "reelwright.yaml", lossless)).problems
    }
    assert kinds.pop("frames.zarr") == "missing"
    assert set(kinds.values()) == {"leftover"}


@pytest.mark.slow
def test_verify_finds_what_is_altered_missing_or_foreign_and_repair_makes_it_again(project: Path) -> None:
    file = load_pipeline(project / "reelwright.yaml")
    assert verify(file, whole=True).problems == ()
    whole = {path: path.read_bytes() for path in videos_of(project).values()}
    altered, missing = list(whole)[:2]
    altered.write_bytes(whole[altered][:-1] + b"?")
    missing.unlink()
    assert {(problem.path, problem.kind) for problem in verify(file).problems} == {
        (altered, "altered"),
        (missing, "missing"),
    }
    assert repair(file, SilentObserver()).problems == ()
    assert {path: path.read_bytes() for path in whole} == whole
    (altered.parent / "mine.txt").write_text("x", encoding="utf-8")
    assert [problem.kind for problem in verify(file).problems] == ["foreign"]


def test_status_and_explain_say_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert run(project) == {"made": 0, "decoded": 0}

    def message(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
        assert done.exit_code == code
        return done.stdout

    assert "to make" not in message("status", "--exit-code")
    changed = message("status", "--exit-code", "-S", "videos.synthesize.seed=4", code=1)
    assert "videos: seed: 3 -> 4; 4 of 4 to make: `run` makes them first" in changed
    assert json.loads(message("status", "--json", "-S", "videos.synthesize.samples=7"))["to_make"] == 3
    assert message("explain", "videos").startswith("videos (synthesize dead_leaves): up to date\nkey ")
    assert "\n  seed: 3 -> 4\n  4 of 4 to make\n" in message("explain", "videos", "-S", "videos.synthesize.seed=4")
    assert "frames: 4 of 7 videos to decode (3 not read yet)" not in message("run", "-n")
    assert "(3 not read yet)" in message("run", "-n", "-S", "videos.synthesize.samples=7")


@pytest.mark.slow
def test_class_files_enter_by_content(project: Path) -> None:
    (made,) = (project / ".reelwright/store/synthetic").glob("*/classes")
    (project / "classes").mkdir()
    for name in ("1.npz", "2.npz"):
        shutil.copy(made / name, project / "classes" / name)
    named = ["videos.synthesize.num_classes=null", "videos.synthesize.class_files=classes"]
    assert run(project, *named) == {"made": 4, "decoded": 4}
    assert set(planner_of(project, *named).dataset.labels.classes) == {"1", "2"}
    shutil.copy(project / "classes" / "1.npz", project / "classes" / "2.npz")
    assert planner_of(project, *named).dataset.num_to_make == 4
    shutil.rmtree(project / "classes")
    with pytest.raises(InputError, match=r"no class file \(\*\.npz\) in .*classes"):
        planner_of(project, *named)


@pytest.mark.slow
def test_procedures_bring_their_segments_and_steps(tmp_path: Path) -> None:
    (tmp_path / "reelwright.yaml").write_text(
        "videos:\n  synthesize: {family: procedure, size: 48, fps: 2, samples: 3, num_val: 1, num_test: 1}\n"
        "labels: {segments: synthesize}\nstages:\n  frames: {uses: decode, fps: 2, workers: 1}\n",
        encoding="utf-8",
    )
    file = load_pipeline(tmp_path / "reelwright.yaml")
    dataset = read_videos(file, SilentObserver(), jobs=1)
    assert [(video.video_id, video.split) for video in dataset.videos] == [
        ("train_00", "train"), ("val_00", "val"), ("test_00", "test"),
    ]  # fmt: skip
    assert "idle" in dataset.labels.classes
    assert all(dataset.labels.of(video.video_id).segments for video in dataset.videos)
    steps = load_pipeline(file.path, ["labels.segments=null", "labels.steps=synthesize"])
    assert open_planner(steps).dataset.labels.of("val_00").steps
    more = load_pipeline(file.path, ["videos.synthesize.samples=4"])
    assert open_planner(more).dataset.num_to_make == 1
    assert len(read_videos(more, SilentObserver(), jobs=1).videos) == 4
    assert open_planner(file).dataset.num_to_make == 0
    assert len(open_planner(file).dataset.videos) == 3  # though there are four in the store
    assert verify(file).problems == ()


@pytest.mark.slow
def test_procedures_as_hard_as_life_are_a_set_of_their_own(tmp_path: Path) -> None:
    block = "{family: procedure, size: 48, fps: 2, samples: 1, procedure: {preset: realistic, gap_seconds: 0}}"
    text = f"videos: {{synthesize: {block}}}\nlabels: {{steps: synthesize}}\nstages: {{}}\n"
    (tmp_path / "reelwright.yaml").write_text(text, encoding="utf-8")
    file = load_pipeline(tmp_path / "reelwright.yaml")
    dataset = read_videos(file, SilentObserver(), jobs=1)
    assert "add_marked_red_bar" in dataset.labels.classes
    assert open_planner(file).dataset.num_to_make == 0
    easy = load_pipeline(file.path, ["videos.synthesize.procedure.preset=easy"])
    assert open_planner(easy).dataset.num_to_make == 1


BASE = {"family": "fractal", "samples": 4}


def based(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of procedures are for that family alone."""
    family = next((name for name in ("procedure", "actions") if name in values), None)
    return {**BASE, **({} if family is None else {"family": family}), **values}


def key_of(values: dict[str, Any]) -> str | None:
    try:
        config = SourceConfig.model_validate(based(values))
    except ValidationError:
        return None
    return SyntheticSet(config, Store.at("store"), {}).key


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {path[0]: value if len(path) == 1 else nested(path[1:], value)}


STRATEGIES: dict[tuple[str, ...], st.SearchStrategy[Any]] = {
    ("size",): st.integers(16, 300).map(lambda half: 2 * half),
    ("fps",): st.integers(1, 240) | st.floats(1, 240),
    ("fractal", "variations"): st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True),
    ("fractal", "num_skipped"): st.integers(1, 60),
    ("fractal", "num_iterations"): st.integers(26, 400),
    ("fractal", "num_window_iterations"): st.integers(26, 400),
    ("actions", "num_frames"): st.integers(8, 100),
    ("actions", "verbs"): st.lists(st.sampled_from(VERBS), min_size=1, max_size=3, unique=True),
    ("actions", "nouns"): st.lists(st.sampled_from(NOUNS), min_size=1, max_size=3, unique=True),
    ("actions", "acting"): st.tuples(st.floats(0.1, 0.4), st.floats(0.5, 1)).map(list),
    ("actions", "radius"): st.tuples(st.floats(0.02, 0.06), st.floats(0.07, 0.12)).map(list),
    ("actions", "jitter"): st.floats(0, 0.1),
    ("actions", "noise"): st.floats(0, 64),
}
# still has one value that is allowed in a pipeline.
SETTINGS = [leaf for leaf in leaves(SourceConfig) if leaf[0][-1] != "still"]


@pytest.mark.parametrize(("path", "kind"), [leaf[:2] for leaf in SETTINGS if leaf[2]], ids=name_of)
@QUICK
@given(data=st.data())
def test_two_settings_have_one_key_only_when_they_are_equal(
    path: tuple[str, ...], kind: Any, data: st.DataObject
) -> None:
    values = STRATEGIES.get(path, values_of(kind))
    first, second = (nested(path, data.draw(values)) for _ in range(2))
    keys = key_of(first), key_of(second)
    assume(None not in keys)
    configs = [SourceConfig.model_validate(based(entry)) for entry in (first, second)]
    assert (keys[0] == keys[1]) == (at(configs[0], path) == at(configs[1], path))


@pytest.mark.parametrize(("path", "kind"), [leaf[:2] for leaf in SETTINGS if not leaf[2]], ids=name_of)
@QUICK
@given(data=st.data())
def test_how_many_there_are_is_in_no_key(path: tuple[str, ...], kind: Any, data: st.DataObject) -> None:
    key = key_of(nested(path, data.draw(values_of(kind))))
    assume(key is not None)
    assert key == key_of({})


def test_the_version_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of({})
    monkeypatch.setattr(source, "VERSION", source.VERSION + 1)
    assert key_of({}) != before


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"family": "fractl", "samples": 4}, "family: 'fractl' is not allowed"),
        ({"family": "fractal"}, "samples: missing"),
        ({"family": "fractal", "samples": 0}, "samples: 0 is not allowed"),
        ({**BASE, "sample": 4}, "sample: unknown key. Did you mean 'samples'"),
        ({"family": "procedure", "samples": 1, "into": "frames"}, "h264 files"),
        ({**BASE, "fractal": {"still": True}}, "a pipeline reads videos"),
        ({**BASE, "num_classes": 2, "class_files": "x"}, "not both"),
        ({"family": "perlin", "samples": 4, "num_classes": 2}, "perlin has classes of its own"),
        ({"family": "perlin", "samples": 4, "size": 64}, "perlin is 240 x 240 only"),
        ({"family": "procedure", "samples": 1, "num_test": 2}, "at least num_val and num_test"),
        ({"family": "procedure", "samples": 1, "codec": "h265"}, "h264"),
        ({**BASE, "procedure": {"camera": 0.5}}, "no meaning for fractal"),
        ({"family": "procedure", "samples": 1, "procedure": {"camra": 1}}, "Did you mean 'camera'"),
        ({"family": "procedure", "samples": 1, "fractal": {"num_points": 5}}, "no meaning for procedure"),
    ],
    ids=lambda value: None if isinstance(value, str) else "_".join(map(str, value.values())),
)
def test_wrong_settings_are_told(values: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_config(SourceConfig, values, where="videos.synthesize")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("  workers: 1\n", "  split: test\n", "split has no meaning for videos that are made"),
        ("  workers: 1\n", "  folder: x\n", "give exactly one of .* not folder and synthesize"),
        ("{column: label}", "{segments: synthesize}", "dead_leaves videos have no segments"),
        ("  frames:", "  videos:", "a node cannot be called videos"),
        ("uses: decode", "uses: synthesize", "'synthesize' is no stage"),
    ],
    ids=["split", "two sources", "no segments", "node called videos", "node that makes videos"],
)
def test_what_does_not_go_together_is_told(project: Path, old: str, new: str, match: str) -> None:
    edit(project, old, new)
    with pytest.raises(ConfigError, match=match):
        planner_of(project)


@pytest.mark.slow
def test_stored_frames_are_read_as_they_were_made(project: Path) -> None:
    """No codec in between; verify and repair know the folders."""
    lossless = ["videos.synthesize.into=frames"]
    assert run(project, *lossless, "frames.fps=12") == {"made": 4, "decoded": 4}
    opened = Project.open(project / "reelwright.yaml", overrides=[*lossless, "frames.fps=12"])
    found = opened.frames("frames")
    for video, folder in videos_of(project, *lossless).items():
        made = FrameStore(folder.parent).rows(folder.name)
        assert np.array_equal(found[video].read(0, made.num_rows), made.read(0, made.num_rows))
        assert found[video].pts_seconds == pytest.approx(made.pts_seconds)
    assert verify(opened.file, whole=True).problems == ()
    broken = next(path for path in folder.rglob("*") if path.is_file() and "/c/" in path.as_posix())
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert [problem.path for problem in verify(opened.file).problems] == [folder]
    assert repair(opened.file, SilentObserver()).problems == ()
    assert broken.read_bytes() == whole


PROBE = """
videos:
  synthesize:
    family: fractal
    size: 48
    seed: 1
    samples: 200
    num_classes: 10
    num_test: 8
    fractal: {num_points: 1024, num_iterations: 45, num_window_iterations: 45}
labels: {column: label}
stages:
  frames: {uses: decode, fps: 3, materialize: false}
  embed: {uses: embed, frames: frames, encoder: timm/resnet10t, weights: none, preprocess: {size: [64, 64]}, precision: bf16}
  probe:
    uses: train
    embeddings: [embed]
    task: video
    window: {length: 5, hop: 5}
    model: {name: linear, norm: true, pool: mean}
    optimizer: {lr: 0.3}
    epochs: 50
    val_splits: []
  predict: {uses: predict, run: probe}
  scores: {uses: evaluate, predictions: predict, report: false}
"""  # noqa: E501 - as one would write it


@pytest.mark.slow
def test_a_linear_probe_tells_classes_of_fractals_apart(tmp_path: Path) -> None:
    """10 classes of 20 videos; of each class 8 instances are held out. Nothing was trained but the probe."""
    (tmp_path / "reelwright.yaml").write_text(PROBE, encoding="utf-8")
    project = Project.open(tmp_path / "reelwright.yaml")
    assert project.run(jobs=2).exit_code == 0
    headline = json.loads((project.report("scores") / "metrics.json").read_text())["headline"]
    accuracy, chance = headline["video_top1"], headline["chance_video_top1"]
    print(f"linear probe on embeddings of fractals: {100 * accuracy:.1f} % of {headline['num_videos']} held-out videos")
    assert headline["num_videos"] == 80
    assert chance == pytest.approx(0.1)
    assert accuracy > 3 * chance


def test_a_dry_run_estimates_the_making_by_the_rate_of_earlier_ones(project: Path) -> None:
    """Six of a seed that is new, of which four were made of another seed in 8 seconds."""
    planner = planner_of(project)
    assert NODE not in estimates(planner)
    (record,) = (found for found in read_records(planner.file.store) if found.node == NODE)
    assert record.work["videos"] == 4
    assert record.bytes == sum(path.stat().st_size for path in videos_of(project).values())
    write_record(planner.file.store, replace(record, work={"videos": 4, "seconds": 8.0}), project=planner.project)
    wanted = ("videos.synthesize.seed=4", "videos.synthesize.samples=6")
    made = estimates(planner_of(project, *wanted))[NODE]
    assert (made.kind, made.num_todo, made.num_videos, made.seconds) == (MAKING, 6, 6, 12.0)
    assert made.bytes == record.bytes * 1.5
    assert estimates(planner_of(project, "videos.synthesize.samples=5"))[NODE].seconds == 2.0
    assert estimates(planner_of(project, "videos.synthesize.size=34"))[NODE].seconds is None
    command = [
        "run",
        "-n",
        "-c",
        str(project / "reelwright.yaml"),
        *(part for entry in wanted for part in ("-S", entry)),
    ]
    message = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    assert re.search(r"^videos: 6 of 6 videos to make, about 12 s, [\d.]+ kB$", message, re.MULTILINE), message
    found = json.loads(CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False).stdout)
    assert (found["making"]["num_todo"], found["making"]["seconds"]) == (6, 12.0)


class PoolHere:
    """Does units in this process; the first so many die before they start, or over a sample that kills so often."""

    def __init__(self, *, breaks: int = 0, kills: tuple[str, int] = ("", 0)) -> None:
        self.breaks, (self.killer, self.kills), self.wants = breaks, kills, []
        self.units: list[list[str]] = []
        self._queue: list[tuple[str, dict[str, Any]]] = []

    def size(self) -> int:
        return 2

    def want(self, num_units: int) -> None:
        self.wants.append(num_units)

    def submit(self, name: str, unit: dict[str, Any], *, needs_gpu: bool) -> None:
        assert not needs_gpu
        self._queue.append((name, json.loads(json.dumps(unit))))
        self.units.append([item.video_id for item in Unit.from_plain(unit).work.items])

    def ended(self, timeout_seconds: float) -> list[Ended]:
        name, unit = self._queue.pop()
        if self.breaks:
            self.breaks -= 1
            return [Ended(name=name, why="killed")]
        if self.kills and self.killer in [item.video_id for item in Unit.from_plain(unit).work.items]:
            self.kills -= 1
            Unit.from_plain(unit).mark(STARTED).touch()
            return [Ended(name=name, why="killed")]
        return [Ended(name=name, done=json.loads(json.dumps(do_unit(unit))))]

    def cancel(self) -> None:
        self._queue.clear()


UNLABELLED = """
videos:
  synthesize: {family: dead_leaves, size: 32, samples: 3}
  workers: 1
stages:
  frames: {uses: decode, fps: 6, workers: 1}
"""


class There(LocalExecutor):
    """Workers of a cluster with one core each."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def items(self, work: Work, reporter: LiveReporter) -> None:
        Spreader(sized(work, cpus=1), self.pool, reporter, ClusterSettings(unit_seconds=5.0)).run()


MADE_BY_WORKERS = {
    "samples of classes": PIPELINE,
    "procedures": PIPELINE.replace("family: dead_leaves, size: 32", "family: procedure, size: 48, fps: 2")
    .replace("samples: 4, num_classes: 2", "samples: 2")
    .replace("column: label", "segments: synthesize"),
}


@pytest.mark.parametrize("name", MADE_BY_WORKERS)
def test_videos_made_by_workers_of_a_cluster_are_those_made_here(name: str, tmp_path: Path) -> None:
    folders = [tmp_path / "here", tmp_path / "there"]
    pool = PoolHere(breaks=2)
    for folder, executor in zip(folders, (None, There(pool)), strict=True):
        folder.mkdir()
        (folder / "reelwright.yaml").write_text(MADE_BY_WORKERS[name], encoding="utf-8")
        read_videos(load_pipeline(folder / "reelwright.yaml"), SilentObserver(), executor=executor)
    here, there = (
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("synthetic/**/*.*")}
        for folder in folders
    )
    assert here == there
    videos = [path for path in here if path.endswith(".mp4")]
    done = {made for unit in pool.units for made in unit}
    assert len(videos) == (4 if name == "samples of classes" else 2)
    assert len(done) == len(videos)
    assert len(here) - len(videos) == 2  # files of classes, or tables
    assert len(pool.units) > 2
    assert pool.wants[0] >= 2


def test_a_sample_over_which_three_workers_die_is_given_up_and_tried_again_by_the_next_run(tmp_path: Path) -> None:
    (tmp_path / "reelwright.yaml").write_text(UNLABELLED, encoding="utf-8")
    file = load_pipeline(tmp_path / "reelwright.yaml")
    pool = PoolHere(kills=("2", DEATHS))
    read_videos(file, SilentObserver(), executor=There(pool))
    assert [unit.count("2") for unit in pool.units].count(1) == DEATHS
    planner = open_planner(file)
    assert [video.video_id for video in planner.dataset.videos] == ["1", "3"]
    assert planner.dataset.num_to_make == 0
    (failure,) = all_failures(planner)
    assert (failure.video_ids, failure.row.cause, failure.is_quarantined) == (("2",), "killed_worker", False)
    assert re.search(r"3 workers died over this video.*\(killed\)", failure.row.message)
    assert [(said.node, said.row) for said in account(planner, "2")] == [(NODE, failure.row)]
    assert len(read_videos(file, SilentObserver(), anew=False).videos) == 2
    assert len(read_videos(file, SilentObserver()).videos) == 3
    assert not all_failures(open_planner(file))


def test_a_run_with_retries_tries_samples_again_over_which_workers_died(tmp_path: Path) -> None:
    (tmp_path / "reelwright.yaml").write_text(UNLABELLED, encoding="utf-8")
    file = load_pipeline(tmp_path / "reelwright.yaml")
    pool = PoolHere(kills=("2", DEATHS))
    read = partial(read_for_run, file, SilentObserver(), check=lambda _: None)
    assert [video.video_id for video in read(RunOptions(), executor=There(pool)).videos] == ["1", "3"]
    pool.kills = DEATHS
    assert [video.video_id for video in read(RunOptions(retries=1), executor=There(pool)).videos] == ["1", "2", "3"]
    assert pool.kills == 0


def test_class_files_that_a_machine_does_not_see_are_named_with_what_to_do(tmp_path: Path) -> None:
    config = SourceConfig.model_validate({"family": "dead_leaves", "size": 32, "samples": 1, "class_files": "x"})
    wanted = SyntheticSet(config, Store.at(tmp_path / "store"), {"a": "0"}, tmp_path / "elsewhere")
    items = (VideoItem(wanted.digest_of("a/1"), "a/1", "a/1"),)
    with pytest.raises(InputError, match=r"elsewhere is not on .*num_classes"):
        run_items(wanted.work(items, node=NODE, workers=1), SilentReporter())


def test_class_files_that_change_after_the_plan_make_nothing(tmp_path: Path) -> None:
    """Videos of them would lie under the key of the ones before."""
    folder = tmp_path / "classes"
    settings = {"family": "dead_leaves", "size": 32}
    drawn = make.draw_class(SynthesizeConfig.model_validate(settings), 1)[0]
    for name in ("a", "b"):
        write_class(folder / f"{name}.npz", drawn)
    config = SourceConfig.model_validate({**settings, "samples": 2, "class_files": str(folder)})
    digests = {name: file_digest(folder / f"{name}.npz") for name in ("a", "b")}
    wanted = SyntheticSet(config, Store.at(tmp_path / "store"), digests, folder)
    work = wanted.work(items_to_make(wanted, again=False), node=NODE, workers=1)
    write_class(folder / "b.npz", make.draw_class(config.generator, 2)[0])
    with pytest.raises(InputError, match=r"the class files \(b\) changed after the plan"):
        run_items(work, SilentReporter())
    (folder / "b.npz").unlink()
    with pytest.raises(InputError, match=r"the class files \(fewer by now\) changed"):
        run_items(work, SilentReporter())
    write_class(folder / "b.npz", drawn)
    run_items(work, SilentReporter())
    assert len(list((wanted.folder).glob("*/*.mp4"))) == 2


def test_a_class_that_cannot_be_drawn_ends_the_making(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "is_degenerate", lambda *_, **__: True)
    file = load_pipeline(project / "reelwright.yaml", ["videos.synthesize.seed=4"])
    message = r"videos\.synthesize: class [12]: nothing to be seen in any of 50 draws\. Choose another seed, or other"
    with pytest.raises(StageError, match=message):
        read_videos(file, SilentObserver())


def test_the_file_of_a_class_that_is_gone_is_drawn_where_it_is_needed(project: Path) -> None:
    """Repair takes it from the list; a video of the class brings it back."""
    file = load_pipeline(project / "reelwright.yaml")
    (path,) = project.glob(".reelwright/store/synthetic/*/classes/2.npz")
    whole = path.read_bytes()
    path.unlink()
    assert [(problem.path, problem.kind) for problem in verify(file).problems] == [(path, "missing")]
    assert repair(file, SilentObserver()).problems == ()
    assert not path.exists()
    next(video for name, video in videos_of(project).items() if name.startswith("2/")).unlink()
    assert run(project) == {"made": 1, "decoded": 0}
    assert path.read_bytes() == whole
    assert verify(file).problems == ()


def test_the_file_of_a_class_that_was_not_listed_is_drawn_again(project: Path) -> None:
    """As where power goes between the two."""
    file = load_pipeline(project / "reelwright.yaml")
    (path,) = project.glob(".reelwright/store/synthetic/*/classes/2.npz")
    ledger = ItemLedger(file.store.node(path.parents[1].name))
    ledger.drop([row.digest for row in ledger.load().values() if row.file == "classes/2.npz"])
    assert [(problem.path, problem.kind) for problem in verify(file).problems] == [(path, "leftover")]
    next(video for name, video in videos_of(project).items() if name.startswith("2/")).unlink()
    assert run(project) == {"made": 1, "decoded": 0}
    assert verify(file).problems == ()
