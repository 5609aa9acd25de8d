"""What each single change makes run again: nodes, and videos of each. The tables were written by hand, before any run.

From DESIGN 4: what changes the output of a node is in its key, and nothing else; sources enter by content, derived
things by the key they were made with; a run depends on the set of (content, targets), not on names or order.
Published predictions carry names, splits and targets, so a change of these writes the tables anew and scores no video.
"""

from __future__ import annotations

import pytest

from reelwright.pipeline.plan import FRESH, WAITING
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.results import RunResult
from reelwright.pipeline.runner import read_videos
from tests.pipeline.changes import EDITS, Scene

Ran = dict[str, int]  # nodes that run -> videos they do; 0 for those that are not per video

NOTHING: Ran = {}
SCORES: Ran = {"scores": 0}
PUBLISH: Ran = {"predict": 0, **SCORES}  # new tables of scores that are there
PREDICT: Ran = {"predict": 5, **SCORES}
TRAIN: Ran = {"train": 0, **PREDICT}
EMBED: Ran = {"embed": 5, **TRAIN}
ALL: Ran = {"frames": 5, **EMBED}

# Five videos: a, b, c for training, d, e for testing. A setting, as it is given with -S.
SETTINGS: dict[str, Ran] = {
    # decode
    "frames.fps=2.5": ALL,
    "frames.short_side=32": ALL,
    "frames.interpolation=nearest": ALL,
    "frames.crop=[0,0,48,48]": ALL,
    "frames.stop=1.6": ALL,
    "frames.backend=pyav": ALL,
    "frames.codec=jpeg": ALL,
    "frames.quality=50": NOTHING,  # of jpeg; the frames are lossless
    "frames.workers=2": NOTHING,
    "frames.timeout_seconds=30": NOTHING,
    "frames.materialize=false": NOTHING,
    # embed
    "embed.outputs=[pooled,map]": EMBED,
    "embed.precision=bf16": EMBED,
    "embed.dtype=float32": EMBED,
    "embed.preprocess.size=[32,32]": EMBED,
    "embed.weights=none": EMBED,
    "embed.seed=1": NOTHING,  # of random weights; these are from a file
    "embed.batch_size=2": NOTHING,
    "embed.device=cpu": NOTHING,
    "embed.channels_last=true": NOTHING,
    "embed.compile=true": NOTHING,
    "embed.deterministic=true": NOTHING,
    "embed.codec=zstd": NOTHING,
    "embed.chunk_bytes=4096": NOTHING,
    "embed.shard_rows=4": NOTHING,
    # train
    "train.window.length=3": TRAIN,
    "train.window.stride=1": TRAIN,
    "train.window.skip=1": TRAIN,
    "train.model.name=gru": TRAIN,
    "train.optimizer.lr=0.01": TRAIN,
    "train.optimizer.name=sgd": TRAIN,
    "train.loss.label_smoothing=0.1": TRAIN,
    "train.schedule.name=constant": TRAIN,
    "train.epochs=3": TRAIN,
    "train.batch_size=4": TRAIN,  # of training: it changes the weights
    "train.seed=1": TRAIN,
    "train.task=last_row": TRAIN,
    "train.val_splits=[test]": TRAIN,
    "train.device=cpu": NOTHING,
    "train.checkpoint_every=2": NOTHING,
    "train.memory_bytes=1000000": NOTHING,
    # predict
    "predict.window.stride=2": PREDICT,
    "predict.window.length=3": PREDICT,
    "predict.window.pad=false": PREDICT,
    "predict.batch_size=4": NOTHING,
    "predict.frame_batch_size=4": NOTHING,
    "predict.device=cpu": NOTHING,
    "predict.splits=[test]": PUBLISH,  # the tables are of fewer videos
    # evaluate
    "scores.topk=[1]": SCORES,
    "scores.splits=[train,test]": SCORES,
    "scores.background=blue": SCORES,
    "scores.report=false": SCORES,
    "scores.thumbnails=1": SCORES,  # the report shows them
    "scores.report_videos=1": SCORES,  # the report shows fewer
    # labels and videos
    "labels.classes=[bright,blue]": TRAIN,  # another order of class ids
    "labels.classes=[blue,bright]": NOTHING,  # the order that the names have sorted
    "labels.classes=[blue,bright,dark]": TRAIN,
    "labels.background=blue": TRAIN,
    "videos.workers=1": NOTHING,
    "videos.timeout_seconds=30": NOTHING,
    "videos.split=test": NOTHING,  # every row names its own
    "videos.splits=[train,val,test,more]": NOTHING,
    "videos.missing=skip": NOTHING,  # none is missing
    "videos.digest=quick": ALL,  # other digests, which never equal full ones
    # equal values written differently
    "frames.fps=5.0": NOTHING,
    "frames.fps='5'": NOTHING,
    "frames.short_side=48.0": NOTHING,
    "frames.stride=null": NOTHING,
    "train.optimizer.lr=0.001": NOTHING,  # the default
    "train.optimizer.lr=1e-3": NOTHING,
    "train.window.length=4.0": NOTHING,
    "train.window.skip=0": NOTHING,
    "train.model.dropout=0": NOTHING,  # the file has 0.0
}

