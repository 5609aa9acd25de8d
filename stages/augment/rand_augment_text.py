"""The text that RandAugment is written in, read into its sections; knows neither operations nor pictures.

    rand-m7-n4-mstd0.5-inc1     timm's grammar; sections in any order
      m7        magnitude, 0 to 10 (10)
      n4        operations a clip (2), drawn with replacement where all are as likely
      p0.5      probability of each to be carried out (0.5)
      mstd0.5   normal noise on the magnitude (0); above 100: uniform in [0, magnitude]
      mmax15    largest magnitude after the noise (10)
      inc1      operations whose effect rises with the magnitude (0)
      t3a       another set of operations: weights, 3a or 3aw; those with weights are drawn without replacement
      w0        the weighted set of timm before 1.0

Sources: timm's auto_augment, CAST (1.3 of the domain reference).
"""

from __future__ import annotations

import math
import re
from typing import Any

SETS = ("weights", "3a", "3aw")


def read_sections(text: str) -> dict[str, Any]:
    """Sections by name, as numbers or as the name of a set. Raises ValueError that names what cannot be read."""
    head, *sections = text.split("-")
    if head != "rand":
        raise ValueError(f"RandAugment {text!r} must begin with 'rand', as in rand-m7-n4-mstd0.5-inc1.")
    return dict(_section(section, text) for section in sections)


_RANGES = {  # kind, least, most
    "m": (int, 0, 100),
    "n": (int, 1, 100),
    "p": (float, 0, 1),
    "mstd": (float, 0, math.inf),
    "mmax": (int, 0, 100),
    "inc": (int, 0, 1),
}


def _section(section: str, text: str) -> tuple[str, Any]:
    if section[:1] == "t" and section[1:] in SETS:
        return "t", section[1:]
    if section == "w0":
        return "w", "0"
    found = re.fullmatch(r"([a-z]+)([0-9.]+|inf)", section)
    if found and found[1] in _RANGES:
        kind, least, most = _RANGES[found[1]]
        try:
            value = kind(found[2])
        except ValueError:
            value = math.nan
        if least <= value <= most:
            return found[1], value
    allowed = "m0 to m100, n1 to n100, p0 to p1, mstd0.5, mmax10, inc0 or inc1, w0, " + ", ".join(f"t{s}" for s in SETS)
    raise ValueError(f"RandAugment {text!r}: section {section!r} cannot be read; allowed: {allowed}.")
