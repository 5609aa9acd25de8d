"""Attention over frames: how it is shown, that heat lies where the model saw it, and the pictures of predictions."""

from __future__ import annotations

import json
import shutil

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from reelwright.stages.base.work import InputRef, Work
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.evaluate.videos import Timeline
from reelwright.stages.predict.config import PredictConfig
from reelwright.stages.render.attention import PredictionScene, _place, true_score
from reelwright.stages.render.config import RenderConfig
from reelwright.stages.render.work import run
from reelwright.stages.show.attention_pictures import VideoAttention, displayed, jet, overlay, shown_frame
from reelwright.storage.arrays.frame_writer import FrameWriter
from reelwright.storage.arrays.frames import FrameLayout, FrameStore
from reelwright.storage.arrays.spans import RowTimes, Spans
from reelwright.storage.arrays.window_outputs import WindowOutputStore, WindowOutputWriter, WindowPlaces
from reelwright.storage.errors import ConfigError, StageError
from reelwright.storage.results.predictions import PredictedVideo, PredictionInfo, Scored, open_writer
from reelwright.storage.store import Store

KEY, SAID, BEFORE = "r" * 32, "p" * 32, "b" * 32
CLASSES = ("left", "right")
SEEN = {"size": [40, 40], "resize": 40, "crop": "center"}  # of frames of 40 x 80: the middle
WINDOW = {
    "window": [0], "start_row": [0], "stop_row": [4], "start_seconds": [0.0], "stop_seconds": [2.0],
    "time_seconds": [1.5],
}  # fmt: skip
RIGHT = {"good": (1, 0.9), "bad": (0, 0.8), "fair": (1, 0.6)}  # video -> true class, score of class 1


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ([0.2, 0.55, 0.6, 0.4, 0.9], [0.2, 0.75, 1.0, 0.0, 0.9]),  # stabn.json temporal_attention_for_display
        ([0.1, 0.2, 0.4, 0.3], [0.1, 0.0, 1.0, 0.3]),  # inside, the mean 0.25 and 0.2875 lie between 0.2 and 0.4
        ([0.9, 0.5, 0.7], [0.9, 0.0, 0.7]),  # 0.7, 0.5, 0.6333: the middle is the lowest
        ([0.3, 0.8], [0.3, 0.8]),
        ([0.4], [0.4]),
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    ],
)
def test_attention_in_time_is_shown_as_the_reference_does(raw, shown):
    """Padding, at the end, has no say and is 0."""
    padded = np.array([[*raw, 9.0, 9.0]])
    mask = np.arange(padded.shape[1])[None] < len(raw)
    assert displayed(padded, mask)[0].tolist() == pytest.approx([*shown, 0.0, 0.0])


def test_colours():
    assert jet([0, 0.25, 0.5, 0.75, 1]).tolist() == [
        [0, 0, 128], [0, 128, 255], [128, 255, 128], [255, 128, 0], [128, 0, 0],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "size"),
    [
        (None, (100, 50)),
        (Geometry(size=(20, 20), resize=25), (50, 50)),
        (Geometry(size=(20, 40), resize=(20, 40)), (100, 50)),
        (Geometry(size=(20, 20), resize=20, crop="squash"), (50, 50)),
    ],
)
def test_what_the_model_saw_of_a_frame(seen, size):
    """Red on the left, blue on the right, a green point in the middle."""
    frame = np.zeros((60, 120, 3), np.uint8)
    frame[:, :20, 0] = frame[:, -20:, 2] = frame[27:33, 57:63, 1] = 255
    shown = shown_frame(Image.fromarray(frame), seen, height=50)
    pixels = np.asarray(shown)
    assert shown.size == size
    rows, columns = np.nonzero(pixels[..., 1] > 128)
    assert (rows.mean(), columns.mean()) == pytest.approx(((50 - 1) / 2, (size[0] - 1) / 2), abs=1)
    is_cut = seen is not None and seen.crop == "center" and seen.size == (20, 20)
    assert (pixels[..., [0, 2]].max() < 10) == is_cut


def test_heat_lies_where_attention_is():
    space = np.zeros((2, 4))
    space[0, 3] = 1.0
    picture = np.asarray(overlay(Image.new("RGB", (80, 40), (100, 100, 100)), space)).astype(int)
    assert picture[0, -1].tolist() == [60 + 51, 60, 60]  # 0.6 of the frame, 0.4 of the colours
    assert picture[-1, 0].tolist() == [60, 60, 60 + 51]


