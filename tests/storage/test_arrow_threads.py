"""Processes that end while threads of Arrow still let go of what they read: as on a machine with much to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reelwright.storage.files import write_table
from reelwright.storage.ledger.items import items_table

_TRIES = 8  # of which every second aborted (CSV), or every tenth (ledger)
# The threads run only while the process waits for them, and go on when it ends.
_PROGRAM = """
import os, sys
from pathlib import Path

path = Path(sys.argv[1])
{read}
read({given})
for thread in map(int, os.listdir("/proc/self/task")):
    os.sched_setaffinity(thread, {{min(os.sched_getaffinity(0))}})
    if thread != os.getpid():
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
read({given})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="says by /proc and SCHED_IDLE which threads come last")
@pytest.mark.parametrize(
    ("read", "given"),
    [
        pytest.param("from reelwright.storage.digests import read_sealed_table as read", "path", id="ledger"),
        pytest.param(
            "from reelwright.storage.tables.arrow_tables import plain_columns as read",
            "'a,b\\n' + 'x,y\\n' * 500_000, num_columns=2, delimiter=','",
            id="csv",
        ),
    ],
)
def test_a_process_that_read_a_table_ends_well(tmp_path: Path, read: str, given: str) -> None:
    path = tmp_path / "items.parquet"
    write_table(path, items_table([{"digest": f"{number:032x}", "status": "ok"} for number in range(200)]))
    program = [sys.executable, "-c", _PROGRAM.format(read=read, given=given), str(path)]
    for _ in range(_TRIES):
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
