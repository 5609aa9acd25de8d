"""All temporal models against one contract, and each against what it alone promises."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from reelwright.models.blocks.init_from import start_from
from reelwright.models.temporal.build import TEMPORAL_MODELS, build_temporal
from reelwright.models.temporal.options import output_names
from reelwright.models.temporal.transformer import sinusoidal_positions, visibility
from tests.models.calling import logits_of

DIM, OUTPUTS, LENGTH = 8, 3, 7

CASES = [
    ("linear", {}),
    ("linear", {"norm": True, "pool": "mean"}),
    ("mlp", {"hidden": 16}),
    ("mlp", {"hidden": 16, "between": "norm"}),
    ("transformer", {"layers": 2}),
    ("transformer", {"layers": 1, "pool": "mean", "positions": "sinusoidal"}),
    ("transformer", {"layers": 1, "pool": "last", "causal": True, "width": 12, "mlp_width": 5, "heads": 3}),
    ("transformer", {"layers": 1, "heads": 3, "head_dim": 5, "causal": True}),
    ("storm_transformer", {"layers": 2, "heads": 2, "head_dim": 3, "mlp_width": 5}),
    ("storm_transformer", {"layers": 1, "heads": 1, "head_dim": 8, "mlp_width": 5, "pool": "mean"}),
    (
        "storm_transformer",
        {"layers": 2, "heads": 2, "head_dim": 3, "mlp_width": 5, "attention": "neighbours", "neighbours": 2},
    ),
    (
        "storm_transformer",
        {"layers": 2, "heads": 2, "head_dim": 3, "mlp_width": 5, "attention": "linformer", "projected": 4},
    ),
    ("gru", {"width": 6}),
    ("gru", {"width": 6, "layers": 2, "bidirectional": True, "pool": "mean"}),
    ("lstm", {"width": 6}),
    ("lstm", {"width": 6, "bidirectional": True}),
    ("ms_tcn", {"layers": 3, "width": 6}),
    ("ms_tcn", {"layers": 2, "width": 6, "stages": 3, "causal": True, "pool": "last", "input_norm": True}),
    ("attention_branch", {"layers": 2, "width": 8, "dropout": 0.0, "time": "convolutional"}),
    ("attention_branch", {"layers": 1, "width": 8, "dropout": 0.0, "version": "v2"}),  # of one length only
]
IDS = [f"{name}-{'-'.join(f'{k}={v}' for k, v in options.items())}" for name, options in CASES]
PER_ROW = [(name, {k: v for k, v in options.items() if k != "pool"}) for name, options in CASES if name != "mlp"]
PER_ROW_IDS = [f"{name}-{'-'.join(f'{k}={v}' for k, v in options.items())}" for name, options in PER_ROW]

ANY_LENGTH = [pytest.param(*case, id=name) for case, name in zip(CASES, IDS, strict=True) if "version" not in case[1]]
PER_ROW_ANY_LENGTH = [
    pytest.param(*case, id=name) for case, name in zip(PER_ROW, PER_ROW_IDS, strict=True) if "version" not in case[1]
]

MASKS = {
    "tail": [1, 1, 1, 1, 0, 0, 0],
    "head": [0, 0, 1, 1, 1, 1, 1],
    "holes": [0, 1, 1, 0, 0, 1, 0],
    "full": [1, 1, 1, 1, 1, 1, 1],
}


def build(name, *, per_row=False, length=LENGTH, **options):
    torch.manual_seed(0)
    return build_temporal(name, input_dim=DIM, num_outputs=OUTPUTS, length=length, per_row=per_row, **options).eval()


def rows(num_windows=4, num_rows=LENGTH, *, seed=0):
    return torch.randn(num_windows, num_rows, DIM, generator=torch.Generator().manual_seed(seed))


def all_masks():
    return torch.tensor(list(MASKS.values()), dtype=torch.bool)


def test_every_model_is_covered():
    assert {name for name, _ in CASES} == set(TEMPORAL_MODELS)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_outputs_are_those_that_are_declared(name, options):
    found = build(name, **options)({"rows": rows(), "mask": all_masks()})
    assert sorted(found) == sorted(output_names(name, options))


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("filler", [1e4, math.nan, math.inf], ids=["large", "nan", "inf"])
def test_padding_is_never_seen(name, options, filler):
    model, x, mask = build(name, **options), rows(), all_masks()
    clean, dirty = (logits_of(model, x.masked_fill(~mask[..., None], value), mask) for value in (0.0, filler))
    assert clean.shape == (4, OUTPUTS)
    assert clean.isfinite().all()
    assert torch.equal(clean, dirty)


@pytest.mark.parametrize(("name", "options"), PER_ROW, ids=PER_ROW_IDS)
@pytest.mark.parametrize("filler", [1e4, math.nan], ids=["large", "nan"])
def test_padding_is_never_seen_per_row(name, options, filler):
    model, x, mask = build(name, per_row=True, **options), rows(), all_masks()
    clean, dirty = (logits_of(model, x.masked_fill(~mask[..., None], value), mask) for value in (0.0, filler))
    assert clean.shape == (4, LENGTH, OUTPUTS)
    assert clean[mask].isfinite().all()
    assert torch.equal(clean[mask], dirty[mask])


@pytest.mark.parametrize(("name", "options"), ANY_LENGTH)
def test_short_windows_equal_padded_ones(name, options):
    model, x = build(name, **options), rows()
    mask = torch.tensor([MASKS["tail"]] * 4, dtype=torch.bool)
    torch.testing.assert_close(logits_of(model, x, mask), logits_of(model, x[:, :4], mask[:, :4]))


@pytest.mark.parametrize(("name", "options"), PER_ROW_ANY_LENGTH)
def test_short_windows_equal_padded_ones_per_row(name, options):
    model, x = build(name, per_row=True, **options), rows()
    mask = torch.tensor([MASKS["tail"]] * 4, dtype=torch.bool)
    torch.testing.assert_close(logits_of(model, x, mask)[:, :4], logits_of(model, x[:, :4], mask[:, :4]))


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_real_rows_are_seen_and_learned_from(name, options):
    model, x, mask = build(name, **options), rows().requires_grad_(), torch.ones(4, LENGTH, dtype=torch.bool)
    assert not torch.equal(logits_of(model, x, mask), logits_of(model, rows(seed=1), mask))
    model.train()
    sum(value.square().sum() for value in model({"rows": x, "mask": mask}).values()).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_window_without_rows_is_finite(name, options):
    mask = torch.tensor([[False] * LENGTH, [True] * LENGTH])
    assert logits_of(build(name, **options), rows(2), mask).isfinite().all()


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_windows_of_a_batch_do_not_mix(name, options):
    model, x, mask = build(name, **options), rows(), all_masks()
    alone = torch.cat([logits_of(model, x[index : index + 1], mask[index : index + 1]) for index in range(4)])
    torch.testing.assert_close(logits_of(model, x, mask), alone)


CAUSAL = [("gru", {}), ("lstm", {}), ("transformer", {"causal": True}), ("ms_tcn", {"causal": True, "layers": 3})]
NOT_CAUSAL = [("gru", {"bidirectional": True}), ("transformer", {}), ("ms_tcn", {"layers": 3})]


@pytest.mark.parametrize(
    ("name", "options", "is_causal"),
    [(*case, True) for case in CAUSAL] + [(*case, False) for case in NOT_CAUSAL],
    ids=[f"{name}-causal" for name, _ in CAUSAL] + [f"{name}-both_ways" for name, _ in NOT_CAUSAL],
)
def test_only_both_way_models_see_later_rows(name, options, is_causal):
    model, x, mask = build(name, per_row=True, **options), rows(), torch.ones(4, LENGTH, dtype=torch.bool)
    changed = x.clone()
    changed[:, 4:] *= -1  # adding a constant would vanish in LayerNorm
    before, after = logits_of(model, x, mask)[:, :4], logits_of(model, changed, mask)[:, :4]
    assert torch.allclose(before, after, atol=1e-6) == is_causal


@pytest.mark.parametrize(("pool", "expected"), [("last", 30.0), ("mean", 20.0)])
def test_linear_pools_by_hand(pool, expected):
    model = build_temporal("linear", input_dim=1, num_outputs=1, length=4, per_row=False, pool=pool)
    nn.init.ones_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    x, mask = torch.tensor([[[10.0], [20.0], [30.0], [99.0]]]), torch.tensor([[True, True, True, False]])
    assert logits_of(model, x, mask).item() == expected


def test_a_head_starts_as_published():
    """TSM's: normal with a standard deviation of 0.001, bias 0; of 20,000 weights the estimate is within 3 %."""
    sizes = {"input_dim": 2000, "num_outputs": 10, "length": 1, "per_row": False}
    head = build_temporal("linear", **sizes, head_std=0.001).head
    assert head.weight.std().item() == pytest.approx(0.001, rel=0.03)
    assert not head.bias.any()
    assert build_temporal("linear", **sizes).head.bias.any()


