"""What all tests share: few threads, own stores, a small project, and no silent skips where everything was provided."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.forks import Forked

pytest_plugins = ["tests.small_project"]  # its fixtures, after the variables below are set
# The same examples in every run, so that none fails by bad luck, however slow the machine.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")
gc.set_threshold(50_000, 20, 100)  # as the command does; else a twelfth of the time goes into looking for circles
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("REELWRIGHT_STORE", None)  # a store that a person shares is never written by a test


def pytest_configure(config: pytest.Config) -> None:
    """Decoding processes are forked off one that has imported all, but in tests of how they start."""
    from reelwright.stages.decode.processes import child  # here, after the variables above are set
    from tests import forks

    child.start_process = forks.start_decoder
    if not hasattr(config, "workerinput"):  # the test processes of a run share them
        forks.listen()


@pytest.fixture
def forked_training(monkeypatch: pytest.MonkeyPatch) -> list[Forked]:
    """Processes that train a run together are forked off one that has imported torch; all that were started."""
    from reelwright.stages.fit.processes import launch
    from tests import forks

    started: list[Forked] = []

    def start(command: list[str], **options: Any) -> Forked:
        started.append(forks.start_training(command, **options))
        return started[-1]

    monkeypatch.setattr(launch, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": start}))
    return started


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """What a unit of work that was done in this process keeps (models) is not there for the next test."""
    unit = sys.modules.get("reelwright.stages.base.unit")
    if unit is not None:
        unit.keep_models(0)


def pytest_sessionfinish() -> None:
    """The processes that commands and decoders are forked off end with the tests."""
    sys.modules["tests.forks"].close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that none of several processes has one of them left at the end."""
    items.sort(key=lambda item: not {"slow", "real", "decode_matrix"} & set(item.path.parts))


def pytest_collection_finish() -> None:
    """What is loaded by now stays, and is not looked at again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Where REELWRIGHT_NO_SKIPS is set (CI), a skipped test is a failed one: what it wants was to be provided."""
    report = yield
    is_promised = "gpu" not in item.keywords and not hasattr(report, "wasxfail")  # an expected failure was run
    if report.skipped and os.environ.get("REELWRIGHT_NO_SKIPS") and is_promised:
        report.outcome = "failed"
        report.longrepr = f"skipped although REELWRIGHT_NO_SKIPS is set: {report.longrepr}"
    return report
