"""The whole stage on a small store: files, numbers, and a report that is safe to open."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reelwright.stages.base.work import InputRef, SilentReporter
from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.work import _Pages, run
from reelwright.storage.errors import StageError
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.results.predictions import PredictionSet

Make = Callable[..., Any]


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def report_of(made: Any) -> str:
    run(made.work, SilentReporter())
    text: str = (made.store.report(made.work.key) / "report.html").read_text(encoding="utf-8")
    return text


def test_files_and_headline(fake_store: Make) -> None:
    made = fake_store(splits=("test", "val"))
    numbers = run(made.work, SilentReporter())
    folder = made.store.report(made.work.key)
    assert sorted(path.name for path in folder.iterdir()) == [
        "confusion.csv",
        "metrics.json",
        "per_video.csv",
        "report.html",
    ]
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["headline"] == numbers
    assert list(metrics["splits"]) == ["test", "val", "all"]
    assert (numbers["num_videos"], numbers["num_scored"]) == (5, 5)
    assert numbers["top1"] * 100 == pytest.approx(numbers["frame_accuracy"])
    confusion = list(csv.reader((folder / "confusion.csv").read_text(encoding="utf-8").splitlines()))
    assert [[int(count) for count in line[1:]] for line in confusion[1:]] == metrics["splits"]["all"]["windows"][
        "confusion"
    ]


def test_table_of_videos(fake_store: Make) -> None:
    made = fake_store(task="per_row")
    run(made.work, SilentReporter())
    table = (made.store.report(made.work.key) / "per_video.csv").read_text(encoding="utf-8")
    lines = list(csv.DictReader(table.splitlines()))
    assert [line["video_id"] for line in lines][1] == "<img src=x onerror=alert(2)>"
    assert [line["num_rows"] for line in lines] == ["120", "137", "154"]
    assert all(0 <= float(line["accuracy"]) <= 1 and 0 <= float(line["f1@50"]) <= 100 for line in lines)


@pytest.mark.parametrize("task", ["last_row", "per_row", "video", "majority", "multi_label"])
def test_report_holds_names_as_text_and_asks_for_nothing(fake_store: Make, task: str) -> None:
    text = report_of(fake_store(task=task, splits=("test", "val")))
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert {
        value for name, value in page.attributes if name in {"src", "href"} and not value.startswith("data:")
    } == set()
    assert not re.search(r"(https?:)?//\w", text.split("</style>")[1].replace("data:image", ""))
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", text)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    shown = " ".join(page.text)
    for name in (
        "<img src=x onerror=alert(2)>",
        "<script>alert(1)</script>",
        'it\'s "quoted" & <b>bold</b>',
        "日本語-04",
    ):
        assert name in shown


def test_report_is_the_same_twice(fake_store: Make) -> None:
    made = fake_store()
    assert report_of(made) == report_of(made)


def test_without_targets_the_report_shows_what_was_predicted(fake_store: Make) -> None:
    made = fake_store(task="video", with_targets=False)
    assert run(made.work, SilentReporter()) == {"num_videos": 3, "num_scored": 0}
    text = (made.store.report(made.work.key) / "report.html").read_text(encoding="utf-8")
    assert "nothing can be scored" in text
    assert "Predicted labels" in text
    assert not (made.store.report(made.work.key) / "confusion.csv").exists()


def test_only_some_videos_get_a_timeline(fake_store: Make) -> None:
    text = report_of(fake_store(splits=("test", "val"), report_videos=2))
    assert text.count("<article") == 2
    assert "2 of 5 videos" in text


def test_no_report_when_not_asked_for(fake_store: Make) -> None:
    made = fake_store(report=False)
    run(made.work, SilentReporter())
    assert not (made.store.report(made.work.key) / "report.html").exists()


def test_missing_pictures_are_said(fake_store: Make) -> None:
    assert "there is no video file any more" in report_of(fake_store())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splits": ("dev",)}, r"no prediction is of the splits \['dev'\]; predictions are of \['test', 'val'\]"),
        ({"background": "backgroun"}, r"background 'backgroun' is no class. Did you mean 'background'\?"),
    ],
    ids=["split", "background"],
)
def test_wrong_settings_are_named(fake_store: Make, settings: dict[str, Any], message: str) -> None:
    made = fake_store(**settings)
    with pytest.raises(StageError, match=message):
        run(made.work, SilentReporter())
    assert not made.store.report(made.work.key).exists()


def test_the_page_says_how_it_was_made_and_what_is_not_in_it(fake_store: Callable[..., Any]) -> None:
    made = fake_store(topk=(1,))
    left = [{"video_id": "<bad>", "split": "test", "why": "failed in frames: broken: no frame"}]
    work = replace(made.work, payload={**made.work.payload, "left_out": left, "num_left_out": 3})
    ledger = ItemLedger(made.store.node("e" * 32))
    ledger.commit(ItemRow(digest="a", status="ok", decode_seconds=1.0, forward_seconds=2.0))
    ledger.commit(ItemRow(digest="b", status="truncated", forward_seconds=1.0))
    ledger.commit(ItemRow(digest="c", status="failed", decode_seconds=9.0))
    run(work, SilentReporter())
    page = (made.store.report(work.key) / "report.html").read_text(encoding="utf-8")
    assert page.count("<div>work: ") == 1
    assert "<div>work: decode 25 % (without it at most 1.33 times as fast), forward 75 % (" in page
    assert "seed <code>7</code>" in page
    assert "3 videos of these splits are in no number above. The first 1 of them:" in page
    assert '<td class="class">&lt;bad&gt;</td><td>test</td><td>failed in frames: broken: no frame</td>' in page
    settings = page.partition("<h2>How it was made</h2>")[2]
    for text in ("encoder: timm/resnet18", "window: {length: 16}", "model: {name: gru}", "topk: [1]"):
        assert f"<code>{text}</code>" in settings
    assert "batch_size" not in settings, "defaults are not settings that somebody made"
    assert settings.index('<td class="class">embed</td>') < settings.index('<td class="class">train</td>')


@pytest.mark.parametrize("behind", ["finetune", "import_model"])
def test_the_run_is_the_one_that_predicted_not_one_behind_its_rows(fake_store: Make, behind: str) -> None:
    made = fake_store()
    (predict,) = made.work.inputs["predictions"]
    (own,), (embed,) = predict.inputs["run"], predict.inputs["embeddings"]
    tuned = InputRef(node="tuned", stage=behind, key="f" * 32, config={"model": {"name": "ms_tcn"}})
    rows = replace(embed, inputs={"run": (tuned,)})
    predict = replace(predict, inputs={"run": (replace(own, inputs={"embeddings": (rows,)}),), "embeddings": (rows,)})
    facts = _Pages(
        work=replace(made.work, inputs={"predictions": (predict,)}),
        reporter=SilentReporter(),
        config=EvaluateConfig(predictions="predict"),
        predictions=PredictionSet(made.store.predictions(predict.key)),
        labels=(),
    ).facts()
    assert (facts["run"], facts["model"]) == (f"train {'r' * 12}", "gru")


def test_titles_open_the_video(fake_store: Callable[..., Any], tmp_path: Path) -> None:
    made = fake_store()
    file = tmp_path / "a b#.mp4"
    file.write_bytes(b"not read: its pictures are not there, the link is")
    (entry,) = made.work.payload["videos"]
    run(replace(made.work, payload={"videos": [{**entry, "path": str(file)}]}), SilentReporter())
    page = (made.store.report(made.work.key) / "report.html").read_text(encoding="utf-8")
    assert f'<h3><a href="{file.as_uri()}">plain-01</a></h3>' in page
    assert "%20b%23.mp4" in page
    assert page.count("<h3><a") == 1, "the other files are not there"