def test_gru_equals_torch():
    model, x = build("gru", per_row=True, width=6), rows()
    states, _ = model.rnn(x)
    torch.testing.assert_close(logits_of(model, x, torch.ones(4, LENGTH, dtype=torch.bool)), model.head(states))


def test_padding_in_front_shifts_a_recurrent_result():
    model, x = build("lstm", width=6, bidirectional=True), rows()
    mask = torch.tensor([MASKS["head"]] * 4, dtype=torch.bool)
    torch.testing.assert_close(logits_of(model, x, mask), logits_of(model, x[:, 2:], mask[:, 2:]))


def test_tcn_stages_and_reach():
    model, x = build("ms_tcn", per_row=True, layers=2, width=6, stages=3), rows(num_rows=15)
    mask = torch.ones(4, 15, dtype=torch.bool)
    outputs = model({"rows": x, "mask": mask})
    assert list(outputs) == ["aux.stage1", "aux.stage2", "logits"]
    assert all(logits.shape == (4, 15, OUTPUTS) for logits in outputs.values())
    changed = x.clone()
    changed[:, 7] += 1
    # Dilations 1 and 2 reach 3 rows to either side in the first stage.
    first = model({"rows": changed, "mask": mask})["aux.stage1"]
    differs = (first != outputs["aux.stage1"]).any(dim=-1).any(dim=0)
    assert differs.nonzero().flatten().tolist() == list(range(4, 11))


