"""Values of the public code of IndustReal and STORM-PSR; each file's `_origin` says how they were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "data"
NUM_COMPONENTS = 11
STEPS = range(3 * NUM_COMPONENTS)
INITIAL = {"assy": "10000000000", "main": "11110111111"}
EXPECTED = {"assy": {3, 6, 9, 15, 18, 21, 24, 27, 30}, "main": {11, 12, 15, 17, 18, 20, 30, 32}}
_STATES = """
10000000000 10010010000 10010100000 10010110000 11100000000 11110010000 11110100000 11110110000 11110111100
11110111110 11110110001 11110111101 11110111111 11110101111 11110011111 11110011110 11110101110 11100001110
11101101110 11101011110 11101111110 11101111111
"""
STATES = _STATES.split()


def vectors(name: str) -> dict[str, Any]:
    """One file of values."""
    values: dict[str, Any] = json.loads((DATA / f"psr_{name}.json").read_text(encoding="utf-8"))
    return values


def bits(text: str) -> tuple[int, ...]:
    """A state written as a text of digits."""
    return tuple(map(int, text))
