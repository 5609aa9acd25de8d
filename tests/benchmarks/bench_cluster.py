"""Executors: what an item costs beyond its work, how embed scales, and what a million videos cost the driver.

Per item: 10,000 items of a stage that does nothing but leave its row, through each executor; workers are there already.
Scaling: embed on one and on two warm dask workers, beside one and two bare processes that call the stage's function on
their share of the videos. Sharing: one long video, whole on one worker and by ranges of shards on two, beside two bare
processes that do half of its rows each. Driver: a pool that answers at once (and says that a video took half a second),
so that what is left is the driver's own: units, messages as JSON, rows, the table of items; in a process of its own,
for its memory.

python -m tests.benchmarks.bench_cluster driver COUNT prints the last one for a number of videos, as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.executors.dask_pool import DaskPool
from reelwright.pipeline.executors.executors import LocalExecutor
from reelwright.pipeline.executors.progress_file import LiveReporter
from reelwright.pipeline.executors.unit_scheduler import Ended, Spreader
from reelwright.stages.base.registry import STAGES, load
from reelwright.stages.base.unit import UnitDone, keep_models
from reelwright.stages.base.work import SilentReporter, VideoItem, Work
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.store import Store
from tests.benchmarks.chain import fresh_work, make_project
from tests.benchmarks.harness import Figures, Options, Row, Turns
from tests.benchmarks.videos import FPS, NUM_FRAMES, bench_videos, long_video
from tests.pipeline.cluster.stand_in import STAGE, in_units, make_work

NUM_ITEMS = 10_000
AIMS = {"local": 2.0, "dask": 10.0}  # ms an item
SCALING_AIM = 0.9
MILLION = 1_000_000
_SECONDS_A_VIDEO = 0.5
DECODE = "{uses: decode, materialize: false, workers: 1"
EMBED = """{uses: embed, encoder: timm/mobilenetv2_100, weights: none, batch_size: 16,
          channels_last: true, preprocess: {size: [112, 112], resize: 112}"""
STAGES_OF_SCALING = f"""
  streamed: {DECODE}, stop: LAST}}
  embed: {EMBED}, frames: streamed}}
"""
SHARD_ROWS, SHARDS_A_RANGE = 60, 4
STAGES_OF_SHARING = f"""
  whole: {DECODE}}}
  first: {DECODE}, stop: HALF, backend: pyav}}
  second: {DECODE}, start: HALF, backend: pyav}}
  embed: {EMBED}, shard_rows: {SHARD_ROWS}, frames: whole}}
  embed_first: {EMBED}, shard_rows: {SHARD_ROWS}, frames: first}}
  embed_second: {EMBED}, shard_rows: {SHARD_ROWS}, frames: second}}