def test_visibility_by_hand():
    present = torch.tensor([[True, False, True]])
    assert visibility(present, causal=False)[0].int().tolist() == [[1, 0, 1], [1, 1, 1], [1, 0, 1]]
    assert visibility(present, causal=True)[0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]


def test_sinusoidal_positions_by_hand():
    # Vaswani et al. 2017, section 3.5: column 2i is sin(t / 10000^(2i/width)), column 2i+1 the cosine.
    found = sinusoidal_positions(3, width=4, like=torch.zeros(1))
    expected = [[math.sin(t), math.cos(t), math.sin(t / 100), math.cos(t / 100)] for t in range(3)]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert sinusoidal_positions(3, width=5, like=torch.zeros(1)).shape == (3, 5)


def test_positions_tell_the_order_of_rows():
    mask = torch.ones(4, LENGTH, dtype=torch.bool)
    for positions in ("learned", "sinusoidal"):
        model, x = build("transformer", layers=1, pool="mean", positions=positions), rows()
        assert not torch.allclose(logits_of(model, x, mask), logits_of(model, x.flip(1), mask), atol=1e-6), positions


def test_too_long_windows():
    x, mask = rows(num_rows=LENGTH + 1), torch.ones(4, LENGTH + 1, dtype=torch.bool)
    assert logits_of(build("transformer", positions="sinusoidal"), x, mask).shape == (4, OUTPUTS)
    with pytest.raises(ValueError, match=r"window has 8 rows, but positions were learned for 7"):
        logits_of(build("transformer"), x, mask)
    with pytest.raises(ValueError, match=r"window has 8 rows, but this mlp was built for 7"):
        logits_of(build("mlp"), x, mask)


REFUSED = [
    ("name", "transfomer", {}, r"'transfomer'; allowed: linear, mlp, .*did you mean 'transformer'"),
    ("option", "gru", {"widht": 3}, r"option of gru 'widht'; allowed: layers, width, .*did you mean 'width'"),
    ("foreign option", "linear", {"layers": 3}, r"option of linear 'layers'; allowed: norm, pool"),
    ("pool", "gru", {"pool": "cls"}, r"pool is 'cls'; allowed: mean, last"),
    ("pool per row", "gru", {"pool": "mean", "per_row": True}, r"per-row model pools nothing"),
    ("mlp per row", "mlp", {"per_row": True}, r"mlp .* gives no logits per row"),
    ("heads", "transformer", {"heads": 3}, r"width 8 does not divide into 3 heads"),
    ("positions", "transformer", {"positions": "rotary"}, r"positions is 'rotary'; allowed: learned, sinusoidal"),
    ("layers", "ms_tcn", {"layers": 0}, r"layers is 0; it must be at least 1"),
    ("dropout", "lstm", {"dropout": 1.0}, r"dropout is 1.0; it must be at least 0 and below 1"),
    ("mlp dropout", "mlp", {"dropout": -0.1}, r"dropout is -0.1"),
    ("head", "linear", {"head_std": 0.0}, r"head_std is 0.0; it must be above 0"),
    ("length", "linear", {"length": 0}, r"length is 0; it must be at least 1"),
]


@pytest.mark.parametrize(("name", "options", "message"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_options_without_effect_are_built_as_runs_of_earlier_releases_have_them():
    """Pipeline files are refused where they give them; weights that were trained so stay of use."""
    build("storm_transformer", attention="full", projected=8)
    build("attention_branch", branch=False, time="convolutional")


@pytest.mark.parametrize("num_classes", [3, 5])
@pytest.mark.parametrize(
    ("name", "options"), [("ms_tcn", {"stages": 2, "layers": 2}), ("attention_branch", {"width": 8})]
)
def test_what_is_of_other_classes_starts_anew(name, options, num_classes):
    """Heads that are convolutions, and layers that read what these say; the rest is taken."""

    def build(num_outputs):
        return build_temporal(name, input_dim=6, num_outputs=num_outputs, length=4, per_row=False, **options)

    source, model = build(3), build(num_classes)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = start_from(model, source.state_dict(), replace_heads=True, keep_heads=False)
    after = model.state_dict()
    assert set(report.matched) | set(report.replaced) == set(after)
    layers = ("stages.0.leave", "stages.1.enter", "stages.1.leave", "branch.evidence", "branch.classes", "head")
    assert {key for key in after if key.startswith(layers)} <= set(report.replaced)
    assert all(torch.equal(after[key], before[key]) for key in report.replaced)
    assert all(torch.equal(after[key], source.state_dict()[key]) for key in report.matched)
    if num_classes == 3:
        assert not start_from(build(3), source.state_dict(), replace_heads=False, keep_heads=False).replaced
    else:
        assert start_from(build(5), source.state_dict(), replace_heads=False, keep_heads=False) == report
        with pytest.raises(ValueError, match="another shape"):
            start_from(build(5), source.state_dict(), replace_heads=False, keep_heads=True)
