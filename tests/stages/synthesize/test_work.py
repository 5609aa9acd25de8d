"""Data sets: equal on any number of workers, taken up where they were killed, counted, and of one kind a folder."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from reelwright.stages.base.work import SilentReporter
from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.families.class_files import write_class
from reelwright.stages.synthesize.families.perlin import labels
from reelwright.stages.synthesize.family_settings import FractalConfig
from reelwright.stages.synthesize.make import MAX_ATTEMPTS, render_sample
from reelwright.stages.synthesize.samples import SamplePlan
from reelwright.stages.synthesize.spread import spread
from reelwright.stages.synthesize.work import Effort, SynthesisResult, synthesize, synthesize_classes
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.tables.manifest import read_manifest

GOLDEN_LABELS = ["16-2-1", "120-3-1", "5-40-1"]
GOLDEN_PERLIN = (20, 142781040)
GOLDEN_SUMS = [6.318854, 46.176825, -103.360908]
QUICK = {"num_points": 256, "num_iterations": 50, "num_window_iterations": 40}


class Notes(SilentReporter):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.advanced = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, amount: int) -> None:
        self.advanced += amount


def config_of(family: str = "fractal", **more: Any) -> SynthesizeConfig:
    own = {"fractal": {**QUICK, **more.pop("fractal", {})}} if family == "fractal" else {}
    size = {} if family == "perlin" else {"size": 48}
    return SynthesizeConfig.model_validate({"family": family, **size, **own, **more})


def make(
    folder: Path, config: SynthesizeConfig | None = None, *, classes: Path | None = None, **effort: Any
) -> SynthesisResult:
    return synthesize(
        folder,
        config or config_of(),
        effort=Effort(**{"num_samples": 4, **effort}),
        reporter=Notes(),
        classes=classes,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """All but what tells of the making."""
    message = {"made.jsonl", "report.json"}
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in message and p.parent.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def decoded(path: Path) -> tuple[list[float], np.ndarray]:
    with av.open(str(path)) as container:
        frames = [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    return [seconds for seconds, _ in frames], np.stack([pixels for _, pixels in frames])


@pytest.fixture(scope="module")
def fractals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fractals") / "set"
    make(folder)
    return folder


@pytest.fixture(scope="module")
def class_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes") / "classes"
    synthesize_classes(folder, config_of(), num_classes=3, workers=1, reporter=Notes())
    return folder


def test_a_data_set_has_files_a_manifest_and_a_report(fractals: Path) -> None:
    rows = rows_of(fractals)
    assert [row["path"].split("-")[0] for row in rows] == ["1", "2", "3", "4"]
    assert {row["label"] for row in rows} == {""}
    assert {row["split"] for row in rows} == {"train"}
    report = json.loads((fractals / "report.json").read_text())
    assert report["samples"] == report["files"] == 4
    assert report["bytes"] == sum((fractals / row["path"]).stat().st_size for row in rows)
    videos = read_manifest(fractals / "manifest.csv", root=fractals, default_split="train")
    assert [Path(video.path).stat().st_size > 0 for video in videos] == [True] * 4


@pytest.mark.parametrize(("codec", "name", "tolerance"), [("h264", "h264", 9.0), ("h265", "hevc", 9.0)])
def test_files_show_the_rendered_frames(tmp_path: Path, codec: str, name: str, tolerance: float) -> None:
    config = config_of("dead_leaves", codec=codec, fps=12.5)
    make(tmp_path / "set", config, num_samples=1)
    path = tmp_path / "set" / "1.mp4"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == (name, "yuv420p")
        assert float(stream.average_rate) == 12.5
    seconds, frames = decoded(path)
    rendered, _ = render_sample(config, SamplePlan(config).sample(1), None)
    assert seconds == pytest.approx([index / 12.5 for index in range(len(rendered))])
    # Sharp edges between colours lose half of their colour resolution (4:2:0).
    assert np.abs(frames.astype(int) - rendered).mean() < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("into", ["files", "frames"])
def test_two_workers_make_the_same_bytes_as_one(tmp_path: Path, fractals: Path, into: str) -> None:
    if into == "frames":
        fractals = tmp_path / "one"
        make(fractals, config_of(into="frames"))
    make(tmp_path / "two", config_of(into=into), workers=2)
    assert contents(tmp_path / "two") == contents(fractals)


def test_a_sample_does_not_depend_on_the_others(tmp_path: Path, fractals: Path) -> None:
    make(tmp_path / "one", num_samples=1)
    first = rows_of(fractals)[0]["path"]
    assert contents(tmp_path / "one")[first] == contents(fractals)[first]
    config = config_of()
    third = SamplePlan(config).sample(3)
    np.testing.assert_array_equal(render_sample(config, third, None)[0], render_sample(config, third, None)[0])


def test_another_seed_gives_other_frames() -> None:
    one, two = (config_of(seed=seed) for seed in (1, 2))
    first, second = (render_sample(config, SamplePlan(config).sample(1), None)[0] for config in (one, two))
    assert first.shape != second.shape or (first != second).any()


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("perlin", {}),
        ("octopus", {}),
        ("dead_leaves", {}),
        ("fractal", {"fractal": {"still": True}}),
        ("octopus", {"into": "frames"}),
    ],
    ids=["perlin", "octopus", "dead leaves", "stills", "octopus in a frame store"],
)
def test_a_second_call_does_nothing_and_a_larger_one_only_what_is_new(tmp_path: Path, family: str, more: dict) -> None:
    config = config_of(family, **more)
    per_draw = 16 if config.is_still else 1
    assert make(tmp_path, config, num_samples=2 * per_draw).num_new == 2
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    table = rows_of(tmp_path)
    again = make(tmp_path, config, num_samples=2 * per_draw)
    assert (again.num_new, again.num_found) == (0, 2)
    assert rows_of(tmp_path) == table
    more_made = make(tmp_path, config, num_samples=2 * per_draw + 1)
    assert (more_made.num_new, more_made.num_found) == (1, 2)
    assert rows_of(tmp_path)[: len(table)] == table
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_files_that_are_gone_or_changed_are_made_again(tmp_path: Path, fractals: Path) -> None:
    make(tmp_path)
    first, second = (tmp_path / row["path"] for row in rows_of(tmp_path)[:2])
    first.unlink()
    second.write_bytes(b"cut off")
    with (tmp_path / "made.jsonl").open("a") as file:
        file.write('{"name": "5-0", "lab')  # a killed call
    assert make(tmp_path).num_new == 2
    assert contents(tmp_path) == contents(fractals)


@pytest.mark.slow
def test_a_killed_call_leaves_nothing_that_looks_whole_and_is_taken_up(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from reelwright.stages.synthesize.config import SynthesizeConfig\n"
        "from reelwright.stages.synthesize.work import Effort, synthesize\n"
        "from reelwright.stages.base.work import SilentReporter\n"
        "if __name__ == '__main__':\n"
        "    synthesize(Path(sys.argv[1]), SynthesizeConfig(family='octopus', size=128),\n"
        "               effort=Effort(num_samples=6, workers=2), reporter=SilentReporter())\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    folder = tmp_path / "set"
    process = subprocess.Popen([sys.executable, str(script), str(folder)], start_new_session=True)
    deadline = time.monotonic() + 60
    while not any(".tmp-" not in path.name for path in folder.glob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while group_is_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not group_is_alive(process.pid), "its processes end with it"
    found = contents(folder)
    config = SynthesizeConfig(family="octopus", size=128)
    whole = tmp_path / "whole"
    make(whole, config, num_samples=6)
    assert "manifest.csv" not in found
    assert 0 < sum(path.endswith(".mp4") and ".tmp-" not in path for path in found) < 6
    assert {path: content for path, content in found.items() if ".tmp-" not in path}.items() <= contents(whole).items()
    make(folder, config, num_samples=6)
    assert contents(folder) == contents(whole)


def group_is_alive(group: int) -> bool:
    """Zombies do not count: who would reap them is gone."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False