"""


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    STAGES["stand_in"] = STAGE
    return [*_per_item(options), *_scaling(options), *_sharing(options), *_driver(options)]


def _items(count: int) -> list[VideoItem]:
    return [VideoItem(f"{number:064x}", "ok", f"v{number}", 10.0) for number in range(count)]


def _per_item(options: Options) -> list[Row]:
    items = _items(200 if options.quick else NUM_ITEMS)
    settings = ClusterSettings(executor="dask", workers=2)
    pool = DaskPool(settings, logs=options.folder, report=lambda _: None)
    try:
        _spread(pool, _items(20), options.folder)  # workers start
        turns = Turns(options.repeats)
        turns.add("local", partial(_local, items, options.folder))
        turns.add("dask", lambda: _spread(pool, items, options.folder))
        found = turns.measure(warm_up=False)
    finally:
        pool.close()
    return [
        Row(
            what=f"an item of empty work, {name}, of {len(items):,}",
            unit="ms",
            figures=Figures(tuple(1000 * seconds / len(items) for seconds in figures.values), figures.cores),
            note=f"aim under {AIMS[name]:g} ms",
        )
        for name, figures in found.items()
    ]


def _local(items: Sequence[VideoItem], folder: Path) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as store:
        work = make_work(Path(store), items, notes=False)
        reporter = LiveReporter(SilentReporter(), Path(store) / "live.json", node="n", items=items)
        started = time.perf_counter()
        LocalExecutor().items(work, reporter)
        ItemLedger(Store.at(store).node(work.key)).compact()
        return time.perf_counter() - started


def _spread(pool: DaskPool, items: Sequence[VideoItem], folder: Path) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as store:
        started = time.perf_counter()
        Spreader(
            make_work(Path(store), items, notes=False),
            pool,
            SilentReporter(),
            in_units(20.0),
        ).run()
        return time.perf_counter() - started


def _scaling(options: Options) -> list[Row]:
    paths = bench_videos()[: options.num_videos]
    stages = STAGES_OF_SCALING.replace("LAST", "0.5" if options.quick else "6")
    project = make_project(options.folder / "scaling", paths, stages)
    project.run(until=["streamed"])
    turns = Turns(options.repeats)
    pools = []
    try:
        for count in (1, 2):
            pool = _dask(count, options)
            pools.append(pool)
            bare = _processes(count)
            turns.add(f"{count} bare", partial(_rate, project, partial(_bare, bare, count)))
            turns.add(f"{count} dask", partial(_rate, project, partial(_on_workers, pool)))
        found = turns.measure()
    finally:
        for pool in pools:
            pool.close()
    rows = []
    for kind in ("bare", "dask"):
        one, two = found[f"1 {kind}"], found[f"2 {kind}"]
        rows.append(Row(what=f"embed, 1 {kind}", unit="rows/s", figures=one))
        rows.append(Row(what=f"embed, 2 {kind}", unit="rows/s", figures=two, reference=f"1 {kind}", against=one))
    two_bare = found["2 bare"]
    rows[-1] = replace(
        rows[-1], note=f"of 2 bare: {_median(found['2 dask']) / _median(two_bare):.2f}, aim {SCALING_AIM}"
    )
    return rows


def _median(figures: Figures) -> float:
    return sorted(figures.values)[len(figures.values) // 2]


def _rate(project: Any, do: Callable[..., None], nodes: Sequence[str] = ("embed",)) -> float:
    works = [fresh_work(project, node) for node in nodes]
    started = time.perf_counter()
    do(*works)
    seconds = time.perf_counter() - started
    num_rows = 0
    for work in works:
        rows = ItemLedger(Store.at(work.store).node(work.key)).load().values()
        assert rows
        assert all(row.is_done for row in rows)
        num_rows += sum(row.rows for row in rows)
        shutil.rmtree(Store.at(work.store).embeddings(work.key))
    return num_rows / seconds


def _dask(count: int, options: Options) -> DaskPool:
    return DaskPool(ClusterSettings(executor="dask", workers=count), logs=options.folder, report=lambda _: None)


def _processes(count: int) -> Any:
    """Bare ones, with as many threads as a worker of one core has."""
    return multiprocessing.get_context("spawn").Pool(count, initializer=_use_threads)


def _use_threads() -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def _bare(pool: Any, count: int, work: Work) -> None:
    pool.map(_do_share, [replace(work, items=work.items[start::count], is_part=True) for start in range(count)])


def _do_share(work: Work) -> None:
    keep_models(2)
    load(STAGES[work.stage].work)(work, SilentReporter())


def _on_workers(pool: DaskPool, work: Work) -> None:
    Spreader(work, pool, SilentReporter(), in_units(2.0)).run()


def _sharing(options: Options) -> list[Row]:
    video = long_video(options.folder / "long.mp4", num_videos=options.num_videos)
    half = options.num_videos * NUM_FRAMES / FPS / 2
    project = make_project(options.folder / "sharing", [video], STAGES_OF_SHARING.replace("HALF", str(half)))
    project.run(until=["whole"])
    turns, bare, pools = Turns(options.repeats), _processes(2), [_dask(1, options), _dask(2, options)]
    try:
        turns.add("1 dask", partial(_rate, project, partial(_on_workers, pools[0])))
        turns.add("2 dask", partial(_rate, project, partial(_shared, pools[1])))
        turns.add("2 bare", partial(_rate, project, partial(_halves, bare), ("embed_first", "embed_second")))
        found = turns.measure()
    finally:
        for pool in pools:
            pool.close()
        bare.terminate()
    one, two, halves = found["1 dask"], found["2 dask"], found["2 bare"]
    note = f"of 2 bare: {_median(two) / _median(halves):.2f}, aim {SCALING_AIM}"
    what, unit = "embed a long video", "rows/s"
    return [
        Row(what=f"{what}, 1 dask", unit=unit, figures=one),
        Row(what=f"{what}, 2 bare, half each", unit=unit, figures=halves, reference="1 dask", against=one),
        Row(what=f"{what}, shared by 2 dask", unit=unit, figures=two, reference="1 dask", against=one, note=note),
    ]


def _shared(pool: DaskPool, work: Work) -> None:
    """Ranges of SHARDS_A_RANGE shards: of a real long video they would be longer, and cost less beside their work."""
    split = ClusterSettings(split_seconds=0.1, frames_per_second=1.0, unit_seconds=SHARDS_A_RANGE * SHARD_ROWS)
    spreader = Spreader(work, pool, SilentReporter(), split)
    spreader.run()
    assert spreader.num_units > 1


def _halves(pool: Any, *works: Work) -> None:
    pool.map(_do_share, works)


def _driver(options: Options) -> list[Row]:
    count = 2_000 if options.quick else MILLION
    command = [sys.executable, "-m", "tests.benchmarks.bench_cluster", "driver", str(count)]
    message = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    sent, peak = message["message_bytes"] / 1e6, message["peak_mb"]
    note = f"{message['units']:,} units, {sent:,.0f} MB of messages, at most {peak:,.0f} MB"
    seconds = Figures((message["seconds"],))
    listed = Figures((message["listing_seconds"],))
    return [
        Row(what=f"driver's own time for {count:,} videos", unit="s", figures=seconds, note=note),
        Row(what=f"reading what is done of {count:,} videos", unit="s", figures=listed),
    ]


@dataclass
class _Answering:
    """A pool whose workers have done everything at once."""

    message_bytes: int = 0
    _queue: deque[Ended] = field(default_factory=deque)

    def size(self) -> int:
        return 64

    def want(self, num_units: int) -> None:
        pass

    def submit(self, name: str, unit: dict[str, Any], *, needs_gpu: bool) -> None:
        text = json.dumps(unit)
        rows = tuple(ItemRow(digest=item[0], status="ok", rows=100, bytes=10**6) for item in unit["work"]["items"])
        answer = json.dumps(
            {**UnitDone(seconds=_SECONDS_A_VIDEO * len(rows)).plain(), "rows": [asdict(row) for row in rows]}
        )
        self.message_bytes += len(text) + len(answer)
        self._queue.append(Ended(name=name, done=json.loads(answer)))

    def ended(self, timeout_seconds: float) -> list[Ended]:
        found, self._queue = list(self._queue), deque()
        return found

    def cancel(self) -> None:
        pass


class _Forgetful(SilentReporter):
    """As the command's: shows rows, keeps none."""

    def item(self, row: ItemRow) -> None:
        pass


def measure_driver(count: int) -> dict[str, float]:
    """Seconds, bytes of messages and peak memory of sharing out ``count`` videos of a minute."""
    STAGES["stand_in"] = STAGE
    items = [VideoItem(f"{number:064x}", f"/videos/{number}.mp4", f"v{number}", 60.0) for number in range(count)]
    with tempfile.TemporaryDirectory() as store:
        pool = _Answering()
        started = time.perf_counter()
        spreader = Spreader(
            make_work(Path(store), items, notes=False),
            pool,
            _Forgetful(),
            in_units(20.0),
        )
        spreader.run()
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        assert len(ItemLedger(Store.at(store).node("0" * 32)).done()) == count
        listing = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": seconds,
        "units": spreader.num_units,
        "message_bytes": pool.message_bytes,
        "peak_mb": peak,
        "listing_seconds": listing,
    }


if __name__ == "__main__":
    assert sys.argv[1] == "driver", __doc__
    print(json.dumps(measure_driver(int(sys.argv[2]))))
