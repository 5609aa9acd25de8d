"""Renaming, strict loading and digests of state dicts."""

from __future__ import annotations

import blake3
import pytest
import torch
from torch import nn

from reelwright.models.blocks.weights import load_weights, remap_state_dict, state_digest
from reelwright.models.encoders.build import build_encoder


def numbered(*keys):
    return {key: torch.tensor(float(index)) for index, key in enumerate(keys)}


REMAPS = [
    ("nothing", {"prefix": None, "key_map": None}, ["a.w", "b.w"], {"a.w": 0, "b.w": 1}),
    ("prefix", {"prefix": "net.", "key_map": None}, ["net.a", "head.a", "net.net.b"], {"a": 0, "net.b": 2}),
    ("map", {"prefix": None, "key_map": {r"^layer(\d)": r"blocks.\1"}}, ["layer3.w", "x"], {"blocks.3.w": 0, "x": 1}),
    ("order", {"prefix": None, "key_map": {"a": "b", "b": "c"}}, ["a"], {"c": 0}),
    ("prefix first", {"prefix": "m.", "key_map": {"^m": "n"}}, ["m.m"], {"n": 0}),
]


@pytest.mark.parametrize(("arguments", "keys", "expected"), [c[1:] for c in REMAPS], ids=[c[0] for c in REMAPS])
def test_remap(arguments, keys, expected):
    found = remap_state_dict(numbered(*keys), **arguments)
    assert {key: int(value) for key, value in found.items()} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"prefix": "module.", "key_map": None},
            r"no entry starts with prefix 'module\.'; the entries start like a, b",
        ),
        ({"prefix": None, "key_map": {"[ab]": "c"}}, r"two entries the name 'c'"),
        ({"prefix": None, "key_map": {"(": "c"}}, r"'\(': 'c' is not a regular expression"),
        ({"prefix": None, "key_map": {"a": r"\9"}}, r"is not a regular expression and replacement"),
    ],
    ids=["prefix", "clash", "pattern", "replacement"],
)
def test_remap_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        remap_state_dict(numbered("a", "b"), **arguments)


def test_half_precision_loads_exactly():
    module = nn.Linear(3, 2)
    state = {key: torch.randn_like(value).half() for key, value in module.state_dict().items()}
    report = load_weights(module, state)
    assert report.matched == ("weight", "bias")
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight, state["weight"].float())


def test_refusal_lists_five_of_each_kind_and_changes_nothing():
    module = nn.Sequential(*[nn.Linear(2, 2, bias=False) for _ in range(8)], nn.Linear(2, 3))
    before = state_digest(module.state_dict())
    state = {f"other.{index}": torch.ones(1) for index in range(7)}
    state |= {"0.weight": torch.ones(2, 2), "8.weight": torch.ones(4, 2), "8.bias": torch.ones(3)}
    with pytest.raises(ValueError, match=r"7 missing: 1.weight \(2, 2\)") as refusal:
        load_weights(module, state)
    message = str(refusal.value)
    assert "5.weight (2, 2) and 2 more" in message
    assert "6.weight" not in message
    assert "7 unexpected: other.0 (1,)" in message
    assert "1 mismatched: 8.weight (model (3, 2), file (4, 2))" in message
    assert all(word in message for word in ("`prefix`", "`key_map`", "`ignore`"))
    assert state_digest(module.state_dict()) == before


def test_ignored_entries_keep_their_value():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    head = module[1].weight.detach().clone()
    state = {
        "0.weight": torch.ones(2, 2),
        "0.bias": torch.ones(2),
        "1.weight": torch.ones(4, 2),
        "extra": torch.ones(1),
    }
    report = load_weights(module, state, ignore=["1.*", "extra"])
    assert report.matched == ("0.weight", "0.bias")
    assert (report.missing, report.unexpected, report.mismatched) == (("1.bias",), ("extra",), ("1.weight",))
    assert torch.equal(module[1].weight, head)
    assert torch.equal(module[0].weight, torch.ones(2, 2))


def test_files_without_batch_counters_are_complete():
    module = nn.BatchNorm2d(2)
    state = {key: value for key, value in module.state_dict().items() if key != "num_batches_tracked"}
    assert load_weights(module, state).missing == ()


@pytest.mark.parametrize("prefix", ["", "model."], ids=["bare", "of_the_encoder"])
def test_encoder_takes_both_ways_of_naming(prefix):
    source, target = (build_encoder("timm/test_vit", seed=seed) for seed in (1, 2))
    state = {prefix + key: value for key, value in source.model.state_dict().items()}
    report = load_weights(target, state)
    assert len(report.matched) == len(state)
    assert state_digest(source.state_dict()) == state_digest(target.state_dict())


def test_digest_is_pinned():
    state = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor(3, dtype=torch.int64)}
    expected = blake3.blake3(
        b'["a", "torch.int64", []]\n' + (3).to_bytes(8, "little") + b'["b", "torch.float32", [2]]\n'
        b"\x00\x00\x80\x3f\x00\x00\x00\x40"
    ).hexdigest()
    assert state_digest(state) == expected
    assert state_digest(dict(reversed(state.items()))) == expected


BASE = torch.arange(6.0).reshape(2, 3)
CHANGED = {
    "name": {"v": BASE},
    "value": {"w": BASE + 1},
    "shape": {"w": BASE.reshape(3, 2)},
    "dtype": {"w": BASE.to(torch.bfloat16)},
    "one more": {"w": BASE, "x": torch.zeros(0)},
    "sign of zero": {"w": -BASE.abs() * 0},
}


@pytest.mark.parametrize("state", CHANGED.values(), ids=CHANGED)
def test_digest_sees(state):
    assert state_digest(state) != state_digest({"w": BASE})


def test_digest_does_not_see_memory_layout():
    assert state_digest({"w": BASE}) == state_digest({"w": BASE.t().contiguous().t()})
    channels_last = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert state_digest({"w": channels_last}) == state_digest({"w": channels_last.contiguous()})


def test_digest_refuses_what_is_no_tensor():
    with pytest.raises(ValueError, match="entry 'epoch' is no dense tensor but int"):
        state_digest({"epoch": 3})
