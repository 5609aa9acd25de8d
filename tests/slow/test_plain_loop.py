"""`train` on the demo's embeddings against the loop that a user would write in plain PyTorch, on the same draws."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from reelwright.models.temporal.build import build_temporal
from reelwright.pipeline.config.sample_data import prepare_demo
from reelwright.pipeline.project import Project
from reelwright.storage.digests import file_digest

LENGTH, HOP, BATCH_SIZE, EPOCHS, LR, WEIGHT_DECAY, SEED = 48, 8, 8, 20, 3e-3, 0.05, 0  # the demo's
LAST_WEIGHTS = ["train.val_splits=[]"]  # of the last epoch, not the best on val

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Video:
    digest: str
    split: str
    rows: Tensor  # (T, D)
    labels: Tensor  # (T,), -1: none


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The demo with its temporal model trained."""
    file = prepare_demo(tmp_path_factory.mktemp("demo"), overrides=LAST_WEIGHTS, workers=2)
    project = Project(file)
    assert project.run(until=["predict"]).exit_code == 0
    return project


def test_training_gives_the_losses_and_the_score_of_a_plain_loop(project: Project) -> None:
    classes, videos = read_demo(project)
    losses, model = plain_loop([video for video in videos if video.split == "train"], num_classes=len(classes))
    ours = [line["train_loss"] for line in project.trained("train").metrics()]
    assert len(ours) == EPOCHS
    assert ours[:3] == pytest.approx(losses[:3], rel=1e-3)  # later rounding has grown
    assert ours == pytest.approx(losses, rel=0.15)
    assert ours[-1] < 0.5 * ours[0]

    rows = project.predictions("predict").rows(columns=["split", "label", "target"]).to_pylist()
    known = [row for row in rows if row["split"] == "test" and row["target"] is not None]
    score = sum(row["label"] == row["target"] for row in known) / len(known)
    plain = accuracy(model, [video for video in videos if video.split == "test"], num_classes=len(classes))
    assert score == pytest.approx(plain, abs=0.06)  # of 783 rows; two seeds differ by as much
    assert min(score, plain) > 0.45  # chance is 0.25


def read_demo(project: Project) -> tuple[list[str], list[Video]]:
    """Stored rows and their labels, in the order in which training takes videos: of their contents."""
    data = project.file.path.parent / "data"
    segments = defaultdict(list)
    for line in csv.DictReader((data / "segments.csv").read_text().splitlines()):
        segments[line["video_id"]].append((float(line["start_seconds"]), float(line["stop_seconds"]), line["label"]))
    classes = sorted({label for parts in segments.values() for _, _, label in parts})
    videos = []
    for line in csv.DictReader((data / "manifest.csv").read_text().splitlines()):
        stored = project.embeddings("embed")[line["video_id"]]
        middle = (stored.spans.start_seconds + stored.spans.stop_seconds) / 2
        labels = np.full(len(middle), -1)
        for start, stop, label in segments[line["video_id"]]:
            labels[(start <= middle) & (middle < stop)] = classes.index(label)
        rows = torch.from_numpy(np.asarray(stored.output("pooled"), np.float32))
        videos.append(Video(file_digest(data / line["path"]), line["split"], rows, torch.from_numpy(labels)))
    return classes, sorted(videos, key=lambda video: video.digest)


def plain_loop(videos: list[Video], *, num_classes: int) -> tuple[list[float], nn.Module]:
    """Mean training loss of every epoch, and the model after the last."""
    torch.manual_seed(SEED)
    sizes = {"input_dim": videos[0].rows.shape[1], "num_outputs": num_classes, "length": LENGTH, "per_row": True}
    model = build_temporal("ms_tcn", **sizes, width=64, layers=6, dropout=0.2, input_norm=True)
    places = [(video, start) for video in videos for start in _starts(video)]
    x = torch.stack([video.rows[start : start + LENGTH] for video, start in places])
    y = torch.stack([video.labels[start : start + LENGTH] for video, start in places])
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR)
    warm, total = math.ceil(len(x) / BATCH_SIZE), EPOCHS * math.ceil(len(x) / BATCH_SIZE)

    def rate(update: int) -> float:
        if update < warm:
            return 0.01 + 0.99 * update / warm
        return 0.5 * (1 + math.cos(math.pi * (update - warm) / (total - warm)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    losses = []
    torch.manual_seed(SEED)
    for epoch in range(EPOCHS):
        model.train()
        summed = 0.0
        order = torch.from_numpy(np.random.default_rng([SEED, epoch]).permutation(len(x)))
        for picked in order.split(BATCH_SIZE):
            optimizer.zero_grad()
            mask = torch.ones(len(picked), LENGTH, dtype=torch.bool)
            scores = model({"rows": x[picked], "mask": mask})["logits"]
            loss = F.cross_entropy(scores.flatten(0, 1), y[picked].flatten(), ignore_index=-1)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            summed += loss.item() * len(picked)
        losses.append(summed / len(x))
    return losses, model


def _starts(video: Video) -> list[int]:
    """Every HOP rows, and one that reaches the last row."""
    last = len(video.rows) - LENGTH
    return sorted({*range(0, last + 1, HOP), last})


@torch.no_grad()
def accuracy(model: nn.Module, videos: list[Video], *, num_classes: int) -> float:
    """Of rows, by the mean over the windows that hold them."""
    model.eval()
    num_right, num_rows = 0, 0
    for video in videos:
        starts = _starts(video)
        windows = torch.stack([video.rows[start : start + LENGTH] for start in starts])
        mask = torch.ones(len(starts), LENGTH, dtype=torch.bool)
        scores = model({"rows": windows, "mask": mask})["logits"].softmax(-1)
        summed = torch.zeros(len(video.rows), num_classes)
        for start, window in zip(starts, scores, strict=True):
            summed[start : start + LENGTH] += window
        is_known = video.labels >= 0
        num_right += int((summed.argmax(1) == video.labels)[is_known].sum())
        num_rows += int(is_known.sum())
    return num_right / num_rows
