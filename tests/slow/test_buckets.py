"""Stores, videos and manifests in a bucket, against servers that speak S3 and GCS, as several machines would use them.

A machine is a folder of local copies (REELWRIGHT_CACHE): what is not in the bucket is not known to another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests import forks
from tests.slow.buckets import (
    BUCKET,
    LIMIT_SECONDS,
    Bucket,
    Machine,
    Server,
    bucket_of,
    bucket_outcome,
    environment,
    local_outcome,
    serving,
)
from tests.slow.ports import free_ports
from tests.slow.test_dask import MADE, dask_process, ending
from tests.slow.test_kills import write_project
from tests.small_project import SPLITS

CARL = """
  carl:
    uses: train
    embeddings: [embed]
    model: {name: carl, layers: 1, width: 16, heads: 2, hidden: 16, mlp_width: 16, embed_dim: 6}
    objective: {name: scl}
    views: {length: 8}
    epochs: 1
    batch_size: 2
    val_splits: []
    device: cpu
  aligned: {uses: embed, embeddings: [embed], run: carl, device: cpu}
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(700)]


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(getattr(request, "param", "s3")) as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pipeline, done on a store in a folder."""
    folder = write_project(tmp_path_factory.mktemp("local"), videos=None)
    done = forks.run("run", cwd=folder, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def bucket(server: Server, local: Path, tmp_path: Path) -> Bucket:
    return bucket_of(server, local, tmp_path)


@pytest.mark.parametrize("server", ["s3", "gs"], indirect=True)
def test_a_run_in_a_bucket_gives_keys_bytes_and_predictions_of_a_run_in_a_folder(local: Path, bucket: Bucket) -> None:
    one, two = bucket.machine("one"), bucket.machine("two")
    one.done("run")
    wanted = local_outcome(local)
    assert len(wanted) > 50
    assert bucket_outcome(bucket) == wanted
    names = bucket.names()
    assert not [name for name in names if ".tmp-" in name or ".partial-" in name or name.startswith("locks/uses")]

    # Another machine knows all of it, with neither rows nor videos brought there.
    assert "nothing to do: all 4 nodes are up to date" in two.done("run")
    brought = [path for path in two.cache.rglob("*") if path.is_file()]
    assert not [path for path in brought if path.suffix in {".mp4", ".safetensors"} or "embeddings" in path.parts]
    assert bucket_outcome(bucket) == wanted

    # One more video of an old name: read once by content, by whoever comes first.
    bucket.files.pipe_file(f"{bucket.videos}/unused.mp4", b"")
    started = time.monotonic()
    assert "stale" not in two.done("status")
    assert time.monotonic() - started < 20  # of which Python takes one

    # Any reader of Zarr opens it.
    (group,) = {name.split("/")[1] for name in names if name.startswith("embeddings/")}
    opened = zarr.open_group(f"{bucket.store}/embeddings/{group}", mode="r", storage_options=bucket.server.options)
    item = next(name.split("/")[2] for name in names if name.startswith(f"embeddings/{group}/") and name.count("/") > 2)
    assert opened[f"{item}/pooled"].shape[0] == 24
    assert np.isfinite(opened[f"{item}/pooled"][:]).all()


def test_a_pattern_in_a_bucket_names_the_videos_that_it_names_in_a_folder(
    local: Path, bucket: Bucket, tmp_path: Path
) -> None:
    stages = (local / "reelwright.yaml").read_text().partition("stages:")[2].partition("  train:")[0]
    here, videos = tmp_path / "here", f"{bucket.store}-videos"
    for name, split in SPLITS.items():
        (here / split).mkdir(parents=True, exist_ok=True)
        shutil.copy(local / f"{name}.mp4", here / split)
        bucket.files.put_file(str(local / f"{name}.mp4"), f"{videos}/{split}/{name}.mp4")
    (here / "reelwright.yaml").write_text(f"videos: {{glob: '**/*.mp4'}}\nstages:{stages}")
    text = f"store: {bucket.store}\nvideos: {{glob: '{videos}/**/*.mp4'}}\nstages:{stages}"
    (bucket.project / "reelwright.yaml").write_text(text)
    machine = Machine(bucket.server, tmp_path / "folder", here)
    assert "frames: done" in machine.done("run")
    one, two = bucket.machine("one"), bucket.machine("two")
    one.done("run")
    assert bucket_outcome(bucket) == local_outcome(here)
    assert "nothing to do: all 2 nodes are up to date" in two.done("run")
    assert not list(two.cache.rglob("*.mp4"))

    # Only what is another one now is fetched.
    bucket.files.put_file(str(local / "b.mp4"), f"{videos}/test/more.mp4")
    two.done("run")
    assert [path.name for path in two.cache.rglob("*.mp4")] == ["more.mp4"]

    for pattern, message in ((f"{videos}/*.avi", "no object fits"), ("s3://nobody-made-this/*.mp4", "no such bucket")):
        refused = two.run("run", "-S", f"videos.glob={pattern}")
        assert refused.returncode == 2
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr


def test_what_another_machine_needs_is_brought_there_and_nothing_else(bucket: Bucket) -> None:
    one, two = bucket.machine("one"), bucket.machine("two")
    one.done("run", "--until", "train")
    before = bucket_outcome(bucket)
    assert "train: done" not in two.done("run")  # predicts over rows and with weights that it never made
    after = bucket_outcome(bucket)
    assert {name: after[name] for name in before} == before
    assert any(name.startswith("predictions/") for name in after)
    assert not list(two.cache.rglob("frames/*/*/frame"))  # predict reads embeddings
    assert not list(two.cache.rglob("*.mp4"))

    # What is checked is the bucket, not what is here.
    assert f"nothing is wrong in {bucket.store}" in two.done("verify")
    assert f"nothing is wrong in {bucket.store}: the whole store" in two.done("verify", "--all")
    shard = next(name for name in bucket.names() if name.endswith("/pooled/c/1/0"))
    content = bytearray(bucket.content(shard))
    content[3] ^= 1
    bucket.files.pipe_file(f"{bucket.store}/{shard}", bytes(content))
    found = two.run("verify")
    assert found.returncode == 1
    assert f"altered: {shard}" in found.stdout
    assert not list(two.cache.glob("verify-*"))


def test_rows_of_a_run_are_made_by_a_machine_that_made_neither_the_rows_nor_the_run(bucket: Bucket) -> None:
    path = bucket.project / "reelwright.yaml"
    path.write_text(path.read_text() + CARL)
    one, two = bucket.machine("one"), bucket.machine("two")
    one.done("run", "--until", "carl")
    two.done("run", "--until", "aligned")
    assert not list(two.cache.rglob("frames/*/*/frame"))
    names = {tuple(name.split("/")[1:3]) for name in bucket.names() if name.startswith("embeddings/")}
    rows = []
    for key in {key for key, _ in names}:
        group = zarr.open_group(f"{bucket.store}/embeddings/{key}", mode="r", storage_options=bucket.server.options)
        if group.attrs["encoder"] == "carl of a run":
            rows += [group[f"{item}/pooled"][:] for other, item in names if other == key and item != "zarr.json"]
    assert [values.shape for values in rows] == [(24, 6)] * len(SPLITS)
    assert all(np.allclose(np.linalg.norm(values.astype(float), axis=1), 1, atol=1e-2) for values in rows)
    assert "nothing to do" in one.done("run", "--until", "aligned")


def test_a_machine_that_is_killed_leaves_nothing_half_and_another_one_finishes(local: Path, bucket: Bucket) -> None:
    one, two = bucket.machine("one"), bucket.machine("two")
    process = one.start("run")
    until = time.monotonic() + LIMIT_SECONDS
    while not any(name.startswith("embeddings/") and name.count("/") > 2 for name in bucket.names()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    names = bucket.names()
    complete = [
        name for name in names if name.startswith("embeddings/") and name.count("/") == 3 and name.endswith(".json")
    ]
    for marker in complete:
        folder = marker.rpartition("/")[0]
        assert names >= {f"{folder}/pooled/c/{number}/0" for number in range(3)}
    assert not [name for name in names if name.startswith("runs/")]
    two.done("run")  # same host, so that the lock of the dead is passed over at once
    assert bucket_outcome(bucket) == local_outcome(local)


def test_what_is_broken_in_the_bucket_is_made_again_and_no_more(local: Path, bucket: Bucket) -> None:
    one, two = bucket.machine("one"), bucket.machine("two")
    one.done("run")
    wanted, names = bucket_outcome(bucket), sorted(bucket.names())
    shard = next(name for name in names if name.startswith("embeddings/") and name.endswith("/pooled/c/1/0"))
    lost = next(name for name in names if name.startswith("frames/") and name.endswith("/0") and "/c/" in name)
    scored = {name.split("/")[1] for name in names if name.startswith("predictions/")}
    ledger = next(name for name in names if name.endswith("/items.parquet") and name.split("/")[1] in scored)
    damaged = (
        shard,
        ledger,
        next(name for name in names if name.endswith("/model.safetensors")),
    )
    damaged += tuple(name for name in names if name.startswith("nodes/") and name.endswith("record.json"))[:1]
    for name in (*damaged, "videos.json", "urls.json"):
        content = bytearray(bucket.content(name))
        content[len(content) // 2] ^= 1
        bucket.files.pipe_file(f"{bucket.store}/{name}", bytes(content))
    bucket.files.rm_file(f"{bucket.store}/{lost}")
    times = {name: bucket.files.info(f"{bucket.store}/{name}")["LastModified"] for name in wanted if name != lost}

    # The first machine has all of it unharmed, which is of no use to others.
    message = one.done("verify", "--repair")
    assert "nothing is wrong any more" in message
    for mended in (
        "record.json: copied from the last record of its pipeline file",
        "5 videos listed again from their data",
        "model.safetensors removed",
        "videos.json: removed",
    ):
        assert mended in message, message
    assert bucket_outcome(bucket) == wanted
    again = {name.split("/")[2] for name in (shard, lost)}
    after = {name: bucket.files.info(f"{bucket.store}/{name}")["LastModified"] for name in times}
    kept = [name for name in times if name.startswith(("embeddings/", "frames/")) and again.isdisjoint(name.split("/"))]
    assert len(kept) > 10
    assert {name: after[name] for name in kept} == {name: times[name] for name in kept}
    assert all(after[name] > times[name] for name in (shard, damaged[2]))
    assert not list(one.cache.glob("verify-*"))
    assert "nothing to do: all 4 nodes are up to date" in two.done("run")
    assert "nothing is wrong" in two.done("verify")


@pytest.mark.parametrize("server", ["s3", "gs"], indirect=True)
def test_gc_takes_what_nothing_reaches_out_of_the_bucket_and_leaves_what_is_used(local: Path, bucket: Bucket) -> None:
    one, two, text = bucket.machine("one"), bucket.machine("two"), (bucket.project / "reelwright.yaml").read_text()
    one.done("run")
    before, wanted = bucket.names(), bucket_outcome(bucket)
    (bucket.project / "reelwright.yaml").write_text(text.replace("short_side: 48", "short_side: 40"))

    # The other setting's are made while gc runs on another machine, which does not know of them and gives up others.
    process = one.start("run")
    until = time.monotonic() + LIMIT_SECONDS
    while not any(name.startswith("frames/") for name in bucket.names() - before):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    other = bucket.project / "other.yaml"
    other.write_text(text)
    in_use = bucket.names() - before
    assert "nothing to remove" in two.done("gc", "-c", str(other), "--now", "--only-these", "--delete")
    out, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 0, out + errors
    assert not {name for name in in_use if not name.startswith("locks/")} - bucket.names()

    # Then the first ones are reached by nothing; by the service's clock they are new.
    old = {name.split("/")[1] for name in wanted}
    kept = json.loads(two.done("gc", "--json"))
    assert kept["going"] == []
    assert {entry["kind"] for entry in kept["kept"]} >= {"frames", "embeddings", "runs", "nodes"}
    found = json.loads(two.done("gc", "--json", "--now"))
    objects = {name: info["size"] for name, info in bucket.files.find(bucket.store, detail=True).items()}
    assert found["store_bytes"] == sum(objects.values())
    for entry in found["going"]:
        below = [
            size
            for name, size in objects.items()
            if f"{bucket.server.scheme}://{name}/".startswith(f"{entry['path']}/")
        ]
        assert entry["bytes"] == sum(below) > 0
    brought = [path for path in two.cache.rglob("*") if path.is_file()]
    assert not [path for path in brought if path.suffix in {".mp4", ".safetensors"} or "embeddings" in path.parts]

    # A gc that is killed leaves nothing that looks whole, and the next one ends its work.
    names, process = bucket.names(), two.start("gc", "--now", "--delete")
    while bucket.names() >= names and process.poll() is None:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    left = bucket.names()
    for marker in (name for name in left if name.startswith("embeddings/") and name.count("/") == 3):
        folder = marker.rpartition("/")[0]
        assert not marker.endswith("/zarr.json") or left >= {f"{folder}/pooled/c/{number}/0" for number in range(3)}
    two.done("gc", "--now", "--delete")
    assert not {name for name in wanted if name in bucket.names()}

    # The first machine has copies of what is gone, and all that it needs.
    message = one.done("gc", "--now", "--delete")
    assert "nothing to remove" in message
    assert "copies on this machine of what is not in the bucket any more" in message
    assert not [path for path in one.cache.rglob("*") if path.is_file() and old.intersection(path.parts)]
    assert "nothing to do: all 4 nodes are up to date" in one.done("run")


def test_training_that_is_killed_goes_on_elsewhere_from_its_checkpoint(local: Path, bucket: Bucket) -> None:
    one, two = bucket.machine("one"), bucket.machine("two")
    one.done("run", "--until", "embed")
    process = one.start("run")
    until = time.monotonic() + LIMIT_SECONDS
    while not any(name.endswith("/checkpoints/last/state.pt") for name in bucket.names()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not [name for name in bucket.names() if name.endswith("model.safetensors")]
    assert "goes on after update" in two.done("run")
    assert bucket_outcome(bucket) == local_outcome(local)
    run = next(name for name in bucket.names() if name.endswith("metrics.jsonl"))
    assert bucket.content(run).count(b"\n") == 6  # epochs, those of the first machine too


def test_two_machines_at_once_do_everything_once(local: Path, bucket: Bucket) -> None:
    one, two = bucket.machine("one"), bucket.machine("two")
    processes = [one.start("run"), two.start("run")]
    message = [process.communicate(timeout=LIMIT_SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], message
    assert bucket_outcome(bucket) == local_outcome(local)
    for node in ("frames", "embed", "train", "predict"):
        done = [sum(line.startswith(f"{node}: done") for line in errors.splitlines()) for _, errors in message]
        assert sum(done) == 1, (node, message)


@contextlib.contextmanager
def dask_workers(bucket: Bucket) -> Iterator[str]:
    """A scheduler, whose address is given, and the workers "one" and "two", each a machine of its own."""
    (port,) = free_ports(1)
    address = f"tcp://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        options = ("--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        stack.enter_context(ending(dask_process("distributed.cli.dask_scheduler", *options)))
        for name in ("one", "two"):
            variables = environment(bucket.server, bucket.machine(name).cache)
            options = (address, "--nthreads", "1", "--no-dashboard", "--no-nanny")
            code = "from distributed.cli.dask_worker import main; main()"
            log = bucket.project / f"worker-{name}.log"
            stack.enter_context(ending(forks.start(*options, cwd=bucket.project, env=variables, code=code, log=log)))
        yield address


def test_dask_workers_that_share_no_folder_do_the_work_in_the_bucket(local: Path, bucket: Bucket) -> None:
    driver = bucket.machine("driver")
    with dask_workers(bucket) as address:
        driver.done("run", "--scheduler", address)
    assert bucket_outcome(bucket) == local_outcome(local)
    assert not list(driver.cache.glob("stores/*/frames/*/*/zarr.json"))  # it shares out the work, and trains over rows
    worked = [
        name for name in ("one", "two") if list(bucket.machines.glob(f"{name}/stores/*/embeddings/*/*/zarr.json"))
    ]
    assert worked
    assert not [name for name in bucket.names() if name.startswith(("claims/", "logs/")) or "/items/" in name]


def test_synthetic_videos_are_made_by_workers_that_share_no_folder(bucket: Bucket, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "reelwright.yaml").write_text(MADE)
    machine = Machine(bucket.server, tmp_path / "folder", here)
    machine.done("run")
    (bucket.project / "reelwright.yaml").write_text(f"store: {bucket.store}\n{MADE}")
    driver = bucket.machine("driver")
    with dask_workers(bucket) as address:
        driver.done("run", "--scheduler", address)
    sets = here / ".reelwright" / "store" / "synthetic"
    wanted = {
        f"synthetic/{path.relative_to(sets).as_posix()}": path.read_bytes()
        for path in sets.rglob("*")
        if path.suffix in {".mp4", ".npz"}
    }
    assert len(wanted) == 12 + 2
    names = {name for name in bucket.names() if name.startswith("synthetic/")}
    assert {name: bucket.content(name) for name in names if name.endswith((".mp4", ".npz"))} == wanted
    assert bucket_outcome(bucket) == local_outcome(here)
    assert "nothing to do: all 1 nodes are up to date" in bucket.machine("three").done("run")
    assert not [path for path in bucket.machines.rglob("*.mp4") if "synthetic" in path.parts]  # sent, and not kept


def test_a_server_that_is_gone_ends_the_run_with_a_clear_error(local: Path, tmp_path: Path) -> None:
    with serving() as own:
        made = Bucket(own, f"s3://{BUCKET}/store", tmp_path / "project", tmp_path / "machines")
        write_project_in(made, local)
        process = made.machine("one").start("run")
        until = time.monotonic() + LIMIT_SECONDS
        while not any(name.startswith("frames/") for name in made.names()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)
        own.stop()
        out, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 1, errors
    assert "cannot be reached or failed" in out + errors
    assert "Traceback" not in errors


def test_a_bucket_that_came_back_empty_is_filled_again(local: Path, tmp_path: Path) -> None:
    """What a machine still has of it is no reason to believe that it is there."""
    with serving() as own:
        made = Bucket(own, f"s3://{BUCKET}/store", tmp_path / "project", tmp_path / "machines")
        write_project_in(made, local)
        one = made.machine("one")
        one.done("run")
        own.stop()
        silent = one.run("run")
        assert silent.returncode == 1, silent.stdout + silent.stderr
        assert "cannot be reached or failed" in silent.stderr
    with serving(port=own.port) as own:
        made.server.process = own.process
        assert "frames: done" in one.done("run")
        assert bucket_outcome(made) == local_outcome(local)
        assert "nothing is wrong" in one.done("verify", "--all")
        two = made.machine("two")
        assert "nothing to do: all 4 nodes are up to date" in two.done("run")
        assert "nothing is wrong" in two.done("verify", "--all")

        # And one of which a part is gone: the marks of all items, and the attributes of a group.
        gone = [name for name in made.names() if name.endswith(".zarr/zarr.json") or "/items" in name]
        gone += [name for name in made.names() if name.startswith("embeddings/") and name.count("/") == 3]
        made.files.rm([f"{made.store}/{name}" for name in gone])
        one.done("run", "--force", "frames", "--force", "embed")
        assert bucket_outcome(made) == local_outcome(local)
        assert "nothing is wrong" in two.done("verify", "--all")


def test_runs_and_gc_of_several_machines_at_once_lose_nothing(local: Path, bucket: Bucket) -> None:
    """Two pipelines that share frames, one of them on two machines, and a gc that gives both up as soon as it may."""
    text = (bucket.project / "reelwright.yaml").read_text()
    other, bare = bucket.project / "other.yaml", bucket.project / "bare.yaml"
    other.write_text(text.replace("epochs: 6", "epochs: 3"))
    bare.write_text(text.partition("  embed:")[0].replace("fps: 10", "fps: 3"))
    machines = {name: bucket.machine(name) for name in ("one", "two", "three", "four")}
    running = [
        machines["one"].start("run"),
        machines["two"].start("run"),
        machines["three"].start("run", "-c", str(other)),
    ]
    sweeps = 0
    while any(process.poll() is None for process in running):
        swept = machines["four"].run("gc", "-c", str(bare), "--now", "--only-these", "--delete", "--json")
        assert swept.returncode == 0, swept.stderr
        sweeps += 1
    message = [process.communicate(timeout=LIMIT_SECONDS) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], message
    assert sweeps > 1
    for name, file in (("one", bucket.project / "reelwright.yaml"), ("two", other)):
        machines[name].done("run", "-c", str(file))
        assert "nothing is wrong" in machines["four"].done("verify", "-c", str(file), "--all")
    wanted = local_outcome(local)
    assert {name: content for name, content in bucket_outcome(bucket).items() if name in wanted} == wanted
    assert not [name for name in bucket.names() if name.startswith("locks/uses")]


def write_project_in(bucket: Bucket, local: Path) -> None:
    """Videos in a folder, the store in the bucket."""
    bucket.project.mkdir()
    write_project(bucket.project, videos=local)
    text = (bucket.project / "reelwright.yaml").read_text()
    (bucket.project / "reelwright.yaml").write_text(f"store: {bucket.store}\n{text}")


@pytest.mark.parametrize(
    ("store", "variables", "message"),
    [
        ("s3://nobody-made-this/store", {}, "no such bucket"),
        (f"s3://{BUCKET}/x", {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no credentials"),
        (f"s4://{BUCKET}/x", {}, "s4"),
    ],
    ids=["bucket", "credentials", "scheme"],
)
def test_what_is_wrong_is_told_before_any_work(
    bucket: Bucket, store: str, variables: dict[str, str | None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(bucket.machines))  # no profile of whoever runs this
    machine = bucket.machine("one")
    for name, value in variables.items():
        assert value is None
        monkeypatch.delenv(name, raising=False)
    given = {name: value for name, value in environment(bucket.server, machine.cache).items() if name not in variables}
    done = forks.run("run", "-S", f"store={store}", cwd=bucket.project, env=given, timeout=LIMIT_SECONDS)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
