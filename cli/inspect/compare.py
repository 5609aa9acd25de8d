"""Commands that compare: diff of two files or runs, compare of all runs of a store, mean of scores."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelwright.cli.completion import complete_run
from reelwright.cli.format import print_json, table_text
from reelwright.cli.inspect.run_tables import WRITERS, number_text, run_table, seed_table
from reelwright.cli.options import ConfigOption, JsonOption, SetOption
from reelwright.pipeline.config.pipeline_file import PipelineFile, find_pipeline_file, load_pipeline
from reelwright.pipeline.plan.history import History, short
from reelwright.pipeline.plan.reasons import MISSING, shown
from reelwright.storage.errors import ConfigError, StoreError, nearest
from reelwright.storage.files import write_text
from reelwright.storage.ledger.records import Record

if TYPE_CHECKING:
    from reelwright.pipeline.inspect.comparison import Comparison, RunRow

_MIN_PREFIX_DIGITS = 4


def diff(
    old: Annotated[
        str, typer.Argument(help="A pipeline file, FILE:NODE, a node, or a key's digits.", autocompletion=complete_run)
    ],
    new: Annotated[str, typer.Argument(help="The same of the other side.", autocompletion=complete_run)],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which settings, keys and scores differ between two pipeline files or two finished nodes (runs).

    Nodes and keys are looked up in the pipeline file given with -c and in its store.
    """
    from reelwright.pipeline.inspect.comparison import diff_files, diff_records

    if Path(old).is_file() and Path(new).is_file():
        found = diff_files(load_pipeline(Path(old).absolute()), load_pipeline(Path(new).absolute()))
    else:
        for text, other in ((old, new), (new, old)):
            if Path(text).is_file():
                raise ConfigError(f"diff {old} {new}: {text} is a pipeline file, {other} is none; give two of a kind")
        (history_old, record_old), (history_new, record_new) = _record(old, config), _record(new, config)
        found = diff_records((history_old, history_new), record_old, record_new)
    _print_diff(found, as_json=as_json)


