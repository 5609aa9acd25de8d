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

BUCKET = "reels"
START_SECONDS = 60.0


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
