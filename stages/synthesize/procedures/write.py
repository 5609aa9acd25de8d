"""Write a data set of labelled procedure videos: H.264 files, manifest, segments and steps.

    folder/
      dataset.json     the parameters, written first: videos found later are known to be made from them
      videos/          <split>_<nn>.mp4, each put in place whole
      segments.csv     video_id,start_seconds,stop_seconds,label; like steps.csv of all videos that are there
      steps.csv        video_id,time_seconds,step
      manifest.csv     video_id,path,split,label; written last, so where it lies everything else is there

A killed call is taken up by calling again: what is finished stays, what is missing is made. One call at a time per
folder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reelwright.stages.base.config import parse_config
from reelwright.stages.synthesize import encode
from reelwright.stages.synthesize.config import PROCEDURE_VERSION
from reelwright.stages.synthesize.family_settings import ProcedureSettings
from reelwright.stages.synthesize.ledger import Made, claim, digest_of, write_rows
from reelwright.stages.synthesize.procedures.draft import make_script
from reelwright.stages.synthesize.procedures.life import kit_of, make_long_script
from reelwright.stages.synthesize.procedures.look import Look, draw_look
from reelwright.stages.synthesize.procedures.render import Renderer
from reelwright.stages.synthesize.procedures.script import Script
from reelwright.stages.synthesize.spread import spread
from reelwright.storage.constants import TEMPORARY
from reelwright.storage.errors import ConfigError
from reelwright.storage.files import remove
from reelwright.storage.store import backend_of

SPLITS = ("train", "val", "test")
MIN_SIDE_PIXELS = 48

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DatasetParameters:
    """All that decides the content of a data set."""

    num_train: int
    num_val: int
    num_test: int
    seed: int = 0
    height: int = 128  # pixels, like the width
    width: int = 128
    fps: float = 10.0
    version: int = PROCEDURE_VERSION
    procedure: Mapping[str, Any] = field(default_factory=dict)  # what of `ProcedureSettings` is not the default

    @property
    def settings(self) -> ProcedureSettings:
        """How hard the videos are."""
        return parse_config(ProcedureSettings, dict(self.procedure), where="procedure")

    def __post_init__(self) -> None:
        """Raise ConfigError naming the first parameter that is out of range."""
        object.__setattr__(self, "procedure", self.settings.changed())
        for name in ("num_train", "num_val", "num_test", "seed"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "a whole number from 0")
        for name in ("height", "width"):
            pixels = getattr(self, name)
            allowed = f"an even number of pixels from {MIN_SIDE_PIXELS} (H.264 with 4:2:0 colour)"
            _require(pixels >= MIN_SIDE_PIXELS and pixels % 2 == 0, name, pixels, allowed)
        _require(math.isfinite(self.fps) and 1 <= self.fps <= 240, "fps", self.fps, "1 to 240 frames per second")

    def plain(self) -> dict[str, object]:
        """All of them as plain data; settings that are the demo's are left out."""
        return {name: value for name, value in asdict(self).items() if name != "procedure" or value}

    def content(self) -> dict[str, object]:
        """What decides how a video looks: all but how many there are."""
        return {name: value for name, value in self.plain().items() if not name.startswith("num_")}

    def num_videos(self, split: str) -> int:
        """How many videos a split of `SPLITS` has."""
        return {"train": self.num_train, "val": self.num_val, "test": self.num_test}[split]


@dataclass(frozen=True)
class VideoJob:
    """One video to make: plain data, so that it can go to another process."""

    parameters: DatasetParameters
    split: str
    index: int

    @property
    def video_id(self) -> str:
        """The video's name, unique in the data set."""
        return f"{self.split}_{self.index:02d}"

    @property
    def path(self) -> str:
        """The video's file, relative to the data set's folder."""
        return f"videos/{self.video_id}.mp4"

    @property
    def variant(self) -> str:
        """The order of assembly: variants take turns, shifted per split, so that they are balanced."""
        return variant_of(self.video_id, self.parameters.settings)

    def script_and_look(self) -> tuple[Script, Look]:
        """What happens and how it looks, drawn from this video's own seed sequence, whatever other videos there are."""
        key = (SPLITS.index(self.split), self.index)
        script_seed, look_seed = np.random.SeedSequence(entropy=self.parameters.seed, spawn_key=key).spawn(2)
        settings = self.parameters.settings
        rng = np.random.default_rng(script_seed)
        if settings.is_scripted_long:
            script = make_long_script(rng, settings=settings, variant=self.variant, fps=self.parameters.fps)
        else:
            script = make_script(rng, variant=self.variant, fps=self.parameters.fps)
        look_rng = np.random.default_rng(look_seed)
        return script, draw_look(look_rng, hand_size=settings.hand_size, camera=settings.camera)


