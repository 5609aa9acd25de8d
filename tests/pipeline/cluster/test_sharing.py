"""Long videos that several workers write together: against one process that does them whole, bit for bit."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.executors.parts import BEGIN, Part, Parts, long_seconds, ranges
from reelwright.pipeline.executors.unit_scheduler import DEATHS, Ended, Spreader
from reelwright.stages.base.item_locks import do_shards, do_videos
from reelwright.stages.base.registry import STAGES, load
from reelwright.stages.base.unit import UnitDone, do_unit
from reelwright.stages.base.work import Shards, VideoItem, Work
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.embed import videos
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter
from reelwright.storage.arrays.zarrs import partial_group
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.locks.locks import exclusive
from reelwright.storage.store import Store
from tests.stages.embed.conftest import Notes, Project, write_video

SPLIT = ClusterSettings(
    split_seconds=1.0, frames_per_second=10.0, unit_seconds=1.6
)  # 16 frames a range: two shards of 8
SETTINGS = {"deterministic": True, "shard_rows": 8, "batch_size": 3, "outputs": ["pooled", "layer1.map"]}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    return Project(tmp_path)


@dataclass
class PoolHere:
    """Does units in this process, the one that came last first; a unit that is interrupted was killed."""

    units: list[tuple[str, Any]] = field(default_factory=list)  # (first video, shards)
    _queue: deque[dict[str, Any]] = field(default_factory=deque)

    def size(self) -> int:
        return 3

    def want(self, num_units: int) -> None:
        assert num_units >= 0

    def submit(self, name: str, unit: dict[str, Any], *, needs_gpu: bool) -> None:
        self.units.append((unit["work"]["items"][0][0], unit["shards"]))
        self._queue.append(unit)

    def ended(self, timeout_seconds: float) -> list[Ended]:
        unit = self._queue.pop()
        try:
            return [Ended(name=unit["name"], done=do_unit(unit))]
        except KeyboardInterrupt:
            return [Ended(name=unit["name"], why="killed")]

    def cancel(self) -> None:
        self._queue.clear()


def add(project: Project, digest: str, num_frames: int) -> VideoItem:
    """A video as it was probed."""
    project.add(digest, num_frames)
    item = project.items[-1]._replace(duration_seconds=num_frames / 10, num_frames=num_frames)
    project.items[-1] = item
    return item


def shared(project: Project, pool: PoolHere, **settings: Any) -> tuple[dict[str, ItemRow], Notes]:
    """Embed by units; rows by digest."""
    work, reporter = project.work(**{**SETTINGS, **settings}), Notes()
    Spreader(work, pool, reporter, SPLIT).run()
    return ItemLedger(project.store.node(work.key)).load(), reporter


def files(project: Project, digest: str, *, key: str = "emb") -> dict[str, bytes]:
    folder = project.store.embeddings(key) / digest
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("decode", "num_frames", "seconds"),
    [
        ({}, 300, 30.0),
        ({"stride": 10}, 300, 3.0),
        ({"fps": 2}, 300, 2.0),
        ({"fps": 2, "start": 4, "stop": 8}, 300, None),
        ({"start": 5}, 300, 15.0),
        ({"times": [0.5, 1.0]}, 300, None),
        ({}, 10, None),
        ({}, None, None),
    ],
    ids=["all", "stride", "fps", "of-a-part", "half", "times", "short", "unknown"],
)
def test_what_is_long_follows_from_probes_and_declared_speed(tmp_path, decode, num_frames, seconds) -> None:
    item = VideoItem("a", "a.mp4", "a", 10.0 if num_frames != 10 else 1.0, num_frames)
    work = Project(tmp_path).work(decode=decode)
    assert long_seconds(item, work, SPLIT) == (None if seconds is None else pytest.approx(seconds))
    assert DecodeConfig(**decode).expected_frames(num_frames=300, duration_seconds=10.0) >= 2


@pytest.mark.parametrize(
    ("missing", "seconds", "expected"),
    [
        ((), 8.0, []),
        (range(10), 8.0, [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]),
        (range(3), 2.4, [(0, 2), (2, 3)]),
        ((0, 2, 3, 4, 9), 8.0, [(0, 1), (2, 4), (4, 5), (9, 10)]),
        (range(10), 1000.0, [(number, number + 1) for number in range(10)]),
        (range(10), 1.0, [(0, 10)]),
    ],
    ids=["none", "two-a-range", "rest", "gaps", "slow", "quick"],
)
def test_ranges_take_about_as_long_as_a_unit(missing, seconds, expected) -> None:
    count = 3 if len(tuple(missing)) == 3 else 10
    assert (
        list(ranges(Shards(count=count, missing=tuple(missing)), seconds=seconds, unit_seconds=SPLIT.unit_seconds))
        == expected
    )


def test_nothing_is_shared_without_a_limit_or_by_stages_that_cannot(tmp_path) -> None:
    items = [VideoItem("a", "a.mp4", "a", 1000.0, 10_000)]
    work = Project(tmp_path).work()
    parts = Parts.of(items, work, SPLIT)
    assert parts.take(num_workers=1) == (Part(items[0], BEGIN),)
    assert (parts.num_waiting, parts.num_expected) == (0, 625)  # 1,000 seconds in ranges of 1.6
    for other, split in (
        (work, SPLIT.model_copy(update={"split_seconds": None})),
        (replace(work, store="s3://bucket/store"), SPLIT),
        (replace(work, stage="predict"), SPLIT),
        (replace(work, inputs={}), SPLIT),  # rows of rows
    ):
        assert Parts.of(items, other, split).take(num_workers=1) == (Part(items[0]),)


def begun(tmp_path: Path) -> tuple[Parts, Part]:
    """A long video of four shards, begun; its ranges are of two."""
    parts = Parts.of([VideoItem("a", "a.mp4", "a", 3.2, 32)], Project(tmp_path).work(), SPLIT)
    (part,) = parts.take(num_workers=3)
    parts.ended([part])
    assert parts.wrote(part, UnitDone(shards=Shards(count=4, missing=(0, 1, 2, 3)))) == (None, "")
    return parts, part


def test_a_range_that_a_worker_died_over_is_done_while_nothing_else_of_its_video_is(tmp_path: Path) -> None:
    parts, _ = begun(tmp_path)
    first, second = parts.take(num_workers=3), parts.take(num_workers=3)
    assert [part.shards for part in (*first, *second)] == [(0, 2), (2, 4)]
    parts.ended(first)
    parts.deaths[first[0].name] += 1
    parts.put_back(first)
    assert (parts.take(num_workers=3), parts.num_waiting) == ((), 1)
    parts.ended(second)
    parts.put_back(second)  # lost, and nobody is to blame: it waits until the other is done
    assert parts.take(num_workers=3) == first
    assert (parts.take(num_workers=3), parts.num_waiting) == (second, 0)


def test_what_cannot_be_shared_is_done_whole_once_nothing_of_it_is_under_way(tmp_path: Path) -> None:
    parts, part = begun(tmp_path)
    first, second = parts.take(num_workers=3), parts.take(num_workers=3)
    parts.ended(first)
    assert parts.wrote(first[0], UnitDone()) == (None, "")
    assert parts.num_waiting == 0
    parts.ended(second)
    parts.deaths[second[0].name] += 1
    parts.put_back(second)  # its worker died, and it is not wanted any more
    assert parts.take(num_workers=3) == (Part(part.item),)


def test_a_video_that_is_never_published_is_begun_three_times_and_done_whole_then(tmp_path: Path) -> None:
    parts, part = begun(tmp_path)
    taken = []
    while not taken or taken[-1].shards is not None:
        taken += parts.take(num_workers=3)
        parts.ended(taken[-1:])
        if taken[-1].shards is not None:
            parts.wrote(taken[-1], UnitDone(shards=Shards(count=4, missing=() if taken[-1].shards != BEGIN else (3,))))
    assert [other.shards for other in taken] == [(0, 2), (2, 4), BEGIN, (3, 4), BEGIN, (3, 4), None]
    assert taken[-1].item == part.item


@pytest.mark.slow
def test_a_long_video_shared_by_ranges_equals_that_of_one_process(project: Project, monkeypatch) -> None:
    """A worker is killed in its second shard: that one is done again, and no other."""
    for digest, num_frames in (("a", 5), ("long", 36)):
        add(project, digest, num_frames)
    project.embed(key="whole", **SETTINGS)
    written, write = [], EmbeddingWriter.write_shard

    def write_shard(self, digest, index, **values):
        if self.path.name.startswith("emb"):
            written.append((digest, index))
            if written.count(("long", 1)) == 1 and written[-1] == ("long", 1):
                raise KeyboardInterrupt
        write(self, digest, index, **values)

    monkeypatch.setattr(EmbeddingWriter, "write_shard", write_shard)
    pool = PoolHere()
    rows, reporter = shared(project, pool)
    for digest in ("a", "long"):
        assert files(project, digest) == files(project, digest, key="whole")
    assert {digest: (row.status, row.rows) for digest, row in rows.items()} == {
        "a": ("ok", 5), "long": ("ok", 36)
    }  # fmt: skip
    assert rows["long"].seconds > 0
    of_long = [index for digest, index in written if digest == "long"]
    assert sorted(of_long) == [0, 1, 1, 2, 3, 4]
    assert of_long != sorted(of_long)  # the ranges came in another order
    ranges = [tuple(wanted) for digest, wanted in pool.units if digest == "long"]
    assert ranges[0] == BEGIN
    assert sorted(ranges[1:]) == [(0, 2), (0, 2), (2, 4), (4, 5)]
    assert len(reporter.rows) == 2
    assert not list(project.store.claims("emb").iterdir())


@pytest.mark.slow
def test_a_shared_video_goes_on_where_one_process_was_killed_and_the_other_way_round(
    project: Project, monkeypatch
) -> None:
    monkeypatch.setattr(videos, "CHUNK_BYTES", 4 * 32 * 32 * 3)
    add(project, "long", 60)
    project.embed(key="whole", **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        project.embed(reporter=Notes(stop_after=30), **SETTINGS)
    pool = PoolHere()
    shared(project, pool)
    begun = next(wanted for _, wanted in pool.units[1:])
    assert begun[0] > 0
    assert files(project, "long") == files(project, "long", key="whole")
    work = project.work(key="back", **SETTINGS)
    do_shards(work, str(STAGES["embed"].share), BEGIN, what="", reporter=Notes())
    for wanted in ((0, 2), (6, 8)):
        assert do_shards(work, str(STAGES["embed"].share), wanted, what="", reporter=Notes()) is not None
    again = Notes()
    project.embed(key="back", reporter=again, **SETTINGS)
    assert again.frames == 44
    assert files(project, "long", key="back") == files(project, "long", key="whole")


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "is_shared"), [("lossless", True), ("jpeg", False)])
def test_decoding_is_shared_alike_where_frames_are_lossless(tmp_path: Path, codec: str, is_shared: bool) -> None:
    """A shard is 32 MB, 64 frames of 400 x 416."""
    path = tmp_path / "long.mp4"
    write_video(path, num_frames=150, size=(400, 416))
    item = VideoItem("long", str(path), "long", 15.0, 150)
    keys = ("whole", "shared")
    works = [
        Work(
            node="frames", stage="decode", key=key, config={"workers": 1, "codec": codec}, spec={}, inputs={},
            store=str(tmp_path / "store"), items=(item,),
        )
        for key in keys
    ]  # fmt: skip
    pool = PoolHere()
    load(STAGES["decode"].work)(works[0], Notes())
    Spreader(works[1], pool, Notes(), SPLIT).run()
    whole, shared = (Store.at(tmp_path / "store").frames(key) / "long" for key in keys)
    found, expected = (
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (shared, whole)
    )
    assert found == expected
    ranges = [wanted and tuple(wanted) for _, wanted in pool.units]
    assert ranges == ([BEGIN, (0, 1), (1, 2), (2, 3)] if is_shared else [BEGIN, None])
    rows = [ItemLedger(Store.at(tmp_path / "store").node(key)).load()["long"] for key in keys]
    assert rows[0] == replace(rows[1], seconds=rows[0].seconds)


@pytest.mark.slow
def test_a_video_that_is_cut_off_is_done_whole_with_what_there_is_of_it(project: Project) -> None:
    item = add(project, "long", 60)
    content = Path(item.path).read_bytes()
    add(project, "b", 9)
    import av

    with av.open(item.path) as container:
        last = [packet.pos for packet in container.demux(video=0) if packet.pos is not None][45]
    Path(item.path).write_bytes(content[:last] + bytes(len(content) - last))  # the index is there, frames are not
    project.embed(key="whole", **SETTINGS)
    whole = ItemLedger(project.store.node("whole")).load()
    assert whole["long"].status in {"truncated", "failed"}
    rows, _ = shared(project, PoolHere())
    assert {digest: (row.status, row.cause, row.rows) for digest, row in rows.items()} == {
        digest: (row.status, row.cause, row.rows) for digest, row in whole.items()
    }
    assert files(project, "long") == files(project, "long", key="whole")


@pytest.mark.slow
def test_a_range_that_kills_three_workers_ends_its_video_alone(project: Project, monkeypatch) -> None:
    for digest, num_frames in (("long", 60), ("other", 40), ("b", 9)):
        add(project, digest, num_frames)
    write = EmbeddingWriter.write_shard

    def write_shard(self, digest, index, **values):
        if (digest, index) == ("long", 5):
            raise KeyboardInterrupt
        write(self, digest, index, **values)

    monkeypatch.setattr(EmbeddingWriter, "write_shard", write_shard)
    pool = PoolHere()
    rows, _ = shared(project, pool)
    assert {digest: (row.status, row.cause) for digest, row in rows.items()} == {
        "long": ("crashed", "killed_worker"), "other": ("ok", ""), "b": ("ok", "")
    }  # fmt: skip
    assert rows["long"].attempts == DEATHS
    assert [tuple(wanted or ()) for _, wanted in pool.units].count((4, 6)) == DEATHS


@pytest.mark.slow
def test_a_shard_has_one_writer_and_a_whole_video_waits_for_the_writers_of_its_shards(project: Project) -> None:
    add(project, "long", 30)
    work = project.work(**SETTINGS)
    share, claims = str(STAGES["embed"].share), project.store.claims("emb")
    assert do_shards(work, share, BEGIN, what="", reporter=Notes()) == Shards(count=4, missing=(0, 1, 2, 3))
    done: list[str] = []
    waiting = [
        threading.Thread(target=lambda: done.append(str(do_shards(work, share, (0, 2), what="", reporter=Notes())))),
        threading.Thread(
            target=lambda: done.append(str(do_videos(work, STAGES["embed"].work, what="", reporter=Notes())))
        ),
    ]
    with exclusive(claims / "long.1", report=lambda _: None, is_kept=False):
        waiting[0].start()
        waiting[0].join(1.0)
        assert not (partial_group(project.store.embeddings("emb"), "long") / "pooled/c/0").exists()
    waiting[0].join()
    assert done == ["Shards(count=4, missing=(2, 3))"]
    with exclusive(claims / "long.3", report=lambda _: None, is_kept=False):
        waiting[1].start()
        waiting[1].join(0.5)
        assert len(done) == 1
    waiting[1].join()
    assert ItemLedger(project.store.node("emb")).load()["long"].status == "ok"
    assert not list(claims.iterdir())


def test_a_unit_told_of_a_video_that_was_done_meanwhile_reports_its_row(project: Project) -> None:
    from reelwright.stages.base.unit import Unit

    add(project, "long", 30)
    project.embed(**SETTINGS)
    ItemLedger(project.store.node("emb")).commit(ItemRow(digest="long", status="ok", rows=30))
    unit = Unit.of(project.work(**SETTINGS), name="u", shards=(0, 2))
    assert Unit.from_plain(unit.plain()) == unit
    done = UnitDone.from_plain(do_unit(unit.plain()))
    assert [row.rows for row in done.rows] == [30]
    assert done.shards is None