# Anything else; `tests/pipeline/changes.py` does it.
OTHERS: dict[str, Ran] = {
    # videos
    "video added for testing": {"frames": 1, "embed": 1, "predict": 1, **SCORES},
    "video added for training": {"frames": 1, "embed": 1, "train": 0, "predict": 6, **SCORES},
    "video of testing removed": PUBLISH,
    "video of training removed": {"train": 0, "predict": 4, **SCORES},
    "video of testing replaced": {"frames": 1, "embed": 1, "predict": 1, **SCORES},
    "video of training replaced": {"frames": 1, "embed": 1, **TRAIN},
    "video replaced by another that is there": {"train": 0, "predict": 4, **SCORES},  # b.mp4 is now what a.mp4 is
    "video_id renamed, in the labels too": PUBLISH,
    "file renamed": NOTHING,
    "file moved to another folder": NOTHING,
    "all files moved, root says where": NOTHING,
    "paths made absolute": NOTHING,
    "file linked": NOTHING,
    "video of testing duplicated": PUBLISH,  # its second name is one more row of the tables
    "video of training duplicated with its labels": PUBLISH,  # nothing new to learn from
    "video of training duplicated with other labels": TRAIN,
    "all files touched": NOTHING,
    "file written anew with the same bytes": NOTHING,
    # manifest
    "split from test to train": TRAIN,
    "split from train to test": TRAIN,
    "split from test to one that nothing reads": PUBLISH,
    "manifest reordered": NOTHING,
    "manifest with one more column": NOTHING,
    "manifest with other line ends, spaces and quotes": NOTHING,
    "manifest as Parquet": NOTHING,
    # labels
    "label of training edited": TRAIN,
    "label of testing edited": PUBLISH,
    "label of testing removed": PUBLISH,
    "labels reordered": NOTHING,
    "label times written differently": NOTHING,
    "labels of a video that is not in the manifest": NOTHING,
    "labels as TSV": NOTHING,
    "class renamed": TRAIN,
    # weights
    "weights replaced": EMBED,
    "weights touched": NOTHING,
    "weights renamed": NOTHING,
    # code and machine
    "decode version raised": ALL,
    "embed version raised": EMBED,
    "train version raised": TRAIN,
    "predict version raised": PREDICT,
    "evaluate version raised": SCORES,
    "other versions of libraries": NOTHING,
    "other host, user, home, time zone and locale": NOTHING,
    "another working folder": NOTHING,
    "store moved, REELWRIGHT_STORE says where": NOTHING,
    "store moved, the file says where": NOTHING,
    "whole project moved": NOTHING,
    # the pipeline file
    "comment in the file": NOTHING,
    "order of nodes and keys reversed": NOTHING,
    "file in flow style": NOTHING,
    "anchors and aliases": NOTHING,
    "a value from the environment": NOTHING,
    "a value from another place of the file": NOTHING,
    "file renamed": NOTHING,
    "nodes renamed": NOTHING,
    "a node more": {"train_again": 0},
    "a node less": NOTHING,
    "labels named twice, the file and a setting agreeing": NOTHING,
    # the store
    "embeddings of a video removed by hand": {"embed": 1},
    "frames of a video removed by hand": {"frames": 1},
    "report removed by hand": SCORES,
    "published tables removed by hand": {"predict": 0},
}
