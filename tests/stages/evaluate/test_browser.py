"""The report in a real browser: it renders, the console stays silent, nothing is asked from a network."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from reelwright.stages.base.work import SilentReporter
from reelwright.stages.evaluate.work import run

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
OWN_HOSTS = {"clients2.google.com", "update.googleapis.com", "accounts.google.com"}  # the browser's own services

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def browse(page: Path, folder: Path, *options: str) -> tuple[str, set[str]]:
    """Open ``page``; (what was logged, every URL that a page asked for)."""
    log = folder / "net.json"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", *options]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    urls = {event["params"]["url"] for event in events if "url" in event.get("params", {})}
    return done.stderr, urls


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 1400])
def test_report_opens_quietly(fake_store: Callable[..., Any], tmp_path: Path, width: int) -> None:
    made = fake_store(splits=("test", "val"), background="background")
    run(made.work, SilentReporter())
    picture = tmp_path / "report.png"
    page = made.store.report(made.work.key) / "report.html"
    log, urls = browse(page, tmp_path, f"--screenshot={picture}", f"--window-size={width},2000")
    assert "CONSOLE" not in log
    assert {url for url in urls if urlsplit(url).hostname not in OWN_HOSTS} == set()
    with Image.open(picture) as image:
        assert image.width == width
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24) or []) > 50  # not a blank page


@pytest.mark.slow
def test_the_check_sees_what_it_looks_for(tmp_path: Path) -> None:
    """A page that asks for something and fails is noticed, so that silence means something."""
    page = tmp_path / "bad.html"
    page.write_text("<script>console.error('seen')</script><img src='http://127.0.0.1:9/x.png'>", encoding="utf-8")
    log, urls = browse(page, tmp_path, f"--screenshot={tmp_path / 'bad.png'}")
    assert "CONSOLE" in log
    assert "http://127.0.0.1:9/x.png" in urls
