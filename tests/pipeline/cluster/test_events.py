"""What training processes of a SLURM job say, read from their files of events."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from reelwright.pipeline.executors.training import _Watch


class Said:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def total(self, *given: Any) -> None:
        """Keep it."""
        self.heard.append(given)

    def advance(self, amount: int) -> None:
        """Keep it."""
        self.heard.append(amount)

    def note(self, text: str) -> None:
        """Keep it."""
        self.heard.append(text)


def test_damaged_lines_are_left_out_and_said_once(tmp_path) -> None:
    lines = [
        b'{"event": "total", "amount": 9, "unit": "windows", "done": 0}',
        b'{"event": "advance", "amo',
        b"\xff\x00",
        b"3",
        b'{"event": "advance"}',
        b'{"event": "advance", "amount": 2}',
        b'{"event": "result", "result": {"weights": "w"}}',
        b'{"event": "advance", "amount": 5',
    ]
    (tmp_path / "events.0.jsonl").write_bytes(b"\n".join(lines))
    said = Said()
    job = _Watch(work=None, reporter=said, settings=None, folder=SimpleNamespace(path=tmp_path))  # type: ignore[arg-type]
    job.read()
    job.read()  # the last line is being written: it is neither read nor damaged
    (note,) = (each for each in said.heard if isinstance(each, str))
    assert "events.0.jsonl is damaged and left out" in note
    assert [each for each in said.heard if each != note] == [(9, "windows", 0), 2]
    assert job.result == {"weights": "w"}
