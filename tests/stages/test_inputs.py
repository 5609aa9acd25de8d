"""Files that settings name are read as their digest in the key says, or the node fails."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from reelwright.stages.base.inputs import unchanged_run, unchanged_sources
from reelwright.stages.base.work import RUN_WEIGHTS, InputRef, Work
from reelwright.stages.embed.encoding.encoder import encoder_of
from reelwright.stages.finetune.module import load_network
from reelwright.stages.fit.init_from import init_weights
from reelwright.stages.predict.config import PredictConfig
from reelwright.stages.predict.work import load_for
from reelwright.stages.train.config import TrainConfig
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import InputError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store


def times_work(path, *, digest):
    return Work(
        node="feats",
        stage="features",
        key="k",
        config={"times": str(path)},
        spec={"inputs": {} if digest is None else {"times": digest}},
        store=str(path.parent / "store"),
        inputs={},
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "times.csv"
    path.write_text("video_id,start_seconds\na,0\n")
    path.with_name("other.csv").write_text("video_id,start_seconds\na,1\n")
    return path


def swap(path):
    other, spare = path.with_name("other.csv"), path.with_name("spare.csv")
    path.rename(spare)
    other.rename(path)
    spare.rename(other)


@pytest.mark.parametrize("is_known", [True, False], ids=["digest in the key", "put together by hand"])
def test_a_file_that_stays_is_read(path, is_known):
    with unchanged_sources(times_work(path, digest=file_digest(path) if is_known else None)):
        assert path.read_text()


def test_a_file_replaced_before_it_is_read(path):
    work = times_work(path, digest=file_digest(path))
    swap(path)
    with (
        pytest.raises(InputError, match=r"times\.csv changed after the plan was made.*run again"),
        unchanged_sources(work),
    ):
        pytest.fail("it must not be read")


@pytest.mark.parametrize("is_same", [True, False])
def test_weights_of_an_input_are_those_of_its_key(path, is_same):
    """The encoder of an embed node that another node reads (experts, spatial)."""
    given = {"frames": "frames", "encoder": "timm/test_vit", "weights": str(path)}
    embed = InputRef(node="space", stage="embed", key="e", config=given, files={"weights": file_digest(path)})
    work = replace(times_work(path, digest=None), config={"fps": 1}, inputs={"experts": (embed,)})
    if is_same:
        with unchanged_sources(work, of=embed):
            assert path.read_text()
        return
    swap(path)
    with pytest.raises(InputError, match=r"times\.csv changed after the plan was made of it.*run again"):
        encoder_of(work, embed)


def read_swapped(work, path):
    with unchanged_sources(work):
        swap(path)
        assert path.read_text().endswith("a,1\n")
        swap(path)


def test_a_file_replaced_and_put_back_while_it_is_read(path):
    work = times_work(path, digest=file_digest(path))
    with pytest.raises(InputError, match=r"times\.csv changed while it was read"):
        read_swapped(work, path)


def test_a_file_that_is_gone(path):
    work = times_work(path, digest=file_digest(path))
    path.unlink()
    with pytest.raises(InputError, match=r"times\.csv cannot be read: No such file"), unchanged_sources(work):
        pytest.fail("it must not be read")


@pytest.mark.parametrize("stage", ["embed", "predict", "finetune", "init_from"])
def test_the_weights_of_a_run_are_those_of_its_key(stage, tmp_path):
    """What lies in its folder may be another file since: none of those that read it takes that."""
    store = Store.at(tmp_path / "store")
    folder = RunFolder(store.run("r"))
    folder.write_config({"stage": "finetune", "node": "r", "classes": ["a"], "model": {"name": "gru"}})
    save_file({"x": torch.zeros(1)}, folder.weights)
    run = InputRef(node="r", stage="finetune", key="r", files={RUN_WEIGHTS: file_digest(folder.weights)})
    with unchanged_run(store, run) as found:
        assert found == folder
    save_file({"x": torch.ones(1)}, folder.weights)

    def work(name, **config):
        given = Work(node="n", stage=name, key="n", config=config, spec={}, store=str(store.root), inputs={})
        return replace(given, inputs=dict.fromkeys(("run", "temporal", "init_from"), (run,)))

    reads = {
        "embed": lambda: encoder_of(work("embed", run="r", frames="f")),
        "predict": lambda: load_for(work("predict", run="r"), PredictConfig(run="r", device="cpu")),
        "finetune": lambda: load_network(run, store=store, plugins={}),
        "init_from": lambda: init_weights(
            torch.nn.Linear(1, 1),
            work("train", embeddings=["e"], init_from="r"),
            TrainConfig(embeddings=["e"], init_from="r"),
            classes=("a",),
        ),
    }
    with pytest.raises(InputError, match=r"model\.safetensors changed after the plan was made of it.*run again"):
        reads[stage]()


@pytest.mark.parametrize("is_known", [True, False], ids=["digest in the key", "put together by hand"])
def test_a_file_to_start_from_is_that_of_the_key(is_known, tmp_path):
    path = tmp_path / "start.safetensors"
    save_file({"weight": torch.zeros(1, 1), "bias": torch.zeros(1)}, path)
    digest = file_digest(path)
    save_file({"weight": torch.ones(1, 1), "bias": torch.zeros(1)}, path)
    config = {"embeddings": ["e"], "init_from": str(path)}
    spec = {"inputs": {"init_from": digest}} if is_known else {}
    work = Work(node="n", stage="train", key="n", config=config, spec=spec, store=str(tmp_path), inputs={})
    start = partial(init_weights, torch.nn.Linear(1, 1), work, TrainConfig(**config), classes=())
    if not is_known:
        assert start()["matched"] == ["weight", "bias"]
        return
    with pytest.raises(InputError, match=r"start\.safetensors changed after the plan was made of it"):
        start()
