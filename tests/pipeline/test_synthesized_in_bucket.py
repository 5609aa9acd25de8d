"""Videos that a pipeline makes for itself, with its store in a bucket: here and on other machines; by `file://`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reelwright.pipeline.config.pipeline_file import PipelineFile, load_pipeline
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.reading import read_videos
from reelwright.pipeline.run.runner import open_planner
from reelwright.pipeline.upkeep.gc import Limits, collect
from reelwright.pipeline.upkeep.repair import repair
from reelwright.pipeline.upkeep.verify import verify
from reelwright.storage.bucket import remote
from reelwright.storage.errors import ConfigError
from tests.pipeline.test_synthesized import MADE_BY_WORKERS, PIPELINE, Counting, PoolHere, There
from tests.storage.test_remote import Machines, machines

__all__ = ["machines"]


@dataclass
class Bucket:
    """A project whose store is in a bucket, seen from one machine or another."""

    machines: Machines
    folder: Path

    def file(self, machine: str, *overrides: str) -> PipelineFile:
        self.machines.use(machine)
        return load_pipeline(self.folder / "reelwright.yaml", overrides)

    def run(self, machine: str, *overrides: str) -> dict[str, int]:
        self.machines.use(machine)
        observer = Counting()
        result = Project.open(self.folder / "reelwright.yaml", overrides=overrides).run(observer=observer)
        assert result.exit_code == 0, result
        return {"made": observer.num_made, "decoded": sum(node.num_done for node in result.nodes)}

    def made(self) -> dict[str, Path]:
        """Objects of all sets but their tables."""
        sets = self.machines.bucket / "synthetic"
        return {path.relative_to(sets).as_posix(): path for path in sets.rglob("*") if path.suffix in {".mp4", ".npz"}}

    def videos(self) -> list[Path]:
        return [path for name, path in sorted(self.made().items()) if name.endswith(".mp4")]

    def copies(self, machine: str) -> list[Path]:
        return sorted((self.machines.bucket.parents[1] / machine).rglob("*.mp4"))


def made_here(folder: Path, text: str = PIPELINE) -> dict[str, bytes]:
    """The same, with the store in a folder."""
    folder.mkdir()
    (folder / "reelwright.yaml").write_text(text, encoding="utf-8")
    read_videos(load_pipeline(folder / "reelwright.yaml"), SilentObserver(), jobs=1)
    sets = folder / ".reelwright" / "store" / "synthetic"
    return {
        path.relative_to(sets).as_posix(): path.read_bytes()
        for path in sets.rglob("*")
        if path.suffix in {".mp4", ".npz"}
    }


def contents(bucket: Bucket) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in bucket.made().items()}


@pytest.fixture
def bucket(machines: Machines, tmp_path: Path) -> Bucket:
    return written(machines, tmp_path / "project", PIPELINE)


def written(machines: Machines, folder: Path, text: str) -> Bucket:
    folder.mkdir()
    (folder / "reelwright.yaml").write_text(f"store: {machines.url}\n{text}", encoding="utf-8")
    return Bucket(machines, folder)


def test_they_are_those_of_a_folder_and_known_to_every_machine(bucket: Bucket, tmp_path: Path) -> None:
    assert bucket.run("one") == {"made": 4, "decoded": 4}
    wanted = made_here(tmp_path / "here")
    assert contents(bucket) == wanted
    assert len(wanted) == 4 + 2
    assert bucket.run("one") == {"made": 0, "decoded": 0}
    assert bucket.run("two") == {"made": 0, "decoded": 0}
    assert bucket.copies("two") == []  # nothing was brought to say so
    assert not [path for path in bucket.copies("one") if "synthetic" in path.parts]  # sent, then read as any video

    # Another machine goes on, with the classes that were drawn.
    before = {path: path.stat().st_mtime_ns for path in bucket.made().values()}
    assert bucket.run("two", "videos.synthesize.samples=6") == {"made": 2, "decoded": 2}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(bucket.videos()) == 6
    assert bucket.run("one", "videos.synthesize.samples=6") == {"made": 0, "decoded": 0}
    assert bucket.run("one") == {"made": 0, "decoded": 0}


@pytest.mark.slow
def test_what_is_gone_or_altered_is_made_again(bucket: Bucket) -> None:
    bucket.run("one")
    wanted = contents(bucket)
    bucket.videos()[0].unlink()
    assert bucket.run("two") == {"made": 1, "decoded": 0}
    bucket.videos()[1].write_bytes(b"x")
    assert bucket.run("one") == {"made": 1, "decoded": 0}
    assert contents(bucket) == wanted


@pytest.mark.slow
def test_a_machine_that_is_lost_costs_what_the_bucket_was_not_told_of(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power goes while the third video is sent: of two the ledger tells."""
    upload, sent = remote.upload, []

    def fail_at_the_third(files: dict[Path, str]) -> None:
        sent.extend(url for url in files.values() if url.endswith(".mp4"))
        if len(sent) > 2:
            raise SystemExit("power")
        upload(files)

    with monkeypatch.context() as patch:
        patch.setattr(remote, "upload", fail_at_the_third)
        with pytest.raises(SystemExit):
            read_videos(bucket.file("one"), SilentObserver())
    assert len(bucket.videos()) == 2
    assert open_planner(bucket.file("two")).dataset.num_to_make == 2
    assert bucket.run("two") == {"made": 2, "decoded": 4}
    for path in bucket.machines.bucket.glob("synthetic/*"):
        shutil.rmtree(bucket.machines.bucket / "nodes" / path.name)  # as if no row had been sent
    kept = contents(bucket)
    assert bucket.run("three") == {"made": 4, "decoded": 0}
    assert contents(bucket) == kept