def test_time_stops_a_run_and_what_was_begun_is_finished(tmp_path: Path) -> None:
    outcome = make(tmp_path, config_of("octopus"), num_samples=None, seconds=0.4)
    assert 1 <= outcome.num_new == len(rows_of(tmp_path))
    longer = make(tmp_path, config_of("octopus"), num_samples=None, seconds=0.2)
    assert longer.num_found == outcome.num_new
    assert longer.num_new >= 1
    assert [row["video_id"] for row in rows_of(tmp_path)] == [str(n + 1) for n in range(len(rows_of(tmp_path)))]


def test_samples_or_time_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="how much"):
        make(tmp_path / "set", num_samples=None)
    assert not (tmp_path / "set").exists()


def test_classes_take_turns_and_name_folders_and_labels(tmp_path: Path, class_files: Path) -> None:
    names = sorted(path.stem for path in class_files.glob("*.npz"))
    assert [name.split("-")[0] for name in names] == ["1", "2", "3"]
    config = config_of(num_val=1, num_test=1)
    make(tmp_path, config, classes=class_files, num_samples=9)
    rows = rows_of(tmp_path)
    assert [row["video_id"] for row in rows] == [f"{row['label']}/{n}" for n, row in enumerate(rows, start=1)]
    labels_found = [row["label"] for row in rows]
    assert sorted(labels_found[:3]) == names
    assert labels_found == labels_found[:3] * 3
    assert [row["split"] for row in rows] == ["val"] * 3 + ["test"] * 3 + ["train"] * 3


