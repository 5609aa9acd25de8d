"""Data sets on disk: real H.264 files that agree with their tables, equal for equal parameters, safe when killed."""

import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from reelwright.stages.synthesize.procedures import write
from reelwright.stages.synthesize.procedures.render import Renderer
from reelwright.stages.synthesize.procedures.script import PHASES, VARIANTS, state_at
from reelwright.stages.synthesize.procedures.write import (
    DatasetParameters,
    Progress,
    VideoJob,
    list_jobs,
    make_procedure_dataset,
)
from reelwright.storage.errors import ConfigError, InputError

SMALL = {"num_train": 2, "num_val": 1, "num_test": 1, "seed": 7, "height": 64, "width": 48, "fps": 5.0}


def make(folder: Path, *, workers: int = 1, progress: Progress | None = None, **parameters: object) -> None:
    make_procedure_dataset(folder, DatasetParameters(**parameters), workers=workers, progress=progress)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "set"
    make(folder, **SMALL)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def decoded(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with av.open(str(path)) as container:
        frames = [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    return [seconds for seconds, _ in frames], [pixels for _, pixels in frames]


def test_the_manifest_lists_every_video(dataset: Path) -> None:
    rows = rows_of(dataset / "manifest.csv")
    assert [(row["video_id"], row["split"], row["path"]) for row in rows] == [
        ("train_00", "train", "videos/train_00.mp4"),
        ("train_01", "train", "videos/train_01.mp4"),
        ("val_00", "val", "videos/val_00.mp4"),
        ("test_00", "test", "videos/test_00.mp4"),
    ]
    assert {row["label"] for row in rows} == set(VARIANTS)
    assert set(contents(dataset)) == {
        "dataset.json", "manifest.csv", "segments.csv", "steps.csv", *(row["path"] for row in rows)
    }  # fmt: skip


def test_videos_are_h264_with_a_frame_every_fifth_of_a_second(dataset: Path) -> None:
    for row in rows_of(dataset / "manifest.csv"):
        with av.open(str(dataset / row["path"])) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert (stream.height, stream.width, stream.average_rate) == (64, 48, 5)
        seconds, _ = decoded(dataset / row["path"])
        assert seconds == pytest.approx([index / 5 for index in range(len(seconds))])
        segments = [s for s in rows_of(dataset / "segments.csv") if s["video_id"] == row["video_id"]]
        assert float(segments[0]["start_seconds"]) == 0.0
        assert float(segments[-1]["stop_seconds"]) == pytest.approx(len(seconds) / 5)
        assert [s["stop_seconds"] for s in segments[:-1]] == [s["start_seconds"] for s in segments[1:]]
        assert {s["label"] for s in segments} == set(PHASES)


def test_steps_are_listed_per_video_in_order_of_time(dataset: Path) -> None:
    for row in rows_of(dataset / "manifest.csv"):
        steps = [s for s in rows_of(dataset / "steps.csv") if s["video_id"] == row["video_id"]]
        assert [s["step"].rsplit("_")[1] for s in steps] == ["base", *row["label"].split("_")]
        times = [float(s["time_seconds"]) for s in steps]
        assert times == sorted(times)


def test_decoded_frames_are_the_rendered_ones_but_for_compression(dataset: Path) -> None:
    job = VideoJob(DatasetParameters(2, 1, 1, 7, 64, 48, 5.0), "train", 1)
    script, look = job.script_and_look()
    _, frames = decoded(dataset / job.path)
    assert len(frames) == script.num_frames
    renderer = Renderer(look, size=(64, 48), work_centre=script.work_centre)
    for index in range(0, len(frames), 10):
        drawn = renderer.render(state_at(script, index / 5), index=index, time_seconds=index / 5)
        errors = [float(np.abs(drawn.astype(int) - frame).mean()) for frame in frames]
        assert errors[index] < 6
        assert errors[index] <= min(errors) + 0.3


@pytest.mark.slow
def test_equal_parameters_give_equal_bytes_with_any_number_of_workers(dataset: Path, tmp_path: Path) -> None:
    make(tmp_path / "again", **SMALL, workers=2)
    assert contents(tmp_path / "again") == contents(dataset)


def test_a_video_does_not_depend_on_how_many_there_are(dataset: Path, tmp_path: Path) -> None:
    make(tmp_path, **{**SMALL, "num_train": 0, "num_val": 0})
    assert contents(tmp_path)["videos/test_00.mp4"] == contents(dataset)["videos/test_00.mp4"]


def test_another_seed_gives_another_video() -> None:
    first, second = (VideoJob(DatasetParameters(1, 0, 0, seed, 64, 64, 5.0), "train", 0) for seed in (0, 1))
    assert first.script_and_look() != second.script_and_look()
    assert first.script_and_look() == first.script_and_look()


def test_variants_are_balanced() -> None:
    jobs = list_jobs(DatasetParameters(12, 3, 3, 0, 64, 64, 5.0))
    labels = [job.variant for job in jobs]
    assert {label: labels.count(label) for label in VARIANTS} == dict.fromkeys(VARIANTS, 6)


def test_a_second_call_makes_only_what_is_missing(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    make(tmp_path, **SMALL)
    before = contents(tmp_path)
    kept = tmp_path / "videos" / "val_00.mp4"
    written_ns = kept.stat().st_mtime_ns, (tmp_path / "manifest.csv").stat().st_mtime_ns
    (tmp_path / "videos" / "train_01.mp4").unlink()
    (tmp_path / "videos" / ".tmp-0123-train_01.mp4").write_bytes(b"half a video")
    make(tmp_path, **SMALL, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(3, 4), (4, 4)]
    assert contents(tmp_path) == before
    assert written_ns == (kept.stat().st_mtime_ns, (tmp_path / "manifest.csv").stat().st_mtime_ns)


def test_other_parameters_are_refused(tmp_path: Path) -> None:
    one = {"num_train": 2, "num_val": 0, "num_test": 0, "height": 48, "width": 48, "fps": 2.0}
    make(tmp_path, **one)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"other settings \(seed: 0 -> 5\): choose another folder, or the same"):
        make(tmp_path, **{**one, "num_train": 1, "seed": 5})
    assert contents(tmp_path) == before


def test_more_videos_are_added_and_what_is_known_of_all_stays(tmp_path: Path) -> None:
    one = {"num_train": 1, "num_val": 0, "num_test": 1, "height": 48, "width": 48, "fps": 2.0}
    calls: list[tuple[int, int]] = []
    make(tmp_path, **one)
    make(tmp_path, **{**one, "num_train": 2}, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 3), (3, 3)]
    make(tmp_path, **one)
    assert [row["video_id"] for row in rows_of(tmp_path / "manifest.csv")] == ["train_00", "test_00"]
    for name in ("segments.csv", "steps.csv"):
        assert {row["video_id"] for row in rows_of(tmp_path / name)} == {"train_00", "train_01", "test_00"}


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        pytest.param("notes.txt", "mine", "not empty and has no dataset.json", id="files of others"),
        pytest.param("dataset.json", "{", "is not JSON", id="broken record"),
        pytest.param("dataset.json", '{"seed": 0}', r"other settings \(seed: 0 -> 7, height", id="record of others"),
    ],
)
def test_folders_that_are_not_ours_are_left_alone(tmp_path: Path, name: str, text: str, match: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=match):
        make(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"num_train": -1}, "num_train is -1: it has to be a whole number from 0"),
        ({"seed": -3}, "seed is -3"),
        ({"width": 63}, "width is 63: it has to be an even number of pixels from 48"),
        ({"height": 46}, "height is 46"),
        ({"fps": float("nan")}, "fps is nan: it has to be 1 to 240 frames per second"),
        ({"workers": 0}, "workers is 0: it has to be a number of processes from 1"),
    ],
    ids=["num_train", "seed", "odd width", "small height", "fps", "workers"],
)
def test_parameters_are_checked_before_anything_is_written(
    tmp_path: Path, change: dict[str, object], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        make(tmp_path / "new", **{**SMALL, **change})
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_killed_call_leaves_nothing_that_looks_whole_and_is_taken_up(dataset: Path, tmp_path: Path) -> None:
    code = (
        f"import sys, time; from {write.__name__} import *; number, render = 0, Renderer.render\n"
        "def held(self, *given, **more):\n"  # in the middle of the second video
        "    global number\n"
        "    number += 1\n"
        "    if number == 140: time.sleep(1000)\n"
        "    return render(self, *given, **more)\n"
        f"Renderer.render = held; make_procedure_dataset(Path(sys.argv[1]), DatasetParameters(**{SMALL!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    deadline = time.monotonic() + 60
    first = tmp_path / "videos/train_00.mp4"
    while not (first.exists() and list(tmp_path.glob("videos/.tmp-*"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    found, whole = contents(tmp_path), contents(dataset)
    assert "manifest.csv" not in found
    assert [path for path in found if ".tmp-" in path] != []
    assert {path: found[path] for path in found if ".tmp-" not in path}.items() <= whole.items()
    make(tmp_path, **SMALL)
    assert contents(tmp_path) == whole
