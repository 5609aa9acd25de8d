"""Every file of the matrix: no row that differs from ffmpeg's own decode without a word, none lost, no damage untold.

`python -m tests.decode_matrix --only PATTERN --reasons` says more of a file that fails here. And each kind of file for
which a fast backend is used is in the matrix; it gives FFmpeg's frames of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reelwright.stages.decode.readers.proven import PROVEN
from tests.decode_matrix import table
from tests.decode_matrix.cases import all_cases
from tests.decode_matrix.compare import BACKENDS, Subject, compare
from tests.decode_matrix.matrix import names_of, prepare
from tests.decode_matrix.proven import FAST, files, kinds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test waits for all
CASES = all_cases()

# What differs between the FFmpeg of the command line (5.1 on Debian 12) and PyAV's (8), and is not ours to mend.
KNOWN = {
    "hevc-b2-g13-half.hevc": "a raw stream does not say where it ends, and PyAV's FFmpeg says nothing of half a packet",
}

Results = tuple[dict[str, Subject], table.Verdicts]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where files are made, each once."""
    return tmp_path_factory.mktemp("matrix")


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest, folder: Path) -> Iterator[Results]:
    """The verdicts on all files that are to be tested in this session."""
    chosen = {item.callspec.params["name"] for item in request.session.items if "results" in item.fixturenames}
    subjects = prepare(folder, CASES, [name for name in CASES if name in chosen])
    verdicts = {backend: compare(list(subjects.values()), backend) for backend in BACKENDS}
    yield subjects, verdicts
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + "\n".join(table.lines(subjects, verdicts)))


def _param(name: str) -> Any:
    marks = [pytest.mark.xfail(reason=KNOWN[name], strict=True)] if name in KNOWN else []
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [_param(name) for name in names_of(CASES)])
def test_rows_are_those_of_ffmpeg(results: Results, name: str) -> None:
    found = table.faults(name, results[1])
    assert not found, "\n".join([f"{len(found)} faults", *found])


def test_what_is_proven_is_borne_out(folder: Path) -> None:
    found = kinds(files(folder / "files"), only=frozenset().union(*PROVEN.values()))
    for backend in FAST:
        assert {kind: all(found[backend].get(kind, [False])) for kind in PROVEN[backend]} == dict.fromkeys(
            PROVEN[backend], True
        )
