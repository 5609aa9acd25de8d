"""Is this machine, this store and this cluster fit for a pipeline? Every check tells what it saw and what to do."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.executors import jobs
from reelwright.stages.base.registry import load
from reelwright.storage.errors import ConfigError, StageError, StoreError
from reelwright.storage.files import remove, replacing
from reelwright.storage.store import Store

GOOD, NOTE, BAD = "ok", "note", "bad"
_LIBRARIES = ("torch", "torchvision", "timm", "av", "zarr", "pyarrow", "numcodecs", "sklearn")
_OPTIONAL = ("decord", "torchcodec", "distributed", "dask_jobqueue")
_SHOWN = ("reelwright", "torch", "torchvision", "timm", "zarr", "numpy", "av", "decord", "torchcodec", "distributed")
_SLOW_SECONDS = 0.05  # of one small file
_LITTLE_BYTES = 5_000_000_000
_REPLACED = 200
_SKEW_SECONDS = 30.0
_ELSEWHERE = "Not a place for a store: use another file system"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    what: str
    state: str  # GOOD, NOTE or BAD
    message: str
    advice: str = ""


def examine(file: PipelineFile, settings: ClusterSettings) -> Iterator[Check]:
    """All checks, as they are done."""
    yield _versions()
    yield from _libraries()
    yield _gpus(settings)
    yield _codecs()
    yield from examine_store(file.store)
    yield _weights(file)
    match settings.executor:
        case "local":
            yield Check("executor", GOOD, "local: processes on this machine")
        case "dask":
            yield _dask(settings)
        case "slurm":
            yield _slurm(settings)


def _versions() -> Check:
    found = []
    for name in _SHOWN:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    python = ".".join(str(part) for part in sys.version_info[:3])
    return Check("versions", GOOD, f"Python {python}, {', '.join(found)}")


def _libraries() -> Iterator[Check]:
    problems = load("reelwright.stages.base.health:libraries")((*_LIBRARIES, *_OPTIONAL))
    for name, why in problems.items():
        if name in _OPTIONAL:
            yield Check("libraries", NOTE, f"{name} does not load: {why}", _OPTIONAL_ADVICE[name])
        else:
            yield Check("libraries", BAD, f"{name} does not load: {why}", "Install again: pip install reelwright")
    if not problems:
        yield Check("libraries", GOOD, "all load")


_OPTIONAL_ADVICE = {
    "decord": "PyAV decodes; nothing to do",
    "torchcodec": "Only for backend: torchcodec; it needs FFmpeg's libraries (apt-get install ffmpeg)",
    "distributed": "Needed for --executor dask and slurm: pip install distributed",
    "dask_jobqueue": "Needed for --executor slurm: pip install 'reelwright[slurm]'",
}


def _gpus(settings: ClusterSettings) -> Check:
    usable = load("reelwright.stages.base.health:gpus")()
    listed = load("reelwright.stages.base.health:driver_gpus")()
    if usable:
        return Check("GPU", GOOD, "; ".join(usable))
    if listed:
        advice = "Install a torch built for CUDA, or renew the driver"
        return Check("GPU", BAD, f"the driver lists {listed}, torch can use none", advice)
    where = " here; workers have some" if settings.gpus else ""
    return Check("GPU", GOOD if settings.gpus else NOTE, f"none{where or ': the CPU is used'}")


def _codecs() -> Check:
    missing = load("reelwright.stages.base.health:missing_decoders")()
    if missing:
        return Check("FFmpeg", NOTE, f"no decoder for {', '.join(missing)}", "Install another build of av")
    program = shutil.which("ffmpeg")
    return Check("FFmpeg", GOOD, f"decodes all usual codecs; program: {program or 'none, and none is needed'}")


def examine_store(store: Store) -> Iterator[Check]:
    """Checks of the folder of a store, in a folder of their own that is removed again, or of its bucket."""
    if store.url is not None:
        yield from _examine_bucket(store)
        return
    folder = store.root / f"doctor-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        advice = "Make it writable, or name another store (store:)"
        yield Check("store", BAD, f"{store.root} cannot be written: {error.strerror}", advice)
        return
    try:
        yield _room(store.root)
        for check in (_latency, _atomic, _exclusive, _clock):
            yield check(folder)
    except OSError as error:
        yield Check("store", BAD, f"{store.root}: {error}", "Look at the file system, or name another store (store:)")
    finally:
        remove(folder)


def _examine_bucket(store: Store) -> Iterator[Check]:
    """Whether it answers, how fast, and whether machines can keep out of each other's way there."""
    from reelwright.storage.bucket import remote

    url = f"{store.url}/doctor-{uuid.uuid4().hex[:8]}"
    try:
        remote.check_bucket(url)
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            remote.write_object(url, b"{}")
            remote.read_object(url)
            seconds.append(time.perf_counter() - started)
        remote.remove_objects([url])
        message = f"{store.url}: a small object is written and read in {1000 * statistics.median(seconds):.0f} ms"
        yield Check("store", GOOD, message)
        remote.check_creates_once(str(store.url))
        yield Check("locks", GOOD, "conditional writes hold")
    except (ConfigError, StoreError) as error:
        yield Check("store", BAD, str(error), "Correct it, or name another store (store:)")
        return
    yield _room(store.root)


