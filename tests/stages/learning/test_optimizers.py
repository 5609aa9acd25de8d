"""Optimizers, parameter groups and rates; the recipes of five systems, as settings, give their own numbers."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from timm.optim import list_optimizers
from torch import nn

from reelwright.models.blocks.layer_ids import layer_ids, layer_scales
from reelwright.models.contracts import VideoModel, model_layers
from reelwright.models.encoders.build import build_encoder
from reelwright.models.systems.joint import JointModel
from reelwright.models.temporal.build import build_temporal
from reelwright.stages.base.config import parse_config
from reelwright.stages.fit.optim.build import (
    build_decay_schedule,
    build_lr_schedule,
    build_optimizer,
    freeze_groups,
    parameter_groups,
    scaled_lr,
    set_rates,
)
from reelwright.stages.fit.optim.config import GroupSettings, OptimizerSettings, ScheduleSettings
from reelwright.stages.fit.optim.names import OPTIONS, UNFIT
from reelwright.stages.train.config import TrainConfig
from reelwright.storage.errors import ConfigError
from tests.models.calling import Modules

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "training_schedules.json").read_text())
TABLED = {
    "cosine_restart": {"name": "cosine_restarts", "per": "epoch", "warmup_start": 0.1},
    "cyclic": {"name": "cyclic", "per": "epoch", "min_factor": 0.01, "gamma": 0.975},
}


def _rates(settings, *, lr, epochs, updates_per_epoch=1, count=None):
    schedule = build_lr_schedule(ScheduleSettings(**settings), epochs=epochs, updates_per_epoch=updates_per_epoch)
    return [lr * schedule(update) for update in range(count or epochs * updates_per_epoch)]


@pytest.mark.parametrize("case", VECTORS["storm"], ids=lambda case: f"{case['kind']}-{case['warmup']}-{case['T_0']}")
def test_storm_psr(case):
    expected = next(value for name, value in case.items() if name.startswith("lr_at"))
    is_cyclic = case["kind"] == "cyclic"  # which ignores the warm-up
    settings = {
        **TABLED[case["kind"]],
        "period_epochs": case["lr_step"] if is_cyclic else case["T_0"],
        "warmup_epochs": 0 if is_cyclic else case["warmup"],
    }
    assert _rates(settings, lr=case["lr"], epochs=len(expected)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [24])
def test_storm_psr_counts_iterations_when_it_fine_tunes(count):
    settings = {"name": "cosine_restarts", "warmup_start": 0.1, "warmup_updates": 3, "period_updates": 5}
    expected = VECTORS["storm"][0]["lr_at_step_0_to_23"]
    assert _rates(settings, lr=1e-3, epochs=3, updates_per_epoch=8, count=count) == pytest.approx(expected)


CAST = {"name": "cosine", "warmup_start": 0, "warmup_inclusive": True, "min_factor": 1e-3, "warmup_epochs": 1}


@pytest.mark.parametrize(("case", "more"), [(0, {}), (1, {"warmup_updates": 5})], ids=["epochs", "updates"])
def test_cast(case, more):
    expected = VECTORS["cast"][case]["values"]
    assert _rates({**CAST, **more}, lr=1e-3, epochs=4, updates_per_epoch=3) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("case", "end"), [(2, 0.05), (3, 0.2)])
def test_weight_decay_of_cast(case, end):
    optimizer = OptimizerSettings(weight_decay=0.05, weight_decay_end=end)
    schedule = build_decay_schedule(optimizer, ScheduleSettings(), epochs=2, updates_per_epoch=2)
    found = [0.05 * schedule(update) for update in range(4)]
    assert found == pytest.approx(VECTORS["cast"][case]["values"], abs=1e-9)


FRACTAL = {"warmup_epochs": 2, "warmup_start": 1e-6 / 8e-4, "lag": 1}
FRACTALS = {
    "cosine": {"name": "cosine", "min_factor": 1e-5 / 8e-4, "warmup_overlaps": True},
    "linear": {"name": "polynomial", "min_factor": 0.01},
    "step": {"name": "step", "period_epochs": 1},
}


@pytest.mark.parametrize("name", FRACTALS)
def test_fractal_video(name):
    expected = VECTORS["fractal"][name]
    found = _rates({**FRACTAL, **FRACTALS[name]}, lr=8e-4, epochs=5, updates_per_epoch=4, count=len(expected))
    assert found == pytest.approx(expected, rel=1e-8)


def test_the_sane_form_neither_jumps_nor_lags():
    found = _rates({"warmup_epochs": 2, "warmup_start": 0.1}, lr=1.0, epochs=5, updates_per_epoch=4)
    assert found[8] == 1.0 == max(found)
    assert max(abs(a - b) for a, b in pairwise(found)) < 0.14


def test_st_abn():
    found = _rates({"name": "multi_step", "milestones_epochs": [75, 125], "warmup_epochs": 0}, lr=0.01, epochs=150)
    for epoch, rate in VECTORS["stabn"]["epoch->lr"].items():
        assert found[int(epoch)] == pytest.approx(rate)


def test_milestones_count_from_the_first_epoch_warm_up_included():
    found = _rates({"name": "multi_step", "milestones_epochs": [3], "warmup_epochs": 2}, lr=1.0, epochs=4)
    assert found == pytest.approx([0.01, 0.505, 1.0, 0.1])


CARL = {"cosine": {"name": "cosine", "warmup_epochs": 0}, "fixed": {"name": "constant", "warmup_epochs": 0}}


@pytest.mark.parametrize("case", VECTORS["carl"], ids=lambda case: f"{case['decay']}-{case['warmup_steps']}")
def test_carl(case):
    warm = {
        "name": "cosine",
        "warmup_inclusive": True,
        "warmup_epochs": case["warmup_steps"],
        "warmup_start": case["warmup_lr"] / 1e-4,
    }
    settings = {**CARL.get(case["decay"], warm), "per": "epoch", "decay_epochs": case["epochs"] + 1}
    found = _rates(settings, lr=1e-4, epochs=case["epochs"], updates_per_epoch=3)
    assert found[::3] == found[1::3] == found[2::3]
    assert found[::3] == pytest.approx(case["lr_per_epoch"])


@pytest.mark.parametrize("case", VECTORS["cast_lr_scaling"], ids=lambda case: f"{case['bs']}x{case['world']}")
def test_the_linear_scaling_rule(case):
    settings = OptimizerSettings(lr=case["base"], lr_base_batch=256, accumulate=case["update_freq"])
    lr, line = scaled_lr(settings, batch_size=case["bs"] * case["world"])
    assert lr == pytest.approx(case["lr"])
    assert f"/ 256 = {lr:g}" in line


SLIPS = {
    "name": ({"name": "adamv"}, "'adamv' is not known. Did you mean 'adam'"),
    "option": ({"betaz": [0.9, 0.99]}, "'betaz' is no option of adamw. Did you mean 'betas'"),
    "field": ({"wieght_decay": 0.1}, "Did you mean 'weight_decay'"),
    "of another": ({"name": "lion", "nesterov": True}, "'nesterov' is no option of lion"),
    "momentum": ({"momentum": 0.5}, "momentum is no option of adamw"),
    "second order": ({"name": "adahessian"}, "needs second derivatives"),
    "decay": ({"weight_decay": 0, "weight_decay_end": 0.1}, "weight_decay_end needs a weight_decay above 0"),
    "group": ({"groups": [{"match": "*", "lr": 1}]}, "groups.0.lr: unknown key"),
}


@pytest.mark.parametrize(("settings", "message"), SLIPS.values(), ids=SLIPS)
def test_slips_are_told_before_anything_runs(settings, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(TrainConfig, {"embeddings": ["e"], "optimizer": settings}, where="train")


SCHEDULE_SLIPS = {
    "milestones": ({"name": "multi_step"}, "milestones_epochs and name: multi_step belong together"),
    "milestones of another": ({"milestones_epochs": [3]}, "belong together"),
    "updates per epoch": ({"per": "epoch", "warmup_updates": 3}, "give them in epochs"),
    "half a warm-up": ({"per": "epoch", "warmup_epochs": 0.5}, "warmup_epochs has parts of an epoch, but per is epoch"),
    "half a period": ({"per": "epoch", "name": "step", "period_epochs": 2.5}, "period_epochs has parts of an epoch"),
    "half an end": ({"per": "epoch", "decay_epochs": 4.5}, "decay_epochs has parts of an epoch"),
    "half a milestone": (
        {"per": "epoch", "name": "multi_step", "milestones_epochs": [2.5]},
        "milestones_epochs has parts of an epoch",
    ),
}


@pytest.mark.parametrize(("settings", "message"), SCHEDULE_SLIPS.values(), ids=SCHEDULE_SLIPS)
def test_schedules_that_contradict_themselves(settings, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(TrainConfig, {"embeddings": ["e"], "schedule": settings}, where="train")


def test_a_warm_up_in_updates_longer_than_the_training_is_refused():
    with pytest.raises(ConfigError, match="warmup_updates is 9, but there are only 8 updates"):
        build_lr_schedule(ScheduleSettings(warmup_updates=9), epochs=4, updates_per_epoch=2)


def test_the_table_of_names_is_timms():
    assert set(list_optimizers()) <= set(OPTIONS) | set(UNFIT)


def _minimum(name, **options):
    """Loss before and after a few updates on a bowl, resumed in the middle."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 1))
    settings = OptimizerSettings(name=name, lr=0.02, **options)
    optimizer = build_optimizer(parameter_groups(module, settings), settings)
    x = torch.randn(32, 4)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = (module(x) - x[:, :1]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    "name", ["adamw", "sgd", "momentum", "adam", "lamb", "adafactor", "lookahead_adamw", "nadam", "rmsprop", "lion"]
)
def test_optimizers_go_downhill(name):
    losses = _minimum(name)
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in OPTIONS if not name.startswith(("fused", "bnb", "kron"))))
def test_every_optimizer_of_timm_goes_downhill(name):
    losses = _minimum(name)
    assert losses[-1] < losses[0]