def test_a_class_keeps_its_videos_when_others_come(tmp_path: Path, class_files: Path) -> None:
    config = config_of()
    name = min(path.stem for path in class_files.glob("*.npz"))
    file = class_files / f"{name}.npz"
    alone = SamplePlan(config, (name,)).sample(2)
    among = next(s for s in map(SamplePlan(config, (name, "x", "y")).sample, range(4, 7)) if s.label == name)
    assert alone.index == among.index == 1
    np.testing.assert_array_equal(render_sample(config, alone, file)[0], render_sample(config, among, file)[0])


def test_perlin_visits_its_256_labels(tmp_path: Path) -> None:
    plan = SamplePlan(config_of("perlin"), tuple(labels()))
    visited = [plan.sample(step).label for step in range(1, 513)]
    assert sorted(visited[:256]) == sorted(labels())
    assert visited[256:] == visited[:256]
    make(tmp_path, config_of("perlin"), num_samples=2)
    assert [row["label"] for row in rows_of(tmp_path)] == visited[:2]


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["linear only", "one other"])
def test_variations_are_drawn_as_asked(share: float) -> None:
    config = config_of(fractal={"variations": (16,) if share else (0,)})
    names = {SamplePlan(config).sample(step).name.split("-")[1] for step in range(1, 9)}
    assert names == {"16" if share else "0"}
    mixed = [int(SamplePlan(config_of()).sample(step).name.split("-")[1]) for step in range(1, 201)]
    assert set(mixed) == {0, 4, 14, 16, 17, 20, 27, 29}
    assert np.mean(np.array(mixed) == 0) == pytest.approx(0.5, abs=0.1)


def test_still_images_are_sixteen_a_draw(tmp_path: Path) -> None:
    config = config_of(fractal={"still": True})
    make(tmp_path, config, num_samples=17)
    rows = rows_of(tmp_path)
    assert len(rows) == 32
    stem = rows[0]["video_id"].rpartition("-")[0]
    assert [row["path"] for row in rows[:16]] == [f"{stem}-{k}.jpg" for k in range(16)]
    rendered, _ = render_sample(config, SamplePlan(config).sample(1), None)
    with Image.open(tmp_path / rows[0]["path"]) as image:
        assert (image.mode, image.size) == ("L", (48, 48))
        assert np.abs(np.asarray(image).astype(int) - rendered[0]).mean() < 3


