"""ST-ABN from frames: its attention is kept with the part of the frame that it saw, and edited."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.stages.base.work import InputRef
from reelwright.stages.finetune.work import run
from reelwright.stages.predict.work import run_items as predict_items
from reelwright.storage.arrays.window_outputs import WindowOutputStore
from reelwright.storage.results.scores import read_scores

from .conftest import Notes

ST_ABN = {
    "frames": "frames",
    "model": {"name": "st_abn", "depth": 18, "dropout": 0.0},
    "task": "majority",
    "window": {"length": 4, "hop": 20, "to_end": False},
    "preprocess": {"size": [32, 48], "resize": 40},
    "epochs": 1,
    "device": "cpu",
}


@pytest.mark.slow
def test_it_is_kept_with_what_the_model_saw_and_edited(footage, tmp_path):
    run(footage.work("finetune", "st_abn", ST_ABN, frames=footage.frames), Notes())
    run_ref = InputRef(node="tune", stage="finetune", key="st_abn", inputs={"frames": (footage.frames,)})
    (tmp_path / "edits.csv").write_text(
        "video_id,weight,how,x0,y0,x1,y1\n0.mp4,0.5,replace,,,,\n0.mp4,0,,0,0,0.5,1\n", encoding="utf-8"
    )
    found, scores = {}, {}
    for key, edits in {"plain": {}, "edited": {"edit_attention": str(tmp_path / "edits.csv")}}.items():
        config = {"run": "tune", "frames": "frames", "device": "cpu", "keep": ["attention"], "window": {"hop": 7}}
        work = footage.work("predict", key, {**config, **edits}, run=run_ref, frames=footage.frames)
        predict_items(work, Notes())
        store = WindowOutputStore(footage.store.attention(key))
        found[key] = {name: store.rows(name) for name in ("d0", "d1")}
        scores[key] = {name: read_scores(footage.store.predictions(key), name).scores for name in ("d0", "d1")}
    plain, edited = found["plain"]["d0"], found["edited"]["d0"]
    assert (plain.attributes["seen"]["size"], plain.attributes["seen"]["resize"]) == ([32, 48], 40)
    assert plain.output("space").shape == (3, 4, 2, 3)
    assert np.all(edited.output("time") == 0.5)
    np.testing.assert_array_equal(edited.output("space")[..., 1:], plain.output("space")[..., 1:])
    assert not edited.output("space")[..., 0].any()
    assert not np.array_equal(scores["plain"]["d0"], scores["edited"]["d0"])
    np.testing.assert_allclose(scores["plain"]["d1"], scores["edited"]["d1"], atol=1e-6)