def test_sgd_is_nesterov_as_in_timm_and_momentum_is_not():
    module = nn.Linear(2, 2)
    made = {name: build_optimizer(parameter_groups(module, settings), settings) for name, settings in (
        ("sgd", OptimizerSettings(name="sgd")),
        ("momentum", OptimizerSettings(name="momentum", momentum=0.8)),
        ("plain", OptimizerSettings(name="sgd", nesterov=False)),
    )}  # fmt: skip
    assert [made[name].defaults["nesterov"] for name in made] == [True, False, False]
    assert [made[name].defaults["momentum"] for name in made] == [0.9, 0.8, 0.9]
    assert all(optimizer.defaults["fused"] for optimizer in made.values())


FUSED = {
    "adamw": {"name": "adamw"},
    "adamw amsgrad": {"name": "adamw", "amsgrad": True},
    "adam": {"name": "adam"},
    "sgd": {"name": "sgd", "lr": 0.05},
    "momentum": {"name": "momentum", "lr": 0.05, "dampening": 0.1},
    "lookahead": {"name": "lookahead_adamw"},
}


@pytest.mark.parametrize("settings", FUSED.values(), ids=FUSED)
def test_fused_and_foreach_steps_are_the_plain_ones(settings):
    """Twelve updates, with weight decay, a group at a slower rate, and a rate that changes: equal but for rounding."""
    found = {}
    for way in ("plain", "fused", "foreach"):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3)).double()
        chosen = OptimizerSettings(
            **{"lr": 0.01, **settings},
            fused=way == "fused",
            groups=[GroupSettings(match="0", lr_scale=0.1)],
        )
        notes = []
        optimizer = build_optimizer(parameter_groups(module, chosen), chosen, note=notes.append)
        for group in optimizer.param_groups:
            assert bool(group.get("fused")) == (way == "fused")
            group["foreach"] = way == "foreach"
        x, y = torch.randn(24, 5, dtype=torch.float64), torch.randn(24, 3, dtype=torch.float64)
        before = [parameter.detach().clone() for parameter in module.parameters()]
        for update in range(12):
            set_rates(optimizer, 1 / (1 + update), None)
            optimizer.zero_grad()
            (module(x) - y).square().mean().backward()
            optimizer.step()
        assert not notes
        assert all((a != b).any() for a, b in zip(before, module.parameters(), strict=True))
        found[way] = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    for way in ("fused", "foreach"):
        torch.testing.assert_close(found[way], found["plain"], rtol=1e-9, atol=1e-12)