def test_a_frame_store_holds_the_very_frames(tmp_path: Path) -> None:
    config = config_of("octopus", into="frames", fps=10.0)
    make(tmp_path, config, num_samples=1)
    store = FrameStore(tmp_path / "frames.zarr")
    (name,) = store.digests()
    assert rows_of(tmp_path)[0]["path"] == f"frames.zarr/{name}"
    rows = store.rows(name)
    rendered, _ = render_sample(config, SamplePlan(config).sample(1), None)
    np.testing.assert_array_equal(rows.read(0, rows.num_rows), rendered)
    assert rows.pts_seconds[:3].tolist() == pytest.approx([0.0, 0.1, 0.2])
    assert store.spec["synthesized"]["family"] == "octopus"


def runaway_class(folder: Path) -> None:
    """Maps that throw every point out of the window."""
    weights = np.tile([4.0, 0, 9.0, 0, 4.0, 9.0], (2, 3, 1))
    write_class(folder / "1-0.npz", {"var": np.array(0), "weights": weights})


def test_degenerate_draws_are_rejected_and_counted(tmp_path: Path) -> None:
    classes = tmp_path / "classes"
    runaway_class(classes)
    config = config_of(fractal={"still": True, "num_points": 16, "num_iterations": 30})
    outcome = make(tmp_path / "set", config, classes=classes, num_samples=1)
    assert outcome.num_given_up == 1
    report = json.loads((tmp_path / "set" / "report.json").read_text())
    assert report["rejected_degenerate_draws"] == MAX_ATTEMPTS
    assert report["rejected_by_label"] == {"1-0": MAX_ATTEMPTS}
    assert report["given_up"][0]["problem"] == f"1-0/1: nothing to be seen in any of {MAX_ATTEMPTS} draws"
    assert rows_of(tmp_path / "set") == []
    assert make(tmp_path / "set", config, classes=classes, num_samples=1).num_new == 0, "it would be so again"


def test_after_a_degenerate_draw_comes_another(tmp_path: Path) -> None:
    """19 points of 9 pixels are 171 of the 164 that are needed: too few where they overlap a little."""
    config = config_of(size=128, fractal={"num_points": 19, "num_iterations": 26, "num_window_iterations": 30})
    outcome = make(tmp_path, config, num_samples=7)
    made = [json.loads(line) for line in (tmp_path / "made.jsonl").read_text().splitlines()]
    rejected = [entry["num_rejected"] for entry in made]
    assert [entry["problem"] for entry in made] == [""] * 7
    assert outcome.report["rejected_degenerate_draws"] == sum(rejected) > 0
    assert 0 in rejected


def test_a_class_file_that_is_another_by_now_is_read_again(tmp_path: Path) -> None:
    """As in a notebook, where one process makes one data set after the other."""
    config = config_of("dead_leaves", size=32)
    synthesize_classes(tmp_path / "drawn", config, num_classes=2, workers=1, reporter=SilentReporter())
    (tmp_path / "classes").mkdir()
    found = []
    for number in (1, 2):
        (tmp_path / "classes" / "1.npz").write_bytes((tmp_path / "drawn" / f"{number}.npz").read_bytes())
        effort, out = Effort(num_samples=1), tmp_path / f"out {number}"
        synthesize(out, config, effort=effort, reporter=SilentReporter(), classes=tmp_path / "classes")
        found.append((out / "1" / "1.mp4").read_bytes())
    assert found[0] != found[1]


def test_class_files_are_kept_and_more_are_added(tmp_path: Path) -> None:
    config = config_of("octopus")
    first = synthesize_classes(tmp_path, config, num_classes=2, workers=1, reporter=Notes())
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.npz")}
    assert (set(before), first.num_new) == ({"1.npz", "2.npz"}, 2)
    more = synthesize_classes(tmp_path, config, num_classes=3, workers=1, reporter=Notes())
    assert (more.num_new, more.num_found) == (1, 2)
    assert before.items() <= {path.name: path.read_bytes() for path in tmp_path.glob("*.npz")}.items()