def attention_store(root, videos, *, outputs=("attention.space", "attention.time"), seen=SEEN, hot=(0, 1)):
    """Two windows of 3 places over 4 rows of each video: rows 0 1 2, and 2 3 with padding."""
    shapes = {"attention.space": (3, 2, 2), "attention.time": (3,)}
    writer = WindowOutputWriter(
        root, {"spec": {}, "window": {}}, shapes={name: shapes[name] for name in outputs}, length=3
    )
    if seen is not None:
        writer.note({"seen": seen})
    row = np.array([[0, 1, 2], [2, 3, -1]])
    places = WindowPlaces(row, np.maximum(row, 0) * 0.5, np.maximum(row, 0) * 5)
    space = np.full((2, 3, 2, 2), 0.1, np.float32)
    space[:, :, hot[0], hot[1]] = 0.9
    values = {"attention.space": space, "attention.time": np.array([[0.2, 0.6, 0.4], [0.8, 0.5, 0.0]], np.float32)}
    for digest in videos:
        writer.begin(digest, num_windows=2)
        spans = Spans(np.array([0.0, 1.0]), np.array([1.5, 2.0]), np.array([0, 10]), np.array([15, 20]))
        writer.add(digest, {name: values[name] for name in outputs}, places, spans)
        writer.finish(digest)
    return WindowOutputStore(root)


def test_rows_have_the_mean_of_the_windows_that_hold_them(tmp_path):
    rows = attention_store(tmp_path / "a.zarr", ["x"]).rows("x")
    raw = VideoAttention.of(rows, display="raw")
    assert raw.seconds.tolist() == [0, 0.5, 1, 1.5]
    assert raw.source.tolist() == [0, 5, 10, 15]
    assert raw.time == pytest.approx(np.array([0.2, 0.6, (0.4 + 0.8) / 2, 0.5]))
    assert raw.space[2, 0] == pytest.approx([0.1, 0.9], abs=1e-3)
    assert raw.seen == Geometry(size=(40, 40), resize=40)
    shown = VideoAttention.of(rows, display="normalised")
    assert shown.time == pytest.approx(np.array([0.2, 1.0, (0.4 + 0.8) / 2, 0.5]))


def test_outputs_that_are_no_attention_to_frames_are_refused(tmp_path):
    writer = WindowOutputWriter(
        tmp_path / "a.zarr", {"spec": {}, "window": {}}, shapes={"attention.time": (7,)}, length=1
    )
    writer.begin("x", num_windows=1)
    places = WindowPlaces(np.zeros((1, 1), np.int64), np.zeros((1, 1)), np.zeros((1, 1), np.int64))
    spans = Spans(np.zeros(1), np.ones(1), np.zeros(1, np.int64), np.ones(1, np.int64))
    writer.add("x", {"attention.time": np.zeros((1, 7), np.float32)}, places, spans)
    writer.finish("x")
    with pytest.raises(ValueError, match=r"attention\.time is of shape \(7,\) a window, which is no attention to"):
        VideoAttention.of(WindowOutputStore(tmp_path / "a.zarr").rows("x"), display="raw")


@pytest.mark.parametrize(("display", "text"), [("raw", "M 0.60"), ("normalised", "M 1.00 (normalised)")])
def test_the_number_below_a_frame_says_what_it_is(tmp_path, work, display, text):
    made = work(display=display)
    scene = PredictionScene(config=RenderConfig(**made.config), work=made, reference=made.inputs["predictions"][0])
    attention = VideoAttention.of(attention_store(tmp_path / "a.zarr", ["x"]).rows("x"), display=display)
    assert _place(scene, attention, 1) == f"frame 5, 0.50 s  {text}"


def timeline(scores, target_ids, targets=None):
    scores = np.array(scores, np.float32)
    return Timeline(
        edges_seconds=np.arange(len(scores) + 1.0),
        label_ids=scores.argmax(axis=1),
        target_ids=np.array(target_ids),
        scores=scores,
        targets=None if targets is None else np.array(targets, bool),
    )


def test_score_of_what_is_true():
    scores = [[0.2, 0.8], [0.7, 0.3]]
    assert true_score(timeline(scores, [1, 1])) == pytest.approx((0.8 + 0.3) / 2)
    assert true_score(timeline(scores, [-1, 0])) == pytest.approx(0.7)
    assert true_score(timeline(scores, [-1, -1])) is None
    assert true_score(timeline(scores, [-1, -1], [[1, 1], [0, 0]])) == pytest.approx((0.2 + 0.8) / 2)
    assert true_score(timeline(scores, [-1, -1], [[1, 0], [0, 1]])) == pytest.approx((0.2 + 0.2 + 0.3 + 0.3) / 4)