def _room(root: Path) -> Check:
    usage = shutil.disk_usage(root)
    message = f"{root}: {usage.free / 1e9:,.0f} GB of {usage.total / 1e9:,.0f} GB free"
    return _noted("store", message, "`reelwright gc` lists what nothing needs", when=usage.free < _LITTLE_BYTES)


def _latency(folder: Path) -> Check:
    seconds = []
    for number in range(20):
        started = time.perf_counter()
        with replacing(folder / f"{number}.json") as temporary:
            temporary.write_text("{}")
        (folder / f"{number}.json").read_text()
        seconds.append(time.perf_counter() - started)
    middle = statistics.median(seconds)
    message = f"a small file is written, renamed and read in {1000 * middle:.1f} ms"
    advice = "Each video costs a few such files; a store on a quicker file system helps"
    return _noted("latency", message, advice, when=middle > _SLOW_SECONDS)


def _atomic(folder: Path) -> Check:
    """Replace a file again and again beside a reader, who must find an old or the new one at any time."""
    path, wrong = folder / "replaced", []
    path.write_text("0" * 4096)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                found = path.read_text()
            except FileNotFoundError:
                wrong.append("it was not there for a moment")
                return
            if len(set(found)) != 1 or len(found) != 4096:
                wrong.append("half of it was new")
                return

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(_REPLACED):
        with replacing(path) as temporary:
            temporary.write_text(str(number % 10) * 4096)
    stop.set()
    reader.join()
    if wrong:
        return Check("rename", BAD, f"a file was replaced, and {wrong[0]}", _ELSEWHERE)
    return Check("rename", GOOD, f"atomic in {_REPLACED} of {_REPLACED} tries")


def _exclusive(folder: Path) -> Check:
    """Locks need a creation that only one process wins."""
    path = folder / "lock"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return Check("locks", GOOD, "exclusive creation holds")
    return Check("locks", BAD, "a file could be created twice", _ELSEWHERE)


def _clock(folder: Path) -> Check:
    path = folder / "clock"
    path.touch()
    skew = path.stat().st_mtime - time.time()
    message = f"the file system's differs by {abs(skew):.1f} s"
    advice = "Nothing depends on it; `gc --older-than` counts by it. Let NTP set both"
    return _noted("clock", message, advice, when=abs(skew) > _SKEW_SECONDS)


def _weights(file: PipelineFile) -> Check:
    names = sorted({name for node in file.nodes.values() if (name := node.hub_weights()) is not None})
    missing = [name for name in names if not file.store.backend.has(file.store.weights(name))]
    there = f"{len(names)} of {len(names)} from hubs are in the store" if names else "none from hubs"
    message = f"not in the store yet: {', '.join(missing)}" if missing else there
    return _noted("weights", message, "`reelwright fetch` where there is network", when=bool(missing))


def _noted(what: str, message: str, advice: str, *, when: bool) -> Check:
    """A NOTE with advice, or GOOD and none."""
    return Check(what, NOTE, message, advice) if when else Check(what, GOOD, message)


def _dask(settings: ClusterSettings) -> Check:
    if settings.scheduler is None:
        return Check("executor", GOOD, f"dask: up to {settings.workers} workers on this machine")
    from distributed import Client

    try:
        with Client(settings.scheduler, timeout="5s", set_as_default=False) as client:
            count = len(client.ncores())
            client.get_versions(check=True)
    except (OSError, ValueError) as error:
        advice = "Start it (`dask scheduler`, `dask worker ADDRESS`), mend the address, or make the versions equal"
        return Check("executor", BAD, f"dask: {settings.scheduler}: {str(error).splitlines()[0]}", advice)
    return Check("executor", GOOD if count else NOTE, f"dask: {settings.scheduler} has {count} workers")


def _slurm(settings: ClusterSettings) -> Check:
    try:
        jobs.check_slurm()
        partitions = jobs.partitions()
    except (ConfigError, StageError) as error:
        return Check("executor", BAD, str(error).splitlines()[0], "Run on a login node; ask the cluster's people")
    if settings.partition is not None and settings.partition not in partitions:
        advice = "Set cluster.partition to one of them"
        return Check(
            "executor", BAD, f"slurm: no partition {settings.partition!r}, but {', '.join(partitions)}", advice
        )
    return Check("executor", GOOD, f"slurm answers; partitions: {', '.join(partitions)}")