def test_a_fused_step_that_torch_does_not_have_is_told(monkeypatch):
    module = nn.Linear(2, 2)

    def message(**values):
        notes = []
        settings = OptimizerSettings(**values)
        optimizer = build_optimizer(parameter_groups(module, settings), settings, note=notes.append)
        return notes, bool(optimizer.defaults.get("fused"))

    assert message(name="lamb", fused=True) == (
        ["optimizer.fused: lamb has none in torch; the plain step is used"], False,
    )  # fmt: skip
    assert message(name="lamb") == ([], False)
    assert message(name="adamw", fused=True) == message(name="adamw") == ([], True)
    assert message(name="adamw", fused=False) == ([], False)
    made = torch.optim.AdamW.__init__

    def older(self, *arguments, fused=None, **options):
        """As torch before it had fused steps for the CPU."""
        if fused:
            raise RuntimeError("`fused=True` requires all the params to be on supported devices: ['cuda']")
        made(self, *arguments, fused=fused, **options)

    monkeypatch.setattr(torch.optim.AdamW, "__init__", older)
    for fused in (True, None):
        (note,), is_fused = message(name="adamw", fused=fused)
        assert note.startswith("optimizer adamw: torch has no fused step here (`fused=True` requires all")
        assert note.endswith("; the plain step is used")
        assert not is_fused
    meta = nn.Linear(2, 2, device="meta")
    settings, notes = OptimizerSettings(fused=True), []
    build_optimizer(parameter_groups(meta, settings), settings, note=notes.append)
    assert notes == ["optimizer.fused: torch has none for meta; the plain step is used"]


