"""Which image of a folder is on screen when, by the numbers in the file names: arithmetic on names, no file is opened.

names     img_03.jpg  img_04.jpg  img_07.jpg        numbers 3 4 7, the first is 3
seconds   0           1/fps       4/fps - 5/fps     5 and 6 are missing: image 4 stays on screen until 7 appears
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_DIGITS = re.compile(r"([0-9]+)")
_FIELD = re.compile(r"\{0?(?::(?:0?[0-9]+)?d?)?\}")
_THUMBNAIL = re.compile(r"thumb(nail)?s?([^a-z]|$)", re.IGNORECASE)  # of file browsers and cameras
_SHOWN = 5  # names or ranges in a message


@dataclass(frozen=True, kw_only=True)
class Series:
    """The images of one video in the order of time, N of them."""

    names: tuple[str, ...]
    numbers: tuple[int, ...]  # of frames, ascending: image i is on screen from (numbers[i] - first) / fps seconds on
    first: int = 0  # the number of the frame at 0 s
    notes: tuple[str, ...] = ()  # sentences for people: what is odd, and does not stop it
    problem: str = ""  # why it cannot be said which images are meant, and what to do


def by_template(names: Iterable[str], template: str, *, start: int | None) -> Series:
    """The images that are named as ``template`` says (`img_{:05d}.jpg`), from number ``start`` on.

    start: the number of the frame at 0 s; None: the lowest there is. Raises ValueError for a template without one field
    for a number.
    """
    pattern = template_pattern(template)
    found = [(int(match["number"]), name) for name in names if (match := pattern.fullmatch(name))]
    numbered = [(number, name) for number, name in found if template.format(number) == name]
    kept = sorted(entry for entry in numbered if start is None or entry[0] >= start)
    notes = _left_out([name for entry in sorted({*found} - {*numbered}) for name in entry[1:]], f"not {template!r}")
    return _series(kept, start, notes) if kept else Series(names=(), numbers=(), notes=notes)


def template_pattern(template: str) -> re.Pattern[str]:
    """What matches the names that ``template`` makes of numbers, with a group `number`. Raises ValueError."""
    fields = _FIELD.findall(template)
    literals = _FIELD.split(template)
    if len(fields) != 1 or any(brace in part for part in literals for brace in "{}"):
        raise ValueError(
            f"image_tmpl {template!r} must hold one field for the number and no other braces, as in img_{{:05d}}.jpg"
        )
    before, after = literals
    return re.compile(f"{re.escape(before)}(?P<number> *[0-9]+){re.escape(after)}")


def by_names(names: Iterable[str]) -> Series:
    """The images in the order of the one number in their names that counts up.

    Thumbnails, and images whose names are unlike those of one series, are left out. Names without such a number come in
    natural order (2 before 10), evenly spaced. Both is said in the notes.
    """
    everything = sorted(names, key=natural)
    ordered = [name for name in everything if not _THUMBNAIL.match(name)]
    thumbnails = [name for name in everything if _THUMBNAIL.match(name)] if ordered else []
    ordered, notes = ordered or everything, _left_out(thumbnails, "thumbnails")
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in ordered:
        groups[tuple(_parts(name)[::2])].append(name)  # by what a name is without its numbers and its ending
    main = max(groups.values(), key=len, default=[])
    others = [name for group in groups.values() for name in group if group is not main]
    rivals = [group for pattern, group in groups.items() if group is not main and len(group) > 1 and len(pattern) > 1]
    numbered = _numbered(main)
    if isinstance(numbered, str):
        return Series(names=tuple(main), numbers=tuple(range(len(main))), notes=notes, problem=numbered)
    if numbered is None or (others and len(others) >= len(main)) or rivals:
        return _evenly(ordered, notes, problem=_overlap(numbered, rivals))
    return _series(numbered, None, (*notes, *_left_out(others, f"unlike the names of the other {len(main)}")))


def natural(name: str) -> list[tuple[int, int | str]]:
    """A sort key in which numbers count as numbers: img2 comes before img10."""
    parts = _DIGITS.split(name)
    return [(0, int(part)) if place % 2 else (1, part.lower()) for place, part in enumerate(parts) if part]


def _parts(name: str) -> list[str]:
    """The name without its ending, cut at its numbers: text, number, text, ..., text."""
    return _DIGITS.split((name.rpartition(".")[0] or name).lower())


def _numbered(names: Sequence[str]) -> list[tuple[int, str]] | str | None:
    """(number, name) in order, of names of one pattern; a problem as text; None where no one number counts up."""
    rows = sorted((tuple(map(int, _parts(name)[1::2])), name) for name in names)
    if not rows or not rows[0][0]:
        return None
    for (values, name), (later, other) in itertools.pairwise(rows):
        if values == later:
            return f"{name} and {other} have the same number. Remove one of them, or name one kind with image_tmpl"
    if len(rows) == 1:
        return [(rows[0][0][-1], rows[0][1])]
    columns = [
        column
        for column in zip(*(values for values, _ in rows), strict=True)
        if all(before < after for before, after in itertools.pairwise(column))
    ]
    steps = {tuple(after - before for before, after in itertools.pairwise(column)) for column in columns}
    if len(steps) != 1:  # none, or several that disagree: a frame number and a time, for instance
        return None
    return list(zip(columns[-1], (name for _, name in rows), strict=True))


def _overlap(numbered: Sequence[tuple[int, str]] | None, rivals: Iterable[Sequence[str]]) -> str:
    """A problem where another series has the same numbers (colour beside depth or flow); else an empty text."""
    taken = {number for number, _ in numbered or ()}
    for group in rivals:
        found = _numbered(group)
        if numbered and isinstance(found, list) and taken.intersection(number for number, _ in found):
            return (
                f"several series of images have the same numbers, such as {numbered[0][1]} and {group[0]}. Name the "
                "one that is meant with image_tmpl"
            )
    return ""


def _evenly(ordered: Sequence[str], notes: tuple[str, ...], *, problem: str) -> Series:
    note = (
        f"The names of the images ({_some(ordered)}) have no one number that counts up: they are taken in natural "
        "order, evenly spaced; image_tmpl says which number counts."
    )
    own = (note,) if len(ordered) > 1 and not problem else ()
    return Series(names=tuple(ordered), numbers=tuple(range(len(ordered))), notes=(*own, *notes), problem=problem)


def _series(numbered: Sequence[tuple[int, str]], start: int | None, notes: tuple[str, ...]) -> Series:
    numbers = tuple(number for number, _ in numbered)
    first = numbers[0] if start is None else start
    if start is None and first > 1:
        notes = (f"The numbers of the images begin at {first}, which is at 0 s.", *notes)
    return Series(
        names=tuple(name for _, name in numbered),
        numbers=numbers,
        first=first,
        notes=(*_missing(numbers, first), *notes),
    )


def _missing(numbers: Sequence[int], first: int) -> tuple[str, ...]:
    """A note that names the numbers between the first and the last that no image has; none where all are there."""
    gaps = [
        (before + 1, after - 1) for before, after in itertools.pairwise((first - 1, *numbers)) if after > before + 1
    ]
    if not gaps:
        return ()
    count, total = sum(last - start + 1 for start, last in gaps), numbers[-1] - first + 1
    ranges = [str(start) if start == last else f"{start}-{last}" for start, last in gaps]
    more = f" and {len(ranges) - _SHOWN} more gaps" if len(ranges) > _SHOWN else ""
    note = (
        f"{count} of {total} image numbers are missing ({', '.join(ranges[:_SHOWN])}{more}): the image before stays on "
        "screen until the next one that is there."
    )
    if len(numbers) > 1 and all(before + 1 < after for before, after in itertools.pairwise(numbers)):
        note += " If the numbers count something else than frames (milliseconds), number the images anew."
    return (note,)


def _left_out(names: Sequence[str], why: str) -> tuple[str, ...]:
    return (f"Left out, as {why}: {_some(names)}.",) if names else ()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
