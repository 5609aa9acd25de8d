"""CAST's last blocks on stored tokens, from videos to scores, beside the same network on the frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reelwright.models.clip_options import CastOptions
from reelwright.models.encoders.build import build_encoder
from reelwright.models.systems.cast.model import build_cast
from reelwright.pipeline.project import Project
from reelwright.stages.fit.run_models import load_run_model
from tests.small_project import read_rows, write_project, write_rows

SPACE = "{embed_dim: 8, depth: 3, num_heads: 2, img_size: 32, clip_length: 4}"
TIME = "{width: 8, depth: 3, heads: 2, img_size: 32, clip_length: 4}"
CLIP = (
    "preprocess: {interpolation: bicubic, antialias: true}, clip: {length: 4, hop: 2}, weights: none, dtype: float32, "
    "batch_size: 2, channels_last: false"
)
PIPELINE = f"""
videos: {{manifest: videos.csv}}
labels: {{segments: segments.csv}}
stages:
  frames: {{uses: decode, fps: 5, short_side: 32, workers: 1}}
  space:
    {{uses: embed, frames: frames, encoder: frames/vit_base_patch16_clip_quickgelu_224, model_args: {SPACE}, {CLIP},
     outputs: [block-2.input, block1.input], seed: 3}}
  time:
    {{uses: embed, frames: frames, encoder: videomae/vit_small_patch16_224, model_args: {TIME}, {CLIP},
     outputs: [block-2.input, block1.input]}}
  train:
    {{uses: train, embeddings: [space, time], output: block-2.input, task: majority, window: {{length: 1}},
     model: {{name: cast, top: 2}}, epochs: 2, batch_size: 4, val_splits: [], optimizer: {{lr: 0.01}}}}
  predict: {{uses: predict, run: train}}
  tune:
    {{uses: finetune, frames: frames, experts: [space, time], model: {{name: cast, top: 2}}, task: majority,
     window: {{length: 4, hop: 2}}, epochs: 2, batch_size: 4, val_splits: [], optimizer: {{lr: 0.01}},
     augment: {{flip: 0}}}}
  both:
    {{uses: train, embeddings: [space, time], output: block-2.input, task: heads, window: {{length: 1}},
     labels: {{columns: {{verb: verb, noun: noun}}}}, model: {{name: cast, top: 2}}, epochs: 1, val_splits: []}}
  over_frames: {{uses: predict, run: tune, frames: frames, window: {{hop: 2}}}}
"""


ENCODERS = {
    "space": (
        "timm/vit_base_patch16_clip_quickgelu_224",
        {"embed_dim": 8, "depth": 3, "num_heads": 2, "img_size": 32},
        3,
    ),
    "time": (
        "videomae/vit_small_patch16_224",
        {"width": 8, "depth": 3, "heads": 2, "img_size": 32, "clip_length": 4},
        0,
    ),
}


def whole_model(run):
    """CAST on frames, its lower blocks those of the embed nodes, the rest what the run has learned."""
    built = {
        name: build_encoder(encoder, model_args=args, seed=seed) for name, (encoder, args, seed) in ENCODERS.items()
    }
    given = {f"{name}_args": args for name, (_, args, _) in ENCODERS.items()}
    options = CastOptions(**{name: encoder for name, (encoder, _, _) in ENCODERS.items()}, **given, top=2)
    model = build_cast(length=4, sizes=[("", 2)], options=options, encoders=built)
    found = model.load_state_dict(run.state_dict(), strict=False)
    assert not found.unexpected_keys
    return model.eval()


@pytest.mark.slow
def test_scores_of_tokens_are_those_of_frames(tmp_path):
    folder = write_project(tmp_path)
    rows = read_rows(folder / "videos.csv")
    words = {"verb": ("push", "pull", "push"), "noun": ("cup", "cup", "box", "pen")}
    write_rows(
        folder / "videos.csv",
        [{**row, **{name: of[place % len(of)] for name, of in words.items()}} for place, row in enumerate(rows)],
    )
    (folder / "reelwright.yaml").write_text(PIPELINE, encoding="utf-8")
    project = Project.open(folder / "reelwright.yaml")
    assert project.run().exit_code == 0
    run, values = load_run_model(project.trained("train"), plugins={})
    assert values["model"]["row_shape"] == [2 * 5 + 2 * 4, 8]
    assert values["model"]["options"]["space"] == ENCODERS["space"][0]
    assert min(record["train_loss"] for record in project.trained("train").metrics()) > 0
    heads, values = load_run_model(project.trained("both"), plugins={})
    assert values["model"]["heads"] == {"verb": 2, "noun": 3}
    assert heads.head.reads == {"verb": "time", "noun": "space"}
    model, windows = whole_model(run), project.predictions("predict").windows().to_pandas()
    for video in ("a", "d"):
        frames = project.frames("frames")[video]
        clips = torch.from_numpy(np.stack([frames.read(start, start + 4) for start in range(0, 7, 2)]))
        x_BTCHW = clips.movedim(-1, 2).float() / 255
        with torch.no_grad():
            wanted = model({"frames": x_BTCHW, "mask": torch.ones(4, 4, dtype=torch.bool)})["logits"].softmax(-1)
        found = np.stack(windows[windows.video_id == video].scores)
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    losses = [[line["train_loss"] for line in project.trained(name).metrics()] for name in ("train", "tune")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    of_frames = project.predictions("over_frames").windows().to_pandas()
    assert windows.video_id.tolist() == of_frames.video_id.tolist()
    np.testing.assert_allclose(np.stack(windows.scores), np.stack(of_frames.scores), atol=1e-3)
    text = (folder / "reelwright.yaml").read_text()
    for wrong, message in {
        text.replace("hop: 2}", "hop: 4}", 1): ("rows of embeddings 1 and 2 are not of the same frames"),
        text.replace("output: block-2.input", "output: block1.input").replace("top: 2", "top: 1"): (
            "output block1.input is not what enters the last 1 of 3 blocks; set output: block2.input"
        ),
    }.items():
        (folder / "reelwright.yaml").write_text(wrong, encoding="utf-8")
        results = Project.open(folder / "reelwright.yaml").run(until=["train"]).nodes
        (failed,) = [result for result in results if result.node == "train"]
        assert message in failed.message