def test_options_reach_the_optimizer_and_bad_values_are_told():
    module = nn.Linear(2, 2)
    settings = OptimizerSettings(betas=[0.9, 0.95], eps=1e-6)
    optimizer = build_optimizer(parameter_groups(module, settings), settings)
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.9, 0.95), 1e-6)
    bad = OptimizerSettings(betas=[0.9, 2.0])
    with pytest.raises(ConfigError, match=r"adamw with .* cannot be made: .*beta"):
        build_optimizer(parameter_groups(module, bad), bad)


def _found(module, settings, **more):
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(module, settings, **more)
        for parameter in group["params"]
    }


def test_groups_by_pattern_the_first_that_fits():
    module = Modules({"body": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
    settings = OptimizerSettings(
        lr=1.0,
        weight_decay=0.1,
        groups=[{"match": "head", "lr_scale": 10}, {"match": "*.bias", "weight_decay": 0.5}, {"match": "*.weight"}],
    )
    assert _found(module, settings) == {
        "body.weight": (1.0, 0.1),
        "body.bias": (1.0, 0.5),
        "head.weight": (10.0, 0.1),
        "head.bias": (10.0, 0.0),
    }


def test_frozen_groups():
    module = Modules({"body": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
    freeze_groups(module, [GroupSettings(match="body", frozen=True)], where="train")
    assert set(_found(module, OptimizerSettings())) == {"head.weight", "head.bias"}
    with pytest.raises(ConfigError, match=r"groups\[0\].match: 'bodi' fits no parameter. Did you mean"):
        freeze_groups(module, [GroupSettings(match="bodi")], where="train")
    with pytest.raises(ConfigError, match="nothing is left to learn"):
        freeze_groups(module, [GroupSettings(match="*", lr_scale=0)], where="train")


def test_embeddings_of_positions_and_classes_are_not_decayed():
    vit = build_encoder("timm/test_vit", seed=0)
    temporal = build_temporal("transformer", input_dim=8, num_outputs=2, length=5, per_row=False, layers=1)
    for module in (vit, temporal):
        free = {name for name, (_, decay) in _found(module, OptimizerSettings()).items() if decay == 0}
        several = {name for name, parameter in module.named_parameters() if name in free and parameter.ndim > 1}
        assert {name.rsplit(".")[-1] for name in several} <= {"pos_embed", "cls_token", "positions_TW"}
        assert several


class _Cast(VideoModel):
    """The order of parameters of CAST: embeddings, twelve blocks, norms and heads."""

    def __init__(self):
        super().__init__()
        for name in ("pos_embed", "clip_class_embedding", "clip_positional_embedding"):
            setattr(self, name, nn.Parameter(torch.zeros(1, 2, 3)))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, 4, 1)})
        self.clip_conv1 = nn.Conv2d(3, 4, 1)
        self.clip_ln_pre = nn.LayerNorm(4)
        self.blocks = nn.ModuleList(self._block() for _ in range(12))
        self.clip_ln_post, self.vmae_fc_norm = nn.LayerNorm(4), nn.LayerNorm(4)
        self.noun_last_Adapter = nn.ModuleDict({"D_fc1": nn.Linear(4, 2)})
        self.head, self.head_verb = nn.Linear(4, 2), nn.Linear(4, 3)

    @staticmethod
    def _block():
        block = nn.ModuleDict({
            "S_Adapter": nn.ModuleDict({"D_fc1": nn.Linear(4, 2)}),
            "t2s_cross": nn.Module(),
            "cross_s_up": nn.Linear(2, 4),
        })  # fmt: skip
        block["t2s_cross"].clip_time_pos = nn.Parameter(torch.zeros(2, 3))
        return block


def test_layer_decay_of_cast():
    expected = VECTORS["cast_layer_decay"]
    assert layer_scales(14, 0.75) == pytest.approx(expected["scales_by_layer_id"])
    module = _Cast()
    ids, rates = layer_ids(module), _found(module, OptimizerSettings(lr=1.0, layer_decay=0.75))
    for name, (layer, scale) in expected["name_to_id_scale"].items():
        assert ids[name] == layer
        assert rates[name][0] == pytest.approx(scale)
    assert len(_found(module, OptimizerSettings(lr=1.0, layer_decay=1.0))) == len(rates)


def test_layers_of_encoders_and_temporal_models():
    vit, resnet = build_encoder("timm/test_vit", seed=0), build_encoder("timm/test_resnet", seed=0)
    sizes = {"input_dim": vit.model.num_features, "num_outputs": 2, "length": 5, "per_row": False}
    transformer = build_temporal("transformer", **sizes, layers=2)
    found = layer_ids(transformer)
    names = ("positions_TW", "blocks.0.norm_mlp.bias", "blocks.1.mlp.0.weight", "head.bias")
    assert [found[name] for name in names] == [
        0, 1, 2, 3,
    ]  # fmt: skip
    assert max(layer_ids(resnet.model).values()) == 4
    joint = model_layers(JointModel(vit, transformer))
    assert joint["spatial.model.patch_embed.proj.weight"] == 0
    assert joint["spatial.model.blocks.5.mlp.fc1.weight"] == 6
    assert joint["temporal.positions_TW"] == 7
    assert joint["temporal.head.weight"] == max(joint.values()) == 10


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [("linear", {"norm": True}, 2), ("mlp", {}, 2), ("gru", {"layers": 2}, 3), ("ms_tcn", {"layers": 3}, 4)],
)
def test_layers_of_other_models_end_at_the_head(name, options, layers):
    model = build_temporal(name, input_dim=4, num_outputs=2, length=5, per_row=False, **options)
    ids = layer_ids(model)
    last = [parameter for parameter, _ in model.named_parameters()][-1]
    assert ids[last] == max(ids.values())
    assert len(set(ids.values())) >= layers
