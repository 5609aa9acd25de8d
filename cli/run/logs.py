"""The command `logs`: what failed, by cause; of a node with its log files, of a video what became of it everywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelwright.cli.completion import complete_node
from reelwright.cli.options import ConfigOption, JsonOption, SetOption
from reelwright.storage.errors import ConfigError, nearest

if TYPE_CHECKING:
    from reelwright.pipeline.inspect.logs import Said
    from reelwright.pipeline.plan.plan import Planner
    from reelwright.pipeline.run.results import Failure

_SHOWN_MESSAGE_LETTERS = 80
_TAIL_LINES = 40


def logs(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE|VIDEO]...", help="Only these; with --release: only videos.", autocompletion=complete_node
        ),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    release: Annotated[
        bool, typer.Option("--release", help="Let quarantined videos go: the next `run` tries them again.")
    ] = False,
    whole: Annotated[bool, typer.Option("--all", help="Log files whole, not only their ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what failed, by cause, over all nodes; of a NODE with its logs; of a VIDEO what became of it in every node.

    `run` tries videos again until they failed videos.quarantine_after times; from then on they are quarantined: left
    alone until their content changes, --release lets them go, or `run --retry-quarantined`.
    """
    from reelwright.cli.format import print_json
    from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.run.results import all_failures
    from reelwright.pipeline.run.runner import open_planner

    planner = open_planner(load_pipeline(find_pipeline_file(config), overrides or ()), read=True)
    if release:
        _release(planner, names or (), as_json=as_json)
        return
    found = all_failures(planner)
    if not names:
        print_json(_failures_json(found)) if as_json else _print_failures(found)
        return
    answers: dict[str, Any] = {}
    for name in names:
        if name in planner.graph.nodes:
            own = [failure for failure in found if failure.node == name]
            answers[name] = _show_node(planner, name, own, whole=whole, quiet=as_json)
        else:
            answers[name] = _show_video(planner, name, whole=whole, quiet=as_json)
    if as_json:
        print_json(answers[names[0]] if len(names) == 1 else answers)


def _show_node(planner: Planner, name: str, own: Sequence[Failure], *, whole: bool, quiet: bool) -> dict[str, Any]:
    """Print what failed in a node and the logs of its workers; as plain data."""
    from reelwright.pipeline.inspect.logs import logs_of_node

    files = logs_of_node(planner, name)
    if not quiet:
        _print_failures(own, where=f" in {name}")
        _print_files(files, whole=whole)
    return {**_failures_json(own), "logs": [str(path) for path in files]}


def _show_video(planner: Planner, name: str, *, whole: bool, quiet: bool) -> list[dict[str, object]]:
    """Print what became of a video in every node, and what was said while it failed; as plain data."""
    from reelwright.pipeline.inspect.logs import account

    try:
        found = account(planner, name)
    except ConfigError as error:
        nodes = list(planner.graph.nodes)
        raise ConfigError(f"{error} Nor is it a node.{nearest(name, nodes)} Nodes: {', '.join(nodes)}") from None
    for said in () if quiet else found:
        typer.echo(f"{name} in {said.node}: {status_text(said)}")
        _print_files(said.files, whole=whole)
    if not quiet and not found:
        why = "no node has tried it with its present settings"
        if name in {entry.video_id for entry in planner.dataset.new}:
            why = "its content is not read, `run` reads it first"
        typer.echo(f"nothing is known of {name} yet: {why}")
    return [_plain(said) for said in found]


def _print_files(files: Sequence[Path], *, whole: bool) -> None:
    for path in files:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        shown = lines if whole else lines[:1] + [line for line in lines[1:] if line[:1] != "#"][-_TAIL_LINES:]
        typer.echo("\n".join([f"  {path}", *(f"  | {line}" for line in shown)]))


def status_text(said: Said) -> str:
    """What became of a video in a node, on one line."""
    row = said.row
    if row is None:
        return "not finished"
    cause = f" ({row.cause})" if row.cause else ""
    message = f": {row.message}" if row.message else ""
    return f"{row.status}, {row.rows} rows, {row.attempts} attempts{cause}{message}"


def _plain(said: Said) -> dict[str, object]:
    row = dataclasses.asdict(said.row) if said.row is not None else None
    return {"node": said.node, "row": row, "logs": [str(path) for path in said.files]}


def _print_failures(found: Sequence[Failure], *, where: str = "") -> None:
    from reelwright.cli.format import failure_table, table_text

    if not found:
        typer.echo(f"no video failed{where}")
        return
    rows = [
        (
            cause["node"],
            cause["status"],
            cause["cause"],
            f"{cause['videos']:,}",
            f"{cause['attempts']}",
            f"{cause['quarantined']:,}",
            cause["example"],
        )
        for cause in _causes(found)
    ]
    header = ("node", "status", "cause", ">videos", ">attempts", ">quarantined", "for instance")
    typer.echo(f"{table_text(header, rows)}\n\n{failure_table(found)}")


def _failures_json(found: Sequence[Failure]) -> dict[str, Any]:
    return {"causes": _causes(found), "failures": [dataclasses.asdict(failure) for failure in found]}


def _release(planner: Planner, videos: Sequence[str], *, as_json: bool) -> None:
    from reelwright.cli.format import print_json
    from reelwright.pipeline.upkeep.quarantine import release

    released = release(planner, videos)
    if as_json:
        print_json({"released": [{"node": node, "video_id": name} for node, name in released]})
        return
    for node, name in released:
        typer.echo(f"{name} of {node} is tried again by the next `run`")
    if not released:
        typer.echo(f"no video is quarantined{f' of {len(videos)} named' if videos else ''}")


def _causes(found: Sequence[Failure]) -> list[dict[str, Any]]:
    """Failures counted by node, status and cause, the most frequent first."""
    groups: dict[tuple[str, str, str], list[Failure]] = {}
    for failure in found:
        groups.setdefault((failure.node, failure.row.status, failure.row.cause), []).append(failure)
    causes = [
        {
            "node": node,
            "status": status,
            "cause": cause,
            "videos": len(members),
            "quarantined": sum(member.is_quarantined for member in members),
            "attempts": max(member.row.attempts for member in members),
            "example": members[0].row.message[:_SHOWN_MESSAGE_LETTERS],
        }
        for (node, status, cause), members in groups.items()
    ]
    return sorted(causes, key=lambda entry: -entry["videos"])