def variant_of(video_id: str, settings: ProcedureSettings) -> str:
    """See `VideoJob.variant`."""
    names, (split, _, index) = tuple(kit_of(settings).orders), video_id.partition("_")
    return names[0] if settings.usual_order else names[(int(index) + SPLITS.index(split)) % len(names)]


def make_procedure_dataset(
    folder: Path, parameters: DatasetParameters, *, workers: int = 1, progress: Progress | None = None
) -> None:
    """Write labelled videos, of 12 to 25 s unless the settings say otherwise, that show parts being put together.

    A video depends on the seed, the size, the fps, the settings and its own split and index, nothing else: not on the
    number of videos or of `workers` (processes). Finished videos are kept when the same parameters made them.
    `progress(num_done, num_videos)` is called once at the start and then after each video, in this process.

    Raises InputError when the folder holds a data set of other parameters or files that are not ours.
    """
    _require(workers >= 1, "workers", workers, "a number of processes from 1")
    claim(folder, parameters.content())
    for leftover in folder.glob(f"videos/{TEMPORARY}*.mp4"):
        remove(leftover)
    jobs = list_jobs(parameters)
    make_missing(folder, jobs, write_video, place=lambda job: job.path, workers=workers, progress=progress)
    write_annotations(folder, [*jobs, *_other_videos(folder, parameters)])
    manifest = [(job.video_id, job.path, job.split, job.variant) for job in jobs]
    write_rows(folder / "manifest.csv", ("video_id", "path", "split", "label"), manifest)


def make_missing(
    folder: Path,
    jobs: Sequence[VideoJob],
    write: Callable[[Path, VideoJob], object],
    *,
    place: Callable[[VideoJob], str | Path],
    workers: int,
    progress: Progress | None,
) -> None:
    """``write`` the videos whose ``place`` below the folder is empty, in so many processes."""
    missing = [job for job in jobs if not (folder / place(job)).exists()]
    report = progress or (lambda _num_done, _num_videos: None)
    num_found = len(jobs) - len(missing)
    report(num_found, len(jobs))
    calls = ((folder, job) for job in missing)
    for number, _ in enumerate(spread(write, calls, workers=max(1, min(workers, len(missing)))), start=1):
        report(num_found + number, len(jobs))


def list_jobs(parameters: DatasetParameters) -> list[VideoJob]:
    """All videos of a data set, split by split."""
    return [VideoJob(parameters, split, index) for split in SPLITS for index in range(parameters.num_videos(split))]


def write_video(folder: Path, job: VideoJob) -> Made:
    """Render and encode one video (H.264, yuv420p, frame i at i / fps seconds) and put it in place whole."""
    started = time.perf_counter()
    script, look = job.script_and_look()
    size = (job.parameters.height, job.parameters.width)
    renderer = Renderer(look, size=size, work_centre=script.work_centre)
    encode.write_video(folder / job.path, renderer.frames(script), size=size, fps=script.fps, codec="h264")
    made = Made(
        name=job.video_id,
        label=job.variant,
        split=job.split,
        paths=(job.path,),
        num_frames=script.num_frames,
        num_bytes=(folder / job.path).stat().st_size,
        seconds=time.perf_counter() - started,
        digest=digest_of(folder, [job.path]),
    )
    backend_of(folder).free([folder / job.path])
    return made


def _require(is_right: bool, name: str, value: object, allowed: str) -> None:
    if not is_right:
        raise ConfigError(f"{name} is {value!r}: it has to be {allowed}")


def _other_videos(folder: Path, parameters: DatasetParameters) -> list[VideoJob]:
    """Finished videos of earlier calls that asked for more."""
    found, names = [], sorted(path.name for path in folder.glob("videos/*"))
    for split in SPLITS:
        parts = [name.removesuffix(".mp4").partition("_") for name in names]
        indices = sorted(int(number) for before, _, number in parts if before == split and number.isdigit())
        found += [VideoJob(parameters, split, index) for index in indices if index >= parameters.num_videos(split)]
    return found


def write_annotations(folder: Path, jobs: Iterable[VideoJob]) -> None:
    """Write what is known of these videos, made or still to be made: segments and steps."""
    segments: list[tuple[object, ...]] = []
    steps: list[tuple[object, ...]] = []
    for job in jobs:
        script, _ = job.script_and_look()
        segments += [
            (job.video_id, _seconds(s.start_seconds), _seconds(s.stop_seconds), s.label) for s in script.segments
        ]
        steps += [(job.video_id, _seconds(time_seconds), step) for time_seconds, step in script.steps]
    write_rows(folder / "segments.csv", ("video_id", "start_seconds", "stop_seconds", "label"), segments)
    write_rows(folder / "steps.csv", ("video_id", "time_seconds", "step"), steps)


def _seconds(seconds: float) -> str:
    """Microseconds are enough and keep the text short."""
    return str(round(seconds, 6))
