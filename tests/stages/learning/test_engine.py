"""What a training can be asked for besides learning: means of weights, checkpoints, limits, starts, profiles."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from reelwright.models.blocks.activation_checkpointing import recompute_blocks
from reelwright.models.blocks.ema import ModelEma
from reelwright.models.blocks.init_from import resize_positions, start_from
from reelwright.models.encoders.build import build_encoder
from reelwright.models.temporal.build import build_temporal
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import InputRef
from reelwright.stages.fit.loop.progress import TIMINGS
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.work import run
from reelwright.storage.errors import ConfigError, InputError, Interrupted, StageError, StoreError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import Annotation

from .test_optimizers import VECTORS

STILL = {"name": "constant", "warmup_epochs": 0}
TRANSFORMER = {"name": "transformer", "layers": 2, "width": 16}


def _work(toy, **config):
    """A train node of few, large batches and the fastest model."""
    return toy.train_work(**{"model": {"name": "linear"}, "batch_size": 128, **config})


def _folder(toy, key="run"):
    return RunFolder(toy.store.run(key))


def _lines(toy, key):
    return [
        {name: value for name, value in line.items() if name not in TIMINGS} for line in _folder(toy, key).metrics()
    ]


def _same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_mean_of_weights_by_hand():
    module = nn.BatchNorm1d(1)
    mean = ModelEma(module, decay=0.5, warmup=False)
    for value in (3.0, 5.0):
        with torch.no_grad():
            module.weight.fill_(value)
        module.num_batches_tracked += 1
        mean.update(module)
    assert mean.state["weight"].item() == 3.5  # 1 -> (1 + 3) / 2 = 2 -> (2 + 5) / 2
    assert mean.state["num_batches_tracked"].item() == 2
    with mean.in_place_of(module):
        assert module.weight.item() == 3.5
    assert module.weight.item() == 5.0


def test_the_mean_warms_up():
    mean = ModelEma(nn.Linear(1, 1), decay=0.5, warmup=True)
    assert [mean.decay_at(update) for update in (1, 2, 20)] == [2 / 11, 3 / 12, 0.5]


def test_the_mean_is_what_is_evaluated_and_kept(pulse_toy):
    run(_work(pulse_toy, key="plain", epochs=3), pulse_toy.reporter)
    outputs = run(_work(pulse_toy, epochs=3, ema={"decay": 0.9}, keep_every=1), pulse_toy.reporter)
    plain, mean = _lines(pulse_toy, "plain"), _lines(pulse_toy, "run")
    assert [line["train_loss"] for line in mean] == [line["train_loss"] for line in plain]  # training is untouched
    assert [line["val_loss"] for line in mean] != [line["val_loss"] for line in plain]
    folder = _folder(pulse_toy)
    best = load_file(folder.kept(outputs["metrics"]["epoch"]))
    assert _same(load_file(folder.weights), best)
    last = {path.name.split("-")[0]: load_file(path) for path in folder.last.glob("*.safetensors")}
    assert _same(last["mean"], load_file(folder.kept(3)))
    assert not _same(last["weights"], last["mean"])


@pytest.mark.parametrize("windows", [100, pytest.param(391, marks=pytest.mark.slow)])
def test_an_interrupted_mean_goes_on_exactly(pulse_toy, windows):
    settings = {"ema": {"decay": 0.99}, "batch_size": 32, "model": {"name": "mlp", "hidden": 8}}
    run(_work(pulse_toy, key="whole", **settings), pulse_toy.reporter)

    class Stop(type(pulse_toy.reporter)):
        def advance(self, amount):
            super().advance(amount)
            if self.advanced >= windows:
                signal_me()

    with pytest.raises(Interrupted):
        run(_work(pulse_toy, **settings), Stop())
    run(_work(pulse_toy, **settings), pulse_toy.reporter)
    assert _lines(pulse_toy, "run") == _lines(pulse_toy, "whole")
    assert _same(load_file(_folder(pulse_toy).weights), load_file(_folder(pulse_toy, "whole").weights))


def signal_me():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGTERM)


def test_weights_that_stay(pulse_toy):
    run(_work(pulse_toy, epochs=5, keep_every=2), pulse_toy.reporter)
    names = sorted(path.name for path in (_folder(pulse_toy).path / "checkpoints").glob("*.safetensors"))
    assert names[1:] == ["epoch-2.safetensors", "epoch-4.safetensors"]
    assert names[0].startswith("best-")


def test_a_time_limit_is_an_interruption(pulse_toy):
    work = _work(pulse_toy, epochs=3)
    run(replace(work, key="whole"), pulse_toy.reporter)
    limited = replace(work, config={**work.config, "max_minutes": 1e-9})
    for update in (1, 2):
        with pytest.raises(Interrupted, match=rf"the time limit is reached after update {update} \(epoch 1\)"):
            run(limited, pulse_toy.reporter)
    run(work, pulse_toy.reporter)
    assert _lines(pulse_toy, "run") == _lines(pulse_toy, "whole")


def test_deterministic_training_gives_the_same_weights_with_any_threads(pulse_toy, threads):
    config = {"model": {"name": "ms_tcn", "layers": 2, "width": 32}, "epochs": 2, "deterministic": True}
    found = []
    for number in (1, 4):
        threads(number)
        run(pulse_toy.train_work(key=f"with {number}", **config), pulse_toy.reporter)
        found.append(RunFolder(pulse_toy.store.run(f"with {number}")).weights_digest())
        assert torch.get_num_threads() == number
    assert found[0] == found[1]


def test_resume_false_begins_anew(pulse_toy):
    work = _work(pulse_toy)
    limited = replace(work, config={**work.config, "max_minutes": 1e-9})
    with pytest.raises(Interrupted):
        run(limited, pulse_toy.reporter)
    run(replace(work, config={**work.config, "resume": False}), pulse_toy.reporter)
    assert not any("goes on" in note for note in pulse_toy.reporter.notes)


def test_throughput_and_memory_are_told(pulse_toy):
    run(_work(pulse_toy), pulse_toy.reporter)
    line = _folder(pulse_toy).metrics()[-1]
    assert line["items_per_second"] > line["updates_per_second"] > 0
    assert line["peak_memory_bytes"] > 1 << 20
    assert any("items/s" in note and "MiB" in note for note in pulse_toy.reporter.notes)


def test_the_scaling_rule_is_told_and_followed(pulse_toy):
    run(
        _work(pulse_toy, optimizer={"lr": 0.1, "lr_base_batch": 512, "accumulate": 2}, schedule=STILL),
        pulse_toy.reporter,
    )
    assert "learning rate 0.1 x 256 / 512 = 0.05; 256 windows an update" in pulse_toy.reporter.notes
    assert {line["lr"] for line in _folder(pulse_toy).metrics()} == {0.05}


def test_a_profile_says_where_the_time_goes(pulse_toy):
    run(_work(pulse_toy, profile=True), pulse_toy.reporter)
    table = _folder(pulse_toy).profile.read_text()
    assert [line.split()[0] for line in table.splitlines()[:8]] == [
        "part", "data", "forward", "backward", "communication", "optimizer", "other", "all",
    ]  # fmt: skip
    assert any("where a step's time goes" in note for note in pulse_toy.reporter.notes)


def test_what_waits_for_a_validation_that_there_is_not_is_said_to_be_of_no_effect(pulse_toy):
    run(_work(pulse_toy, val_splits=[]), pulse_toy.reporter)
    assert not [note for note in pulse_toy.reporter.notes if "of no effect" in note]
    run(_work(pulse_toy, key="waits", val_splits=[], early_stop={"patience": 1}), pulse_toy.reporter)
    assert any(note.startswith("warning: early_stop of no effect: there is") for note in pulse_toy.reporter.notes)
    assert len(_folder(pulse_toy, "waits").metrics()) == 2


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_loggers_that_are_not_installed_are_told_before_training(pulse_toy, name):
    if __import__("importlib").util.find_spec(name):
        run(_work(pulse_toy, log_to=[name]), pulse_toy.reporter)
        return
    with pytest.raises(ConfigError, match=rf"log_to: {name} is not installed. `pip install reelwright\[{name}\]`"):
        run(_work(pulse_toy, log_to=[name]), pulse_toy.reporter)
    assert not _folder(pulse_toy).path.exists()


def test_drop_last(pulse_toy):
    run(_work(pulse_toy, drop_last=True, batch_size=50, schedule={"warmup_epochs": 0}), pulse_toy.reporter)
    assert [line["update"] for line in _folder(pulse_toy).metrics()] == [6, 12]  # 327 windows
    with pytest.raises(StageError, match="drop_last leaves no batch: 999 windows make one"):
        run(_work(pulse_toy, key="none", drop_last=True, batch_size=999), pulse_toy.reporter)


@pytest.mark.slow
def test_a_weight_decay_that_grows_changes_the_run(pulse_toy):
    run(_work(pulse_toy, optimizer={"lr": 0.1}), pulse_toy.reporter)
    run(_work(pulse_toy, key="grows", optimizer={"lr": 0.1, "weight_decay_end": 5.0}), pulse_toy.reporter)
    norms = [
        sum(float(value.square().sum()) for value in load_file(_folder(pulse_toy, key).weights).values())
        for key in ("run", "grows")
    ]
    assert norms[1] < norms[0]


@pytest.mark.slow
def test_computing_blocks_again_changes_nothing(pulse_toy):
    run(_work(pulse_toy, model=TRANSFORMER), pulse_toy.reporter)
    run(_work(pulse_toy, key="again", model=TRANSFORMER, gradient_checkpointing=True), pulse_toy.reporter)
    assert _same(load_file(_folder(pulse_toy).weights), load_file(_folder(pulse_toy, "again").weights))
    model = build_temporal("transformer", input_dim=6, num_outputs=2, length=5, per_row=False, layers=3, width=8)
    assert recompute_blocks(model) == 3


def test_every_stage_of_a_run_is_learned_and_its_losses_are_logged(pulse_toy):
    model = {"name": "ms_tcn", "stages": 2, "layers": 2, "width": 8}
    run(_work(pulse_toy, task="per_row", model=model, epochs=2), pulse_toy.reporter)
    names = ("stage1", "stage2", "smoothing")
    for line in _lines(pulse_toy, "run"):
        for split in ("train", "val"):
            parts = [line[f"{split}_loss_{name}"] for name in names]
            assert sum(parts) == pytest.approx(line[f"{split}_loss"], rel=1e-4)
            assert min(parts) > 0


@pytest.mark.slow
def test_a_compiled_run_has_the_same_parameters_and_losses(pulse_toy):
    settings = {"model": {"name": "mlp", "hidden": 8, "dropout": 0.0}, "batch_size": 109}  # 3 whole batches, and val
    run(_work(pulse_toy, **settings), pulse_toy.reporter)
    run(_work(pulse_toy, key="fast", compile=True, **settings), pulse_toy.reporter)
    plain, fast = (load_file(_folder(pulse_toy, key).weights) for key in ("run", "fast"))
    assert plain.keys() == fast.keys()
    for a, b in zip(_lines(pulse_toy, "run"), _lines(pulse_toy, "fast"), strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-3)


def _started(toy, source, **config):
    """A train node that starts from the run of another one."""
    work = _work(toy, key="second", init_from="first", **config)
    return replace(work, inputs={**work.inputs, "init_from": (InputRef(node="first", stage="train", key=source),)})


def test_init_from_a_run_takes_its_weights_and_tells(pulse_toy):
    run(_work(pulse_toy, model=TRANSFORMER), pulse_toy.reporter)
    work = _started(
        pulse_toy, "run", model=TRANSFORMER, optimizer={"lr": 1e-12, "weight_decay": 0}, window={"length": 12}
    )
    run(work, pulse_toy.reporter)
    first, second = (load_file(_folder(pulse_toy, key).weights) for key in ("run", "second"))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=1e-6, rtol=0)
    report = json.loads(_folder(pulse_toy, "second").init_report.read_text())
    assert len(report["matched"]) == len(first)
    assert any(note.startswith("init_from run first: ") and "matched" in note for note in pulse_toy.reporter.notes)


@pytest.mark.slow
def test_init_from_resizes_positions_and_replaces_other_heads(pulse_toy):
    run(_work(pulse_toy, model=TRANSFORMER), pulse_toy.reporter)
    work = _started(pulse_toy, "run", model=TRANSFORMER, window={"length": 20})
    payload = {**work.payload, "classes": ["quiet", "pulse", "bang"]}
    run(replace(work, payload=payload), pulse_toy.reporter)
    report = json.loads(_folder(pulse_toy, "second").init_report.read_text())
    assert report["resized"] == ["positions_TW (12, 16) -> (20, 16)"]
    assert report["replaced"] == ["head.weight", "head.bias"]
    assert report["new"] == report["unused"] == []


def test_other_classes_of_the_same_number_are_another_head(pulse_toy):
    run(_work(pulse_toy), pulse_toy.reporter)
    work = _started(pulse_toy, "run")
    payload = {**work.payload, "classes": ["loud", "silent"]}
    run(replace(work, payload=payload), pulse_toy.reporter)
    assert json.loads(_folder(pulse_toy, "second").init_report.read_text())["replaced"]
    kept = replace(work, key="kept", config={**work.config, "init_head": "keep"}, payload=payload)
    run(kept, pulse_toy.reporter)
    assert not json.loads(_folder(pulse_toy, "kept").init_report.read_text())["replaced"]


def test_init_from_a_file(pulse_toy, tmp_path):
    run(_work(pulse_toy), pulse_toy.reporter)
    state = {f"module.{name}": value for name, value in load_file(_folder(pulse_toy).weights).items()}
    state["module.extra"] = torch.zeros(2)
    file = tmp_path / "weights.safetensors"
    save_file(state, file)
    run(_work(pulse_toy, key="second", init_from=str(file)), pulse_toy.reporter)
    assert json.loads(_folder(pulse_toy, "second").init_report.read_text())["unused"] == ["extra"]


def test_a_file_enters_the_key_as_a_source_and_a_node_as_an_input():
    def config(name):
        return parse_config(TrainConfig, {"embeddings": ["e"], "init_from": name}, where="train")

    assert config("first").inputs()["init_from"] == ["first"]
    assert config("first").sources() == {}
    assert config("a/w.pt").inputs()["init_from"] == []
    assert config("a/w.pt").sources() == {"init_from": "a/w.pt"}
    assert config("first").spec() == config("a/w.pt").spec()


OTHERS = {
    "another model": ({"model": {"name": "ms_tcn"}}, "these are the weights of another model"),
    "another width": ({"model": TRANSFORMER | {"width": 8}}, r"tensors have another shape: .*Give the model settings"),
}


@pytest.mark.parametrize(("config", "message"), OTHERS.values(), ids=OTHERS)
def test_init_from_another_model_is_refused(pulse_toy, config, message):
    run(_work(pulse_toy, model=TRANSFORMER), pulse_toy.reporter)
    with pytest.raises(InputError, match=message):
        run(_started(pulse_toy, "run", **config), pulse_toy.reporter)
    with pytest.raises(InputError, match="there is no such file"):
        run(_work(pulse_toy, key="third", init_from="no/such.pt"), pulse_toy.reporter)


def test_positions_are_resized_as_in_videomae():
    small, large = (torch.tensor(values) for values in VECTORS["cast_positions"])
    frame = resize_positions(small[None, :4], torch.Size([1, 9, 2]))
    torch.testing.assert_close(frame[0], large[:9], atol=1e-5, rtol=0)
    with_class = torch.cat([torch.full((1, 1, 2), 7.0), small[None, :4]], dim=1)
    moved = resize_positions(with_class, torch.Size([1, 10, 2]))
    assert moved[0, 0].tolist() == [7.0, 7.0]
    torch.testing.assert_close(moved[:, 1:], frame)
    with pytest.raises(ValueError, match="the features differ"):
        resize_positions(with_class, torch.Size([1, 10, 3]))
    assert resize_positions(with_class, torch.Size([1, 9, 2]), grid=(4, 2)).shape == (1, 9, 2)
    for none, number in ((with_class, 9), (torch.zeros(1, 8, 2), 12)):
        with pytest.raises(ValueError, match="no square grids"):
            resize_positions(none, torch.Size([1, number, 2]))


def test_positions_are_resized_to_the_grid_that_a_transformer_has():
    """8 x 2 places would be a square number too."""
    square, tall = (
        build_encoder("timm/vit_tiny_patch16_224", model_args={"img_size": size, "depth": 1}).model
        for size in (48, (128, 32))
    )
    start_from(tall, square.state_dict(), replace_heads=False, keep_heads=False)
    grid = square.pos_embed.detach()[:, 1:].reshape(1, 3, 3, -1).permute(0, 3, 1, 2)
    wanted = nn.functional.interpolate(grid, size=(8, 2), mode="bicubic").flatten(2).mT
    torch.testing.assert_close(tall.pos_embed.detach()[:, 1:], wanted)


def test_a_start_that_cannot_be_leaves_the_module_as_it_was():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = {"0.weight": torch.zeros(4, 9), "1.weight": torch.zeros(2, 4)}
    with pytest.raises(ValueError, match=r"0.weight \(model \(4, 3\), source \(4, 9\)\)"):
        start_from(module, state, replace_heads=False, keep_heads=False)
    assert _same(dict(module.state_dict()), before)


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(pulse_toy):
    """A real limit on the size of files, as a quota or a full disk gives it."""
    settings = {"model": {"name": "mlp", "hidden": 600}, "epochs": 2}  # 170 kB of weights
    work = _work(pulse_toy, **settings)
    limited = replace(work, config={**work.config, "max_minutes": 1e-9})
    with pytest.raises(Interrupted):
        run(limited, pulse_toy.reporter)
    before = {path.name: path.read_bytes() for path in _folder(pulse_toy).last.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot be written \(.*\); the one before is intact. Make room"):
            run(work, pulse_toy.reporter)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in _folder(pulse_toy).last.iterdir()} == before
    run(work, pulse_toy.reporter)
    assert _folder(pulse_toy).is_complete


def test_a_bad_row_stops_the_run_with_its_name(pulse_toy):
    rows = np.zeros((20, 6), np.float32)
    rows[7, 2] = np.nan
    pulse_toy.write("emb", "bad", rows)
    pulse_toy.add("bad", "train", Annotation(label=0), video_id="broken.mp4")
    with pytest.raises(InputError, match=r"video 'broken.mp4': row 7 of its embeddings .*Run embed again for it"):
        run(_work(pulse_toy), pulse_toy.reporter)


def test_a_loss_that_runs_away_is_told_with_its_inputs(pulse_toy):
    with pytest.raises(
        StageError, match=r"largest gradients: .*; the inputs are finite: video 'name of d\d' rows \d+-\d+"
    ):
        run(
            _work(
                pulse_toy,
                model={"name": "mlp"},
                epochs=9,
                optimizer={"name": "momentum", "lr": 1e30, "clip_norm": None},
                schedule={"warmup_epochs": 0},
            ),
            pulse_toy.reporter,
        )


TOO_MUCH = {
    "long": (
        {"length": 200},
        r"over 200 rows \(length 200, dilation 1\).*longest video has 120.*window.length to at most 120",
    ),
    "dilation": (
        {"length": 25, "dilation": 10},
        r"over 241 rows .*Set window.length to at most 12, or lessen window.dilation",
    ),
    "drawn": ({"length": 121, "sampling": "random"}, "Every window would be padded"),
    "left out": ({"length": 200, "pad": False}, "Shorten window.length, or set window.short: pad"),
}


@pytest.mark.parametrize(("window", "message"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_windows_longer_than_every_video_are_refused(pulse_toy, window, message):
    with pytest.raises(InputError, match=f"train: .*{message}"):
        run(_work(pulse_toy, window=window, model={"name": "linear"}), pulse_toy.reporter)


@pytest.mark.parametrize("window", [{"length": 12, "dilation": 10}, {"length": 200, "short": "repeat"}])
def test_a_window_as_long_as_the_longest_video_is_not_nor_one_that_repeats(pulse_toy, window):
    run(_work(pulse_toy, window=window, model={"name": "linear"}, epochs=1), pulse_toy.reporter)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": {"class_weights": "balanced"}}, "train: loss.class_weights: balanced makes all classes count alike"),
        ({"window": {"length": 12, "sampling": "balanced"}}, "train: window.sampling: balanced makes all"),
        (
            {"window": {"length": 12, "sampling": "balanced"}, "task": "multi_label"},
            "no training window has the classes bang. Annotate some, take these classes out, or do without",
        ),
    ],
    ids=["weights", "sampling", "multi_label"],
)
def test_a_class_without_samples_cannot_be_balanced(pulse_toy, settings, message):
    work = _work(pulse_toy, **settings)
    with pytest.raises(InputError, match=message):
        run(replace(work, payload={**work.payload, "classes": ["quiet", "pulse", "bang"]}), pulse_toy.reporter)
    assert not RunFolder(pulse_toy.store.run(work.key)).metrics()


def test_a_checkpoint_of_another_model_is_refused_by_the_stage_and_stays(pulse_toy):
    """As after a hand that moved folders about: the key says so, and where it does not, the names and shapes do."""

    class Stop(type(pulse_toy.reporter)):
        def advance(self, amount):
            super().advance(amount)
            if self.advanced >= 100:
                os.kill(os.getpid(), signal.SIGTERM)

    other = {"model": {"name": "mlp"}}
    for key, settings in (("one", {}), ("two", other)):
        with pytest.raises(Interrupted):
            run(_work(pulse_toy, key=key, **settings), Stop())
    one, two = (RunFolder(pulse_toy.store.run(key)).last for key in ("one", "two"))
    shutil.rmtree(two)
    shutil.copytree(one, two)
    before = {path.name: path.read_bytes() for path in two.iterdir()}
    with pytest.raises(StoreError, match=r"is of run one, not of two\. Remove it to train from the beginning"):
        run(_work(pulse_toy, key="two", **other), pulse_toy.reporter)
    state = torch.load(two / "state.pt", weights_only=True)
    torch.save({**state, "key": "two"}, two / "state.pt")
    with pytest.raises(StageError, match=r"holds the weights of another model: \d+ tensors differ.*Train with --force"):
        run(_work(pulse_toy, key="two", **other), pulse_toy.reporter)
    after = {path.name: path.read_bytes() for path in two.iterdir() if path.name != "state.pt"}
    assert after == {name: content for name, content in before.items() if name != "state.pt"}