def compare(
    config: ConfigOption = None,
    overrides: SetOption = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="METRIC", help="Best first by this score; default: oldest first.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Show at most so many runs.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write a page with curves (.html), or a table of all scores (.csv)."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List all trained runs of the store: scores, and the settings in which they differ.

    Below them are the means, ± standard deviation, of all that differ by their seeds alone, whatever --limit is.
    """
    from reelwright.pipeline.inspect.comparison import mixed_targets, run_rows, seed_groups, sort_rows

    if out is not None and out.suffix not in WRITERS:
        raise ConfigError(f"--out {out}: the file's ending says what is written; allowed: {', '.join(WRITERS)}")
    store = load_pipeline(find_pipeline_file(config), overrides or ()).store
    rows = run_rows(History.of(store))
    if sort is not None:
        rows = sort_rows(rows, sort)
    groups = seed_groups(rows)  # of all runs: the best of several seeds would have too good a mean
    rows = rows[:limit]
    if out is not None and rows:
        write_text(out, WRITERS[out.suffix](rows, groups, store))
        typer.echo(f"runs: {len(rows):,}; {out}", err=as_json)
    if as_json:
        print_json([_run_json(row) for row in rows])
    elif not rows:
        typer.echo("no run in this store yet; `reelwright run` trains one")
    elif out is None:
        typer.echo(run_table(rows, sort) + (f"\n\n{seed_table(groups)}" if groups else ""))
    for node in mixed_targets(rows):
        message = f"note: {node}: these runs are scored on different videos or labels (column `{node} on`); only scores"
        typer.echo(f"{message} with the same digest there can be compared", err=True)


def mean(
    scores: Annotated[
        list[str],
        typer.Argument(
            metavar="[FILE:]NODE.SCORE...", help="Scores such as epic.yaml:scores.video_verb_top1, or more."
        ),
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the harmonic mean of scores, of one or of several pipeline files (data sets): n / sum(1 / score).

    It is near the least of them: what is good at one thing alone scores low. Only shares (0 to 1) are taken.
    """
    from reelwright.pipeline.inspect.comparison import harmonic_mean

    found: dict[str, float] = {}
    seen: dict[tuple[str, str], str] = {}
    for text in scores:
        key, found[text] = _score(text, config)
        if key in seen:
            other = f"{text} is given twice" if seen[key] == text else f"{seen[key]} and {text} are the same score"
            raise ConfigError(f"{other}; once is enough")
        seen[key] = text
    value = harmonic_mean(found)
    if as_json:
        print_json({"scores": found, "harmonic_mean": value})
        return
    rows = [(name, f"{score:.4f}") for name, score in [*found.items(), ("harmonic mean", value)]]
    typer.echo(table_text(("score", ">value"), rows))


def _score(text: str, config: Path | None) -> tuple[tuple[str, str], float]:
    """Which score [FILE:]NODE.SCORE is (record's key, name), and its value. ConfigError where there is none such."""
    from reelwright.pipeline.inspect.comparison import scores_of

    path, colon, name = text.rpartition(":")
    node, dot, metric = name.partition(".")
    if not (node and dot and metric):
        raise ConfigError(f"{text!r} names no score; write NODE.SCORE or FILE:NODE.SCORE, as in scores.video_top1")
    if colon and not Path(path).is_file():
        raise ConfigError(f"{text!r}: there is no pipeline file {path!r}")
    _, record = _record(f"{path}{colon}{node}", config)
    known = scores_of(record)
    if metric not in known:
        raise ConfigError(f"{text!r}: {node} has no such score.{nearest(metric, known)} It has: {', '.join(known)}")
    return (record.key, metric), known[metric]


def _record(text: str, config: Path | None) -> tuple[History, Record]:
    """The finished node that a person means. Raises ConfigError when there is none."""
    path, colon, node = text.rpartition(":")
    if colon and Path(path).is_file():
        file = load_pipeline(Path(path).absolute())
        if node not in file.nodes:
            raise ConfigError(
                f"{text}: no node {node!r}.{nearest(node, file.nodes)} There are: {', '.join(file.nodes)}"
            )
        return _finished(file, node)
    file = load_pipeline(find_pipeline_file(config))
    if text in file.nodes:
        return _finished(file, text)
    if len(text) < _MIN_PREFIX_DIGITS or set(text) - set("0123456789abcdef"):
        raise ConfigError(
            f"{text!r} is neither a file, nor a node of {file.path.name}, nor the first {_MIN_PREFIX_DIGITS} or more "
            f"digits of a key (`reelwright compare` lists keys).{nearest(text, file.nodes)} "
            f"Nodes: {', '.join(file.nodes)}"
        )
    history = History.of(file.store)
    return history, history.find(text)


def _finished(file: PipelineFile, node: str) -> tuple[History, Record]:
    from reelwright.pipeline.run.runner import open_planner

    plan = open_planner(file, read=True).plan(node)
    if plan.record is None:
        raise StoreError(f"{node} has no record for its present settings: {'; '.join(plan.reasons)}. Run it first")
    return History.of(file.store), plan.record


def _print_diff(found: Comparison, *, as_json: bool) -> None:
    if as_json:
        print_json(_diff_json(found))
        return
    if not (found.settings or found.nodes or found.scores):
        typer.echo("no difference")
        return
    if found.settings:
        rows = [
            (change.name, shown(change.old), shown(change.new), "" if change.counts else "no: how, not what")
            for change in found.settings
        ]
        typer.echo(table_text(("setting", "A", "B", "changes results"), rows) + "\n")
    keys = [(change.node, _key(change.old), _key(change.new)) for change in found.nodes]
    typer.echo(table_text(("node", "key in A", "key in B"), keys) if keys else "keys: all equal")
    scores = [
        (
            f"{change.node}.{change.metric}".lstrip("."),
            number_text(change.old),
            number_text(change.new),
            "" if change.old is None or change.new is None else f"{change.new - change.old:+.4g}",
        )
        for change in found.scores
    ]
    typer.echo("\n" + (table_text(("score", ">A", ">B", ">B - A"), scores) if scores else "scores: none differs"))


def _diff_json(found: Comparison) -> dict[str, Any]:
    """Plain data; a side that has no such setting lacks ``old`` or ``new``."""
    settings = [
        {name: value for name, value in vars(change).items() if value is not MISSING} for change in found.settings
    ]
    return {
        "settings": settings,
        "nodes": [dataclasses.asdict(change) for change in found.nodes],
        "scores": [dataclasses.asdict(change) for change in found.scores],
    }


def _run_json(row: RunRow) -> dict[str, Any]:
    record = row.record
    named = {"key": record.key, "node": record.node, "stage": record.stage, "finished": record.finished}
    values = {"scores": dict(row.scores), "targets": dict(row.targets), "settings": dict(row.settings)}
    return {**named, "seconds": record.seconds, **values}


def _key(key: str | None) -> str:
    if key is None:
        return "(no such node)"
    return short(key) if key else "(not known yet)"
