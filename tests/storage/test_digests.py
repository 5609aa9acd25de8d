"""Keys: pinned values, no collisions across types, and file digests."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelwright.storage.digests import canonical, digest, file_digest, item_key, set_digest, stage_key

# A change of any of these renames every output in every store. Made once with storage/digests.py at version 0.1.0.
PINNED = {
    "nested": ({"a": 1, "b": [1.0, "x", None, True]}, "5e1f02776e87b4ade3ebd52b2785192a"),
}


@pytest.mark.parametrize("name", PINNED)
def test_digests_are_pinned(name: str) -> None:
    value, expected = PINNED[name]
    assert digest(value) == expected


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        (1, "1"),
        (1, True),
        (0, False),
        (None, "null"),
        ("", None),
        ([], {}),
        ([1], 1),
        ({"a": 1}, [["a", 1]]),
        ("b", ["b"]),
    ],
    ids=str,
)
def test_types_never_collide(left: object, right: object) -> None:
    assert digest(left) != digest(right)


def test_order_of_keys_does_not_matter_and_order_of_lists_does() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest((1, 2)) == digest([1, 2])


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN, PLAIN)
def test_canonical_text_tells_values_apart(left: object, right: object) -> None:
    same = repr(_sorted(left)) == repr(_sorted(right))
    assert (canonical(left) == canonical(right)) == same


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return ("mapping", tuple((key, _sorted(value[key])) for key in sorted(value)))
    return tuple(_sorted(entry) for entry in value) if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("value", "match"),
    [(math.nan, "finite"), (math.inf, "finite"), ({1: 2}, "text keys"), (b"x", "bytes"), ({1, 2}, "set")],
    ids=str,
)
def test_what_cannot_be_a_key_is_refused(value: object, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        digest(value)


def test_keys_of_stages_and_items_depend_on_every_part() -> None:
    base = stage_key("embed", 1, {"fps": 5.0}, {"frames": "abc"})
    others = [
        stage_key("decode", 1, {"fps": 5.0}, {"frames": "abc"}),
        stage_key("embed", 2, {"fps": 5.0}, {"frames": "abc"}),
        stage_key("embed", 1, {"fps": 10.0}, {"frames": "abc"}),
        stage_key("embed", 1, {"fps": 5.0}, {"frames": "abd"}),
        item_key("abc", "def"),
    ]
    assert len({base, *others}) == len(others) + 1


WORDS = st.text("abc", min_size=1, max_size=3)
PARTS = st.tuples(WORDS, st.integers(1, 3), st.dictionaries(WORDS, PLAIN, max_size=2), st.dictionaries(WORDS, WORDS))


@given(PARTS, PARTS)
def test_stage_keys_are_equal_only_when_every_part_is(left: tuple[Any, ...], right: tuple[Any, ...]) -> None:
    same = canonical(list(left)) == canonical(list(right))
    assert (stage_key(*left) == stage_key(*right)) == same


@given(st.lists(WORDS, max_size=6), st.randoms(use_true_random=False))
def test_a_set_has_one_digest_in_whatever_order(digests: list[str], random: Random) -> None:
    shuffled = random.sample(digests, len(digests))
    assert set_digest(digests) == set_digest(shuffled)
    assert set_digest([*digests, "new"]) != set_digest(digests)


@given(PLAIN, st.randoms(use_true_random=False))
def test_neither_order_of_keys_nor_a_way_through_json_matters(value: object, random: Random) -> None:
    def turned(entry: object) -> object:
        if isinstance(entry, dict):
            return {name: turned(entry[name]) for name in random.sample(list(entry), len(entry))}
        return [turned(inner) for inner in entry] if isinstance(entry, list) else entry

    assert digest(turned(value)) == digest(value) == digest(json.loads(json.dumps(value)))


@given(
    PLAIN, st.sampled_from([1, 1.0, "1", True, [1], {"1": 1}, None]), st.sampled_from([1, 1.0, "1", True, [1], None])
)
def test_types_never_collide_however_deep(around: object, left: object, right: object) -> None:
    same = type(left) is type(right)
    assert (digest([around, {"x": left}]) == digest([around, {"x": right}])) == same


def test_file_digest_is_by_content_not_by_name_or_time(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("a", "b", "c"))
    first.write_bytes(b"same")
    second.write_bytes(b"same")
    third.write_bytes(b"other")
    assert file_digest(first) == file_digest(second) != file_digest(third)
    assert file_digest(first, quick=True) != file_digest(first)


def test_folder_digest_depends_on_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"x")
    before = file_digest(folder)
    (folder / "1.jpg").rename(folder / "2.jpg")
    renamed = file_digest(folder)
    (folder / "2.jpg").write_bytes(b"y")
    assert len({before, renamed, file_digest(folder)}) == 3


def test_quick_digest_sees_head_middle_and_tail(tmp_path: Path) -> None:
    path = tmp_path / "big"
    size = 8 << 20
    found = set()
    for position in (None, 0, size // 2, size - 1):
        content = bytearray(size)
        if position is not None:
            content[position] = 1
        path.write_bytes(content)
        found.add(file_digest(path, quick=True))
    assert len(found) == 4
