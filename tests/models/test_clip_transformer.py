"""The temporal encoder of STORM-PSR: sizes and a forward pass of the public code (tests/data/psr_models.json)."""

import math

import pytest
import torch

from reelwright.models.temporal.build import build_temporal
from reelwright.models.temporal.common import TemporalSizes
from reelwright.models.temporal.storm_transformer import StormTransformer, StormTransformerOptions
from tests.models.calling import logits_of
from tests.models.psr import vectors

VECTORS = vectors("models")

# name -> (rows, features, components, options)
SIZES = {
    "temporal-F65-dim128 (IndustReal)": (65, 128, 11, {}),
    "temporal-F65-dim128 (MECCANO)": (65, 128, 17, {}),
    "temporal-F65-dim384": (65, 384, 11, {"head_dim": 384}),
    "temporal-F256-n3h4": (256, 128, 11, {"layers": 3, "heads": 4}),
    "temporal-F16-dim128": (16, 128, 11, {}),
}
BASELINES = {f"no-temporal-F{length}": length for length in (4, 16, 64, 65, 256)}


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


def test_every_size_is_looked_at():
    assert {*SIZES, *BASELINES} == set(VECTORS["model_sizes"])


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_encoders(name):
    length, dim, components, options = SIZES[name]
    with torch.device("meta"):
        model = build_temporal(
            "storm_transformer", input_dim=dim, num_outputs=components, length=length, per_row=False, **options
        )
    given = VECTORS["model_sizes"][name]
    assert count(model.head.parameters()) == given["head_params"]
    assert count(model.parameters()) == given["encoder_params"] + given["head_params"]


@pytest.mark.parametrize("name", BASELINES)
def test_sizes_of_baselines(name):
    with torch.device("meta"):
        model = build_temporal(
            "mlp", input_dim=128, num_outputs=11, length=BASELINES[name], per_row=False, hidden=2048, between="norm"
        )
    assert count(model.parameters()) == VECTORS["model_sizes"][name]["params"]


def tiny(**options):
    values = {"layers": 1, "heads": 2, "head_dim": 2, "mlp_width": 8, "dropout": 0.0}
    sizes = TemporalSizes(input_dim=4, num_outputs=3, length=3, per_row=False)
    return StormTransformer(sizes, StormTransformerOptions(**{**values, **options})).double().eval()


def test_a_forward_pass_of_the_public_code():
    model, given = tiny(), VECTORS["temporal_transformer_forward"]
    block = model.blocks[0]
    ours = [
        *(model.positions_SD, model.cls_D, block.norm_attention.weight, block.norm_attention.bias),
        *(block.attention.to_qkv.weight, block.attention.to_out[0].weight, block.attention.to_out[0].bias),
        *(block.norm_mlp.weight, block.norm_mlp.bias),
        *(block.mlp[0].weight, block.mlp[0].bias, block.mlp[3].weight, block.mlp[3].bias),
    ]
    assert [math.prod(shape) for _, shape in given["named_parameters"]] == [parameter.numel() for parameter in ours]
    with torch.no_grad():
        for number, parameter in enumerate(ours):
            values = 0.3 * torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) + number)
            parameter.copy_(values.reshape(parameter.shape))
        x_BTD = torch.cos(torch.arange(12, dtype=torch.float64)).reshape(1, 3, 4)
        found = model.encode(x_BTD, torch.ones(1, 3, dtype=torch.bool))
    assert found.tolist()[0] == pytest.approx(given["output"][0], abs=1e-12)


def test_neighbours_that_reach_everywhere_are_full_attention():
    torch.manual_seed(0)
    near = tiny(attention="neighbours", neighbours=2, layers=2)
    full = tiny(layers=2)
    full.load_state_dict(near.state_dict())
    x_BTD = torch.randn(4, 3, 4, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1]], dtype=torch.bool)
    real = [near.blocks[0](torch.cat([x_BTD[:, :1], x_BTD], 1), torch.nn.functional.pad(mask, (1, 0), value=True))]
    real.append(full.blocks[0](torch.cat([x_BTD[:, :1], x_BTD], 1), torch.nn.functional.pad(mask, (1, 0), value=True)))
    seen = torch.nn.functional.pad(mask, (1, 0), value=True)
    assert torch.allclose(real[0][seen], real[1][seen])
    assert torch.allclose(logits_of(near, x_BTD, mask), logits_of(full, x_BTD, mask))


def test_neighbours_see_no_further():
    torch.manual_seed(0)
    model = build_temporal(
        "storm_transformer",
        input_dim=4,
        num_outputs=2,
        length=9,
        per_row=True,
        layers=1,
        heads=2,
        head_dim=2,
        mlp_width=4,
        attention="neighbours",
        neighbours=2,
    ).eval()
    x_BTD, mask = torch.randn(1, 9, 4), torch.ones(1, 9, dtype=torch.bool)
    changed = x_BTD.clone()
    changed[0, 4, 0] += 1
    moved = (logits_of(model, x_BTD, mask) != logits_of(model, changed, mask)).any(-1)[0]
    assert moved.tolist() == [False, False, True, True, True, True, True, False, False]


def test_too_long_a_window():
    with pytest.raises(ValueError, match="the window has 4 rows, but positions were learned for 3"):
        logits_of(tiny(), torch.zeros(1, 4, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"attention": "sparse"}, "attention is 'sparse'; allowed: full, neighbours, linformer"),
        ({"pool": "last"}, "pool is 'last'"),
        ({"neighbours": 0}, "neighbours is 0"),
    ],
)
def test_refused(options, match):
    with pytest.raises(ValueError, match=match):
        tiny(**options)
