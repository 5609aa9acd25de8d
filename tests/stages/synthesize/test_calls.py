"""Calls as plain data: what another process makes of them is what is made here, and what ends them is told."""

import json
from dataclasses import replace
from pathlib import Path

from reelwright.stages.synthesize.calls import do_calls, plain_arguments, results_of
from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.make import make_class, make_sample
from reelwright.stages.synthesize.samples import Sample

CONFIG = SynthesizeConfig.model_validate({"family": "dead_leaves", "size": 32})
SAMPLE = Sample(step=1, label="a", index=0, stream=7, split="train", name="a/1")


def test_a_sample_of_a_class_file_is_the_same_as_made_here(tmp_path: Path) -> None:
    made = make_class(tmp_path, CONFIG, 1)
    class_file = tmp_path / made.paths[0]
    here = make_sample(tmp_path / "here", CONFIG, SAMPLE, class_file)
    arguments = plain_arguments("sample", (tmp_path / "there", CONFIG, SAMPLE, class_file))
    done = do_calls(json.loads(json.dumps({"kind": "sample", "calls": [arguments], "workers": 1})))
    (there,) = results_of(done)
    assert there is not None
    assert replace(there, seconds=here.seconds) == here
    assert done["seconds"] > 0


def test_a_class_file_that_this_machine_does_not_see_is_named_with_what_to_do(tmp_path: Path) -> None:
    arguments = plain_arguments("sample", (tmp_path, CONFIG, SAMPLE, tmp_path / "elsewhere" / "a.npz"))
    kind, message = do_calls({"kind": "sample", "calls": [arguments], "workers": 1})["error"]
    assert kind == "InputError"
    assert "a.npz is not on " in message
    assert "num_classes" in message
