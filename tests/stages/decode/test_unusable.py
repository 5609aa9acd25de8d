"""A machine that lacks what decoding needs ends the stage with what to do; no video is blamed, nothing is committed."""

from __future__ import annotations

import errno
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reelwright.stages.base.work import SilentReporter
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.processes import child, pool
from reelwright.stages.decode.processes.attempts import DecodeResult, attempt_all
from reelwright.stages.decode.work import run_items
from reelwright.stages.index.work import index_videos
from reelwright.storage.errors import ConfigError, InputError, UnusableMachineError, UnusableStoreError
from reelwright.storage.ledger.digest_cache import KnownProbes
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.store import Store
from tests.stages.decode.test_killed import plan_of
from tests.stages.decode.test_source import item
from tests.stages.decode.test_source import work as work_of

own_decoders = pytest.mark.usefixtures("_own_decoders")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def decode(store: Path, video: Path, backend: str = "pyav") -> dict[str, str]:
    """Status by digest of what was committed, whether the stage ended or not."""
    run_items(work_of(store, [item(video)], DecodeConfig(backend=backend, workers=1)), SilentReporter())
    return {name: row.status for name, row in ItemLedger(Store.at(store).node("k" * 32)).load().items()}


def shadow(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, error: str) -> None:
    """Let worker processes find a package that cannot be imported."""
    folder.mkdir()
    (folder / f"{package}.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(str(folder))


@own_decoders
@pytest.mark.parametrize("kind", ["ImportError('libavcodec.so.62: cannot open')", "ModuleNotFoundError('av')"])
def test_a_backend_that_nobody_can_load_is_no_fault_of_a_video(
    tmp_path: Path, grey_video: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    shadow(tmp_path / "broken", monkeypatch, "av", kind)
    with pytest.raises(UnusableMachineError, match=r"can be loaded here: .*pyav: cannot be loaded: .*pip install"):
        decode(tmp_path / "store", grey_video)
    store = Store.at(tmp_path / "store")
    assert ItemLedger(store.node("k" * 32)).load() == {}
    with pytest.raises(UnusableMachineError, match="cannot be loaded"):
        index_videos([grey_video], store, quick=False, workers=1, timeout_seconds=60, reporter=SilentReporter())
    assert KnownProbes(store.videos).load() == {}


@own_decoders
def test_one_backend_that_cannot_be_loaded_gives_way_to_another(
    tmp_path: Path, grey_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow(tmp_path / "broken", monkeypatch, "decord", "OSError('libdecord.so: cannot open')")
    assert decode(tmp_path / "store", grey_video, "decord") == {"grey": "ok"}


def test_a_second_backend_that_cannot_be_loaded_is_not_what_ends_a_video_that_the_first_one_fails_on(
    grey_video: Path,
) -> None:
    plan = replace(
        plan_of("fails_or_is_not_there"),
        arguments=lambda _item, backend, _broken: {"backend": backend},
        backends=lambda _item: ["pyav", "decord"],
    )
    (outcome,) = attempt_all([item(grey_video)], plan)
    assert isinstance(outcome, DecodeResult)
    assert (outcome.status, outcome.cause, outcome.attempts) == ("failed", "error", 2)
    assert outcome.message == "pyav: RuntimeError: broken; decord: cannot be loaded: no libdecord.so"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOTCONN, errno.EMFILE])
@pytest.mark.parametrize("filename", ["/scratch/file", None])
def test_a_disk_that_fails_ends_the_stage(grey_video: Path, number: int, filename: str | None) -> None:
    plan = plan_of("system_error", number=number, filename=filename, path=str(grey_video))
    with pytest.raises(UnusableMachineError, match=r"then run again"):
        list(attempt_all([item(grey_video)], plan))


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOENT, errno.EINVAL])
def test_what_the_system_says_of_one_file_is_of_its_video(grey_video: Path, number: int) -> None:
    plan = plan_of("system_error", number=number, filename=str(grey_video), path=str(grey_video))
    outcome = list(attempt_all([item(grey_video)], plan))[-1]
    assert isinstance(outcome, DecodeResult)
    assert (outcome.status, outcome.cause, outcome.attempts) == ("failed", "error", 2)


def test_a_server_that_refuses_a_task_is_not_taken_for_a_parent_that_is_gone(grey_video: Path) -> None:
    outcome = list(attempt_all([item(grey_video)], plan_of("refused")))[-1]
    assert isinstance(outcome, DecodeResult)
    assert (outcome.status, outcome.message.count("ConnectionRefusedError: nobody listens")) == ("failed", 2)


@own_decoders
@pytest.mark.parametrize(
    ("program", "match"),
    [
        pytest.param(None, r"cannot be started: .*No such file", id="no-interpreter"),
        pytest.param("#!/bin/sh\nexit 3\n", r"ends at once \(exit_3\)\. What it printed says why", id="ends"),
    ],
)
def test_processes_that_do_not_start(
    tmp_path: Path, grey_video: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, match: str
) -> None:
    path = tmp_path / "python"
    if program is not None:
        path.write_text(program)
        path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    with pytest.raises(UnusableMachineError, match=match):
        decode(tmp_path / "store", grey_video)
    assert ItemLedger(Store.at(tmp_path / "store").node("k" * 32)).load() == {}


@own_decoders
def test_a_process_that_is_never_ready(tmp_path: Path, grey_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    monkeypatch.setattr(child, "START_LIMIT_SECONDS", 0.2)
    monkeypatch.setattr(pool, "START_LIMIT_SECONDS", 0.2)
    with pytest.raises(UnusableMachineError, match=r"is not ready after 0\.2 s"):
        decode(tmp_path / "store", grey_video)


@pytest.mark.parametrize(
    ("error", "expected", "match"),
    [
        pytest.param(UnusableStoreError("no answer"), UnusableStoreError, "no answer", id="unreachable"),
        pytest.param(ConfigError("no credentials"), UnusableStoreError, "no credentials", id="no-credentials"),
        pytest.param(
            OSError(errno.ENOSPC, "No space left"), UnusableMachineError, "cannot be fetched: .*Make room", id="full"
        ),
    ],
)
def test_a_source_that_cannot_be_reached_ends_the_stage(
    grey_video: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception], match: str
) -> None:
    def unreachable(_place: str) -> Path:
        raise error

    monkeypatch.setattr(pool, "local_file", unreachable)
    with pytest.raises(expected, match=match):
        list(attempt_all([item(grey_video)], plan_of("sleep", seconds=0, path="s3://bucket/a.mp4")))


def test_a_video_that_is_not_there_is_its_own_failure(grey_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(place: str) -> Path:
        raise InputError(f"{place}: no such object")

    monkeypatch.setattr(pool, "local_file", missing)
    (outcome,) = attempt_all([item(grey_video)], plan_of("sleep", seconds=0, path="s3://bucket/a.mp4"))
    assert isinstance(outcome, DecodeResult)
    assert (outcome.status, outcome.cause) == ("failed", "missing_file")