def write_predictions(store, key, scores, *, classes=CLASSES):
    """A score of class 1 for each video of RIGHT; there is one window, the whole video."""
    info = PredictionInfo(key=key, run="run", task="video", classes=classes, extra={"kept": f"attention/{key}.zarr"})
    with open_writer(store.predictions(key), info) as writer:
        for name, score in scores.items():
            video = PredictedVideo(video_id=name, digest=f"digest-{name}", split="val" if name == "fair" else "test")
            scored = Scored(scores=np.array([[1 - score, score]], np.float32), target_ids=np.array([RIGHT[name][0]]))
            writer.write_windows(video, WINDOW, scored)
            writer.write_video(video, num_windows=1, scored=scored)


@pytest.fixture
def work(tmp_path):
    """Frames, attention and scores of three videos; white frames whose left quarter is black."""
    store = Store.at(tmp_path / "store")
    frames = np.full((4, 40, 80, 3), 250, np.uint8)
    frames[:, :, :20] = 0
    seconds = np.arange(4) * 0.5
    times = RowTimes(source_frame=np.arange(4) * 5, pts_seconds=seconds, stop_seconds=seconds + 0.5)
    FrameStore.create(store.frames("frames"), {})
    for name in RIGHT:
        with FrameWriter(store.frames("frames"), f"digest-{name}", times, FrameLayout()) as writer:
            writer.append(frames)
            writer.commit()
    attention_store(store.attention(SAID), [f"digest-{name}" for name in RIGHT])
    write_predictions(store, SAID, {name: score for name, (_, score) in RIGHT.items()})
    write_predictions(store, BEFORE, {"good": 0.7, "bad": 0.79})
    frames = InputRef(node="frames", stage="decode", key="frames")
    said = InputRef(node="said", stage="predict", key=SAID, inputs={"frames": (frames,)})
    before = InputRef(node="before", stage="predict", key=BEFORE)

    def make(**config):
        against = {"against": (before,)} if "against" in config else {}
        videos = [{"video_id": name, "digest": f"digest-{name}", "split": "test", "annotation": {}} for name in RIGHT]
        settings = {"predictions": "said", "height": 80, "sheet": 3, **config}
        return Work(
            node="pictures", stage="render", key=KEY, config=settings, spec={}, store=str(store.root),
            inputs={"predictions": (said,), **against}, payload={"classes": [], "background": -1, "videos": videos},
        )  # fmt: skip

    return make


def test_films_and_sheets_of_the_worst_and_the_best(work, toy):
    made = work(worst=1, best=1)
    assert run(made, toy.reporter) == {"num_pictures": 2, "num_films": 2, "num_left_out": 0}
    folder = Store.at(made.store).output("pictures", KEY)
    names = {path.name.split("-")[0] for path in (folder / "attention").iterdir()}
    assert names == {"bad", "good"}
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "bad, worst 1 of 2" in page
    assert "good, best 1 of 2" in page
    (film,) = (folder / "attention").glob("bad-*.mp4")
    with av.open(str(film)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate) == 2.0
    assert len(pictures) == 4
    top = 24 + 25  # below the name and the bar
    plain, over = pictures[1][top : top + 80, :80].astype(int), pictures[1][top : top + 80, 88:168].astype(int)
    assert plain[4:-4, 4:-4].min() > 230  # the middle of the frame: the black part was not seen
    assert np.abs(over[4, 76] - [0.6 * 250 + 0.4 * 230, 150, 150]).max() < 45  # hot at the top on the right
    assert over[76, 4, 2] - over[76, 4, 0] > 50  # cold below
    bar = pictures[1][24 + 12].astype(int)
    assert np.abs(bar[[100, 300]] - jet([1.0, 0.5])).max() < 40


def test_a_named_video_of_any_split_raw_and_without_maps(work, toy):
    made = work(videos=["fair"], display="raw")
    root = Store.at(made.store).root
    info = PredictionInfo(key=SAID, run="run", task="video", classes=CLASSES, extra={"kept": "attention/time.zarr"})
    attention_store(root / "attention/time.zarr", ["digest-fair"], outputs=("attention.time",), seen=None)
    video = PredictedVideo(video_id="fair", digest="digest-fair", split="val")
    scored = Scored(scores=np.array([[0.4, 0.6]], np.float32))
    with open_writer(Store.at(made.store).predictions(SAID), info) as writer:
        writer.write_windows(video, WINDOW, scored)
        writer.write_video(video, num_windows=1, scored=scored)
    assert run(made, toy.reporter)["num_pictures"] == 1
    (sheet,) = (root / "pictures" / KEY / "attention").glob("fair-*.jpg")
    pixels = np.asarray(Image.open(sheet)).astype(int)
    assert np.abs(pixels[68 + 12, [12 + 40, 12 + 320 + 8 + 40]] - jet([0.2, 0.6])).max() < 12  # whole frames, 320 wide
    assert np.abs(pixels[68 + 25 + 80, 12 + 40]).max() < 30  # their black part is there