def test_what_does_not_go_together_is_refused(tmp_path: Path, class_files: Path) -> None:
    with pytest.raises(ConfigError, match="perlin takes no class files"):
        make(tmp_path / "set", config_of("perlin"), classes=class_files)
    with pytest.raises(ConfigError, match="perlin has no class files"):
        synthesize_classes(tmp_path / "set", config_of("perlin"), num_classes=1, workers=1, reporter=Notes())
    with pytest.raises(ConfigError, match="is a class of videos: do not ask for still images"):
        make(tmp_path / "set", config_of(fractal={"still": True}), classes=class_files)
    with pytest.raises(InputError, match="is no class file of octopus: it has no 'controls"):
        make(tmp_path / "set", config_of("octopus"), classes=class_files)
    assert not (tmp_path / "set").exists()


def test_a_folder_holds_one_data_set(tmp_path: Path, class_files: Path) -> None:
    make(tmp_path / "set", num_samples=1)
    before = contents(tmp_path / "set")
    with pytest.raises(InputError, match=r"made with other settings \(seed: 1 -> 2\): choose another folder"):
        make(tmp_path / "set", config_of(seed=2))
    with pytest.raises(InputError, match=r"made with other settings \(classes\)"):
        make(tmp_path / "set", classes=class_files)
    assert contents(tmp_path / "set") == before
    make(tmp_path / "set", config_of(num_val=1), num_samples=1)
    assert rows_of(tmp_path / "set")[0]["split"] == "val"


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [("notes.txt", "mine", "not empty and has no dataset.json"), ("dataset.json", "{", "is not JSON")],
    ids=["files of others", "broken record"],
)
def test_folders_that_are_not_ours_are_left_alone(tmp_path: Path, name: str, text: str, match: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=match):
        make(tmp_path)
    assert not list(tmp_path.glob("*.mp4"))


def test_progress_tells_rate_time_left_and_sizes(tmp_path: Path) -> None:
    notes = Notes()
    effort = Effort(num_samples=4, report_every=2)
    synthesize(tmp_path, config_of("dead_leaves"), effort=effort, reporter=notes)
    assert notes.advanced == 4
    assert len(notes.notes) == 2
    assert notes.notes[0].startswith("2 of 4 videos, ")
    for part in ("/s, ", " s gone, about ", " s left, ", " kB each, ", " MB new"):
        assert part in notes.notes[0]


def half(value: int) -> int:
    if value == 3:
        raise ValueError("three")
    return value // 2


@pytest.mark.slow
def test_calls_are_read_only_as_far_as_processes_are_free() -> None:
    read: list[int] = []

    def calls():
        for value in range(0, 100, 2):
            read.append(value)
            yield (value,)

    results = spread(half, calls(), workers=2)
    next(results)
    assert len(read) <= 5
    assert len(list(results)) == len(read) - 1 == 49


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_what_a_call_raises_is_raised(workers: int) -> None:
    with pytest.raises(ValueError, match="three"):
        list(spread(half, ((value,) for value in range(6)), workers=workers))


def test_defaults_draw_as_many_points_as_the_published_generator() -> None:
    config = FractalConfig()
    assert config.num_points * (config.num_iterations - config.num_skipped) >= 128 * (7500 - 200)
    assert config.num_points * (config.num_window_iterations - config.num_skipped) >= 128 * (3000 - 200)


def test_the_version_is_raised_when_draws_change() -> None:
    """Where this fails, raise VERSION in work.py, then pin the new values: the same settings give other videos."""
    from reelwright.stages.synthesize.make import draw_class
    from reelwright.stages.synthesize.work import VERSION

    assert VERSION == 2
    perlin = config_of("perlin")
    plan = SamplePlan(perlin, tuple(labels()))
    assert [plan.sample(step).label for step in (1, 2, 3)] == GOLDEN_LABELS
    frames, _ = render_sample(perlin, plan.sample(1), None)
    assert (len(frames), int(frames.sum())) == GOLDEN_PERLIN
    sums = [
        round(float(np.nansum(draw_class(config_of(family), 1)[0][name])), 6)
        for family, name in (("fractal", "sigma"), ("octopus", "controls"), ("dead_leaves", "coords"))
    ]
    assert sums == GOLDEN_SUMS
