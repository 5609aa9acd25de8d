"""diff, compare, failures, grids, estimates and --frozen as a person types them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from reelwright.cli.main import main
from reelwright.cli.run.planning import about_text, estimate_lines
from reelwright.pipeline.run.estimate import Estimate


def reelwright(folder: Path, *arguments: str) -> SimpleNamespace:
    """Run the command in this process, which has all imports already."""
    stdout, stderr, code, here = io.StringIO(), io.StringIO(), 0, Path.cwd()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["reelwright", *arguments])
        os.chdir(folder)
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        finally:
            os.chdir(here)
    return SimpleNamespace(returncode=code or 0, stdout=stdout.getvalue(), stderr=stderr.getvalue())


def test_diff_and_compare(copied: Path) -> None:
    text = (copied / "reelwright.yaml").read_text(encoding="utf-8")
    (copied / "other.yaml").write_text(text.replace("epochs: 2", "epochs: 3"), encoding="utf-8")
    message = reelwright(copied, "diff", "reelwright.yaml", "other.yaml")
    assert message.returncode == 0, message.stderr
    assert message.stdout.splitlines()[2].split() == ["train.epochs", "2", "3"]
    assert "(not known yet)" in message.stdout
    found = json.loads(reelwright(copied, "diff", "reelwright.yaml", "other.yaml", "--json").stdout)
    assert found["settings"] == [{"name": "train.epochs", "old": 2, "new": 3, "counts": True}]
    assert reelwright(copied, "diff", "reelwright.yaml", "reelwright.yaml").stdout == "no difference\n"
    (run,) = json.loads(reelwright(copied, "compare", "--json").stdout)
    assert (run["node"], run["settings"]) == ("train", {})
    assert reelwright(copied, "diff", run["key"][:6], "reelwright.yaml:train").stdout == "no difference\n"
    mean = json.loads(reelwright(copied, "mean", "scores.top1", "reelwright.yaml:scores.macro_f1", "--json").stdout)
    a, b = mean["scores"].values()
    assert mean["scores"] == {"scores.top1": a, "reelwright.yaml:scores.macro_f1": b}
    assert mean["harmonic_mean"] == pytest.approx(2 / (1 / a + 1 / b))
    lines = reelwright(copied, "mean", "scores.top1", "scores.macro_f1").stdout.splitlines()
    assert lines[-1].split() == ["harmonic", "mean", f"{mean['harmonic_mean']:.4f}"]
    table = reelwright(copied, "compare", "--sort", "macro_f1", "--limit", "1").stdout.splitlines()
    assert table[0].split()[:2] == ["key", "node"]
    assert table[2].startswith(run["key"][:8])
    assert "scores macro F1 %" in table[0]  # named and in percent as in the table of a run
    assert f"{100 * run['scores']['scores.macro_f1']:.1f}" in table[2].split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diff", "reelwright.yaml", "train"], "reelwright.yaml is a pipeline file, train is none; give two of a kind"),
        (["diff", "trian", "train"], "'trian' is neither a file, nor a node of reelwright.yaml"),
        (["diff", "reelwright.yaml:trian", "train"], "no node 'trian'. Did you mean 'train'?"),
        (["compare", "--sort", "top9"], "--sort 'top9': no score of any run"),
        (["mean", "scores.top1"], "a mean of scores needs at least two of them"),
        (["mean", "scores.top1", "scores.top1"], "scores.top1 is given twice"),
        (
            ["mean", "scores.top1", "reelwright.yaml:scores.top1"],
            "scores.top1 and reelwright.yaml:scores.top1 are the same",
        ),
        (["mean", "scores", "scores.top1"], "'scores' names no score; write NODE.SCORE"),
        (["mean", "scores.top9", "scores.top1"], "scores has no such score. Did you mean 'top1'?"),
        (["mean", "train.top1", "scores.top1"], "train is a train node and has no scores"),
        (["mean", "gone.yaml:scores.top1", "scores.top1"], "there is no pipeline file 'gone.yaml'"),
        (["mean", "scores.top1", "scores.f1@50"], "scores.f1@50 is"),
        (["run", "train.epochs=3"], "a setting is given with -S train.epochs=3; to vary settings, put -m before"),
        (["run", "-m", "--frozen", "train.epochs=3"], "a grid differs from the lock file by what it varies"),
        (["run", "--retries", "1", "--no-retry"], "--retries and --no-retry: give one of the two"),
        (["run", "--frozen", "-S", "train.epochs=3"], "train.settings.epochs: locked 2, now 3"),
        (["run", "--frozen", "-n", "-S", "train.epochs=3"], "train.settings.epochs: locked 2, now 3"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_exits_with_2(copied: Path, arguments: list[str], message: str) -> None:
    done = reelwright(copied, *arguments)
    assert done.returncode == 2, done
    assert message in done.stderr
    assert done.stdout == ""


def test_a_grid_ends_with_a_table_and_the_worst_code(copied: Path) -> None:
    dry = reelwright(copied, "run", "-n", "-m", "scores.topk=[1],[1,2]")
    assert dry.returncode == 0, dry.stderr
    assert [line for line in dry.stdout.splitlines() if line[0] == "["] == [
        "[1/2] scores.topk=[1]",
        "[2/2] scores.topk=[1,2]",
    ]
    assert re.search(r"^scores: to evaluate, about \d+ s$", dry.stdout, re.MULTILINE)
    wrong = reelwright(copied, "run", "-m", "train.model.name=linear,nonsense")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "unknown temporal model 'nonsense'" in wrong.stderr
    done = reelwright(copied, "run", "-m", "train.optimizer.lr=0.001,1e30", "scores.topk=[1,5]")
    assert done.returncode == 1
    head, _, good, bad = done.stdout.splitlines()
    assert head.split()[:2] == ["train.optimizer.lr", "scores.topk"]
    assert good.split()[:2] == ["0.001", "[1,5]"]
    assert "up to date" in good
    assert "train failed: " in bad
    assert "[2/2] train.optimizer.lr=1e30 scores.topk=[1,5]" in done.stderr


@pytest.mark.slow
def test_a_parallel_grid_gives_what_one_after_the_other_gives(copied: Path) -> None:
    """Both need the same new embeddings, and one run each; the second must wait for the first to embed."""
    axes = ["embed.seed=1", "train.epochs=3,4"]
    done = reelwright(copied, "run", "-m", "--parallel", "2", "--json", *axes)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["combinations"]
    ran = [{node["node"]: node["num_done"] for node in one["nodes"] if node["state"] == "ran"} for one in found]
    assert ran == [
        {"embed": 5, "train": 0, "predict": 5, "scores": 0},
        {"train": 0, "predict": 5, "scores": 0},
    ]
    again = reelwright(copied, "run", "-m", *axes)
    assert again.stdout.count("up to date") == 2


CTRL_C_COUNTS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background, which ignores it
from reelwright.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGTERM, 75, "stopped by SIGTERM"), (signal.SIGINT, 130, "stopped by Ctrl-C")],
    ids=["scheduler", "Ctrl-C"],
)
def test_a_signal_ends_a_parallel_grid_and_its_processes(copied: Path, number: int, code: int, message: str) -> None:
    command = ["run", "-m", "--parallel", "2", "embed.seed=1,2", "train.epochs=3"]
    with subprocess.Popen(
        [sys.executable, "-c", CTRL_C_COUNTS, *command],
        cwd=copied,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("starts: embed.seed=2" in line for line in lines)
        children = psutil.Process(process.pid).children()
        if number == signal.SIGINT:  # as a terminal does
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        left = "".join(lines)
    assert process.returncode == code
    assert message in left
    assert "Traceback" not in left
    assert psutil.wait_procs(children, timeout=60)[1] == []


def test_logs_by_cause_and_status_with_estimates(copied: Path) -> None:
    assert reelwright(copied, "logs").stdout == "no video failed\n"
    status = json.loads(reelwright(copied, "status", "--json", "-S", "train.epochs=4").stdout)
    costs = {node["node"]: node["estimate"] for node in status["nodes"]}
    assert costs["embed"] is None
    assert costs["train"]["seconds"] > 0
    (copied / "x.mp4").write_text("not a video")
    (copied / "y.mp4").write_text("not a video either")
    with (copied / "videos.csv").open("a") as file:
        file.write(f"x,{copied / 'x.mp4'},test\ny,{copied / 'y.mp4'},test\n")
    assert reelwright(copied, "index").returncode == 3
    table = reelwright(copied, "logs").stdout.splitlines()
    assert table[2].split()[:4] == ["videos", "failed", "not_a_video", "2"]
    found = json.loads(reelwright(copied, "logs", "--json").stdout)
    assert [(cause["cause"], cause["videos"]) for cause in found["causes"]] == [("not_a_video", 2)]
    assert [failure["video_ids"] for failure in found["failures"]] == [["x"], ["y"]]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "about 1 s"), (89, "about 89 s"), (1083, "about 18 min"), (5400, "about 1.5 h")],
)
def test_about(seconds: float, text: str) -> None:
    assert about_text(seconds) == text


def test_lines_of_estimates() -> None:
    def of(node: str, kind: str, **fields: object) -> Estimate:
        return Estimate(
            node=node, stage=node, kind=kind, **{"num_todo": 42, "num_videos": 1000, "num_unread": 0, **fields}
        )

    costs = {
        "embed": of("embed", "items", seconds=1083.0, bytes=0.6e9),
        "decode": of("decode", "items", num_unread=40, seconds=60.0, bytes=0.1e9),
        "train": of("train", "run"),
    }
    assert estimate_lines(costs) == [
        "embed: 42 of 1,000 videos to embed, about 18 min, 600.0 MB",
        "decode: 42 of 1,000 videos to decode (40 not read yet), about 60 s, 100.0 MB",
        "train: to train on 42 videos, no estimate: nothing like it has been run in this store",
        "in all: about 19 min, 700.0 MB, without train",
    ]
    assert estimate_lines({}) == []


def test_compare_writes_a_table_and_a_page(copied: Path, tmp_path: Path) -> None:
    reelwright(copied, "compare", "--out", str(tmp_path / "runs.csv"))
    (line,) = csv.DictReader((tmp_path / "runs.csv").read_text(encoding="utf-8").splitlines())
    (run,) = json.loads(reelwright(copied, "compare", "--json").stdout)
    assert line["key"] == run["key"]
    assert {name: float(line[name]) for name in run["scores"]} == run["scores"]
    said = reelwright(copied, "compare", "--out", str(tmp_path / "runs.html")).stdout
    assert said.startswith("runs: 1; ")
    page = (tmp_path / "runs.html").read_text(encoding="utf-8")
    assert f"train {run['key'][:8]}" in page
    assert "scores: Macro F1" in page
    assert 'aria-label="train_loss"' in page
    both = reelwright(copied, "compare", "--out", str(tmp_path / "runs.html"), "--json")
    assert json.loads(both.stdout) == [run]
    assert both.stderr.startswith("runs: 1; ")
    refused = reelwright(copied, "compare", "--out", "runs.txt")
    assert refused.returncode == 2
    assert "--out runs.txt: the file's ending says what is written; allowed: .html, .csv" in refused.stderr