@pytest.mark.slow
def test_verify_finds_what_is_wrong_in_the_bucket_and_repair_makes_it_again(bucket: Bucket) -> None:
    bucket.run("one")
    wanted = contents(bucket)
    assert verify(bucket.file("two")).problems == ()
    assert verify(bucket.file("two"), whole=True).problems == ()
    altered, missing = bucket.videos()[:2]
    altered.write_bytes(altered.read_bytes()[:-1] + b"?")
    missing.unlink()
    problems = verify(bucket.file("two")).problems
    found = {(problem.path.name, problem.kind) for problem in problems if problem.is_wrong}
    assert found == {(altered.name, "altered"), (missing.name, "missing")}
    assert repair(bucket.file("one"), SilentObserver()).problems == ()
    assert contents(bucket) == wanted


@pytest.mark.slow
def test_gc_takes_the_set_that_nothing_reaches(bucket: Bucket) -> None:
    bucket.run("one")
    before = set(bucket.made())
    bucket.run("one", "videos.synthesize.seed=4")
    assert len(bucket.made()) == 2 * len(before)
    file = bucket.file("two")
    collect([file], SilentObserver(), limits=Limits(guard_seconds=0), only_these=True)
    assert set(bucket.made()) == before
    assert bucket.run("one") == {"made": 0, "decoded": 0}


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE_BY_WORKERS)
def test_workers_that_share_no_folder_make_them(
    name: str, machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, pool = written(machines, tmp_path / "project", MADE_BY_WORKERS[name]), PoolHere(breaks=1)

    @contextmanager
    def elsewhere() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setenv("REELWRIGHT_CACHE", str(tmp_path / "worker"))
            yield

    ended: Callable[[float], Any] = pool.ended

    def ended_elsewhere(timeout_seconds: float) -> Any:
        with elsewhere():
            return ended(timeout_seconds)

    pool.ended = ended_elsewhere  # type: ignore[method-assign]

    dataset = read_videos(bucket.file("driver"), SilentObserver(), executor=There(pool))
    assert contents(bucket) == made_here(tmp_path / "here", MADE_BY_WORKERS[name])
    assert not list((tmp_path / "worker").rglob("*.mp4"))  # sent, and not kept
    assert len(dataset.videos) == len(bucket.videos())
    assert dataset.labels.classes
    again = open_planner(bucket.file("two")).dataset
    assert again.num_to_make == 0
    assert again.labels.classes == dataset.labels.classes
    assert list(again.digests.values()) == list(dataset.digests.values())


def test_stored_frames_are_not_for_buckets(bucket: Bucket) -> None:
    with pytest.raises(ConfigError, match=r"videos\.synthesize\.into: frames: not for object stores yet"):
        open_planner(bucket.file("one", "videos.synthesize.into=frames"))