def test_a_video_without_frames_is_left_out(work, toy):
    made = work(videos=["bad"])
    shutil.rmtree(Store.at(made.store).frames("frames"))
    with pytest.raises(StageError, match=r"nothing can be drawn\. bad: its frames are not stored"):
        run(made, toy.reporter)


def test_changes_of_scores(work, toy):
    made = work(against="before", what=["changes"], splits=["test", "val"])
    assert run(made, toy.reporter)["num_left_out"] == 0
    folder = Store.at(made.store).output("pictures", KEY)
    assert json.loads((folder / "pictures.json").read_text(encoding="utf-8"))["files"] == ["changes/videos.parquet"]
    lines = pq.read_table(folder / "changes/videos.parquet").to_pylist()
    assert [line["video_id"] for line in lines] == ["good", "bad"]  # the largest change first; fair was not there
    assert lines[0]["score_of_target_before"] == pytest.approx(0.7)
    assert lines[0]["score_of_target"] == pytest.approx(0.9)
    assert lines[1]["score_of_target"] == pytest.approx(0.2)
    assert lines[1]["largest_change"] == pytest.approx(0.01, abs=1e-6)
    assert lines[1]["scores"] == pytest.approx([0.2, 0.8])
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "<td>good</td><td>right</td>" in page
    assert "2 of 3 videos have scores in both" in page
    assert "score of the true class before" in page
    assert "before: before" in page


def test_other_predictions_that_cannot_be_compared_are_refused(work, toy):
    made = work(against="before", what=["changes"])
    write_predictions(Store.at(made.store), BEFORE, {"good": 0.5}, classes=("left", "up"))
    with pytest.raises(StageError, match="against: the predictions compared are of other classes"):
        run(made, toy.reporter)
    write_predictions(Store.at(made.store), BEFORE, {"fair": 0.5})
    with pytest.raises(StageError, match="against: no video has scores in both"):
        run(made, toy.reporter)
    with pytest.raises(StageError, match="videos: 'lost' has no scores; look at said"):
        run(work(videos=["lost", "good"]), toy.reporter)
    with pytest.raises(StageError, match="no video of the splits train has scores"):
        run(work(splits=["train"]), toy.reporter)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "neither is given"),
        ({"embeddings": "e", "predictions": "p"}, "both are given"),
        ({"embeddings": "e", "display": "raw"}, "display is not of embeddings"),
        ({"embeddings": "e", "what": ["attention"]}, "attention is not of embeddings"),
        ({"predictions": "p", "stride": 2}, "stride is not of predictions"),
        ({"predictions": "p", "what": ["strip"]}, "strip is not of predictions"),
        ({"predictions": "p", "depth": 2}, "depth is not of predictions"),
        ({"predictions": "p", "what": ["changes"]}, "name it as against"),
        ({"predictions": "p", "against": "q", "what": ["attention"]}, "name it as against, or give neither"),
        ({"predictions": "p", "worst": 0, "best": 0}, "no attention is drawn; set one"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        RenderConfig(**config)


def test_settings():
    assert RenderConfig(predictions="p").what == ("attention",)
    assert RenderConfig(predictions="p", against="b").what == ("attention", "changes")
    rows, said = RenderConfig(embeddings="e").spec(), RenderConfig(predictions="p").spec()
    assert set(said) - set(rows) == {"videos", "worst", "best", "display", "sheet"}  # older keys stay
    assert "display" not in RenderConfig(predictions="p", against="b", what=["changes"]).spec()
    config = RenderConfig(predictions="p", videos=["x"])
    assert config.named_videos()["videos"] == ("x",)
    assert config.wanted_splits() is None
    with pytest.raises(ConfigError, match=r"node 'p' keeps no attention, which is to be drawn\. Give it keep"):
        config.check_inputs({"predictions": [PredictConfig(run="t", keep=["logits"])]})
    config.check_inputs({"predictions": [PredictConfig(run="t", keep=["attention.time"])]})
