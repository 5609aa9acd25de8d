"""A server that speaks S3 on loopback (moto's), as a process of its own, and a small project whose all lies in it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec

BUCKET = "reels"
VIDEOS = f"s3://{BUCKET}/videos"
START_SECONDS = 60.0
LIMIT_SECONDS = 300
COMMAND = (sys.executable, "-c", "from reelwright.cli.main import main; main()")


@dataclass
class Server:
    """The server; `stop` is what a network that is gone looks like."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def variables(self) -> dict[str, str]:
        """What makes a process talk to it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "anybody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stop(self) -> None:
        """End it; what it held is gone with it."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server with an empty bucket."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = Server(port, process)
    try:
        _wait(f"http://127.0.0.1:{port}/moto-api/")
        request = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=20).close()
        yield server
    finally:
        server.stop()


def _wait(url: str) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.1)
        else:
            return


def environment(server: Server, cache: Path) -> dict[str, str]:
    """That of one machine: its own cache, and the server."""
    return {**os.environ, **server.variables, "REELWRIGHT_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


@dataclass
class Machine:
    """One machine: the pipeline file is the same on all."""

    server: Server
    cache: Path
    project: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command in a process group of its own."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.project,
            env=environment(self.server, self.cache),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command, waited for."""
        process = self.start(*arguments)
        out, errors = process.communicate(timeout=LIMIT_SECONDS)
        return subprocess.CompletedProcess(arguments, process.returncode, out, errors)

    def done(self, *arguments: str) -> str:
        """What a command prints that ends well."""
        ended = self.run(*arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr


@dataclass
class Bucket:
    """A bucket with videos, and a store in it of its own."""

    server: Server
    store: str
    project: Path
    machines: Path

    def machine(self, name: str) -> Machine:
        """A machine with an empty cache."""
        return Machine(self.server, self.machines / name, self.project)

    @property
    def files(self) -> fsspec.AbstractFileSystem:
        """Seen past our code."""
        options = {"endpoint_url": self.server.variables["AWS_ENDPOINT_URL"], "region_name": "us-east-1"}
        return fsspec.filesystem("s3", key="anybody", secret="nothing", client_kwargs=options, use_listings_cache=False)

    def names(self) -> set[str]:
        """All objects of the store."""
        return {name.removeprefix(f"{self.store[5:]}/") for name in self.files.find(self.store)}

    def content(self, name: str) -> bytes:
        """That of one object of the store."""
        return self.files.cat_file(f"{self.store}/{name}")


def bucket_of(server: Server, local: Path, folder: Path) -> Bucket:
    """The videos and tables of a project ``local`` in the bucket, and its pipeline over them with a store there."""
    store = f"s3://{BUCKET}/stores/{folder.name}"
    made = Bucket(server, store, folder / "project", folder / "machines")
    made.project.mkdir()
    for path in sorted(local.iterdir()):
        if path.suffix in {".mp4", ".csv"}:
            made.files.put_file(str(path), f"{VIDEOS}/{path.name}")
    text = (local / "reelwright.yaml").read_text()
    for before, after in (
        ("manifest: videos.csv", f"manifest: {VIDEOS}/videos.csv"),
        (f"root: {local}", f"root: {VIDEOS}"),
        ("segments.csv", f"{VIDEOS}/segments.csv"),
    ):
        assert before in text
        text = text.replace(before, after)
    (made.project / "reelwright.yaml").write_text(f"store: {store}\n{text}")
    return made


def outcome(names: dict[str, bytes]) -> dict[str, bytes]:
    """What must be equal wherever it was made: rows with their shape, scores, weights; by key."""
    kept = {}
    for name, content in names.items():
        area, last = name.partition("/")[0], name.rpartition("/")[2]
        if (area in {"embeddings", "frames"} and last != "zarr.json") or last == "model.safetensors":
            kept[name] = content
        if area == "predictions" and last in {"windows.parquet", "rows.parquet", "videos.parquet"}:
            kept[name] = content
    return kept


def local_outcome(folder: Path) -> dict[str, bytes]:
    root = folder / ".reelwright" / "store"
    return outcome({p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()})


def bucket_outcome(bucket: Bucket) -> dict[str, bytes]:
    return outcome({name: bucket.content(name) for name in bucket.names()})
