"""The command `failures`: what failed, by cause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from reelwright.cli.options import ConfigOption, JsonOption, SetOption

if TYPE_CHECKING:
    from reelwright.pipeline.results import Failure

_SHOWN_MESSAGE_LETTERS = 80


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look")(failures)


def failures(
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the videos that failed, by cause, over all nodes; `run` tries them again, `run --no-retry` leaves them."""
    import dataclasses

    from reelwright.cli.format import failure_table, print_json, table_text
    from reelwright.pipeline.file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.runner import all_failures, open_planner

    found = all_failures(open_planner(load_pipeline(find_pipeline_file(config), overrides or ())))
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
                cause["example"],
            )
            for cause in causes
        ]
        typer.echo(table_text(("node", "status", "cause", ">videos", ">attempts", "for instance"), rows))
        typer.echo(f"\n{failure_table(found)}")


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
            "attempts": max(member.row.attempts for member in members),
            "example": members[0].row.message[:_SHOWN_MESSAGE_LETTERS],
        }
        for (node, status, cause), members in groups.items()
    ]
    return sorted(causes, key=lambda entry: -entry["videos"])
