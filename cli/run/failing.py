"""The command `failures`: what failed, by cause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelwright.cli.options import ConfigOption, JsonOption, SetOption
from reelwright.storage.errors import ConfigError

if TYPE_CHECKING:
    from reelwright.pipeline.plan.plan import Planner
    from reelwright.pipeline.run.results import Failure

_SHOWN_MESSAGE_LETTERS = 80


def failures(
    videos: Annotated[
        list[str] | None, typer.Argument(metavar="[VIDEO]...", help="With --release: only these.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    release: Annotated[
        bool, typer.Option("--release", help="Let quarantined videos go: the next `run` tries them again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the videos that failed, by cause, over all nodes.

    `run` tries them again until they failed videos.quarantine_after times; from then on they are quarantined: left
    alone until their content changes, --release lets them go, or `run --retry-quarantined`.
    """
    import dataclasses

    from reelwright.cli.format import failure_table, print_json, table_text
    from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.run.runner import all_failures, open_planner

    planner = open_planner(load_pipeline(find_pipeline_file(config), overrides or ()), read=True)
    if videos and not release:
        raise ConfigError(f"failures {videos[0]!r}: videos are named with --release; `explain NODE VIDEO` tells of one")
    if release:
        _release(planner, videos or (), as_json=as_json)
        return
    found = all_failures(planner)
    causes = _causes(found)
    if as_json:
        print_json({"causes": causes, "failures": [dataclasses.asdict(failure) for failure in found]})
    elif not found:
        typer.echo("no video failed")
    else:
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
            for cause in causes
        ]
        typer.echo(
            table_text(("node", "status", "cause", ">videos", ">attempts", ">quarantined", "for instance"), rows)
        )
        typer.echo(f"\n{failure_table(found)}")


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
