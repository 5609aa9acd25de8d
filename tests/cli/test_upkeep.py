"""verify and gc as a person types them, on a pipeline that is done in part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reelwright.pipeline.project import Project
from tests.cli.test_commands import reelwright


@pytest.mark.slow
def test_verify_repair_and_gc(folder: Path) -> None:
    assert Project.open(folder / "reelwright.yaml").run(until=["frames"]).exit_code == 0
    store = folder / ".reelwright" / "store"
    shard = min(store.glob("frames/*.zarr/*/frame/c/0/0/0/0"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    wrong = reelwright(folder, "verify")
    assert wrong.returncode == 1
    assert f"altered: {shard.relative_to(store)}: the checksum of chunk 0 (of 1) is wrong" in wrong.stdout
    message = json.loads(reelwright(folder, "verify", "--repair", "--json").stdout)
    assert [problem["path"] for problem in message["problems"]] == [str(shard)]
    assert message["repaired"]
    assert message["left"] == []

    (folder / "next.yaml").write_text((folder / "reelwright.yaml").read_text().replace("fps: 5", "fps: 2"))
    guarded = reelwright(folder, "gc", "-c", "next.yaml", "--only-these", "--delete")
    assert "within the last hour" in guarded.stdout
    assert shard.exists()
    other = json.loads(reelwright(folder, "gc", "-c", "next.yaml", "--now", "--json").stdout)
    assert (other["going"], len(other["other_projects"])) == ([], 1)
    gone = reelwright(folder, "gc", "-c", "next.yaml", "--only-these", "--now", "--delete")
    assert "removed" in gone.stdout
    assert not shard.exists()
    after = reelwright(folder, "verify", "--all")
    assert (after.returncode, "nothing is wrong" in after.stdout) == (0, True), after.stderr
    assert "--max-bytes '3 parsec'" in reelwright(folder, "gc", "--max-bytes", "3 parsec").stderr
