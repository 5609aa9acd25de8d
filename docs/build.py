"""Build the documentation: `make docs`, or `python docs/build.py`.

Pages and the generated reference are gathered in build/docs, zensical makes build/site of them as mkdocs.yml says. It
fails on a link, anchor or picture that leads nowhere, a page that is in no navigation or the other way round, and
anything that a page would load from outside. The reference is not in git: it is what the code says, at any commit.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer
import yaml

from reelwright.cli.inspect.settings import Setting, all_settings, blocks, listed, models, objectives, settings_of
from reelwright.cli.main import app
from reelwright.stages.augment.config import AugmentSettings
from reelwright.stages.base.registry import STAGES
from reelwright.stages.pretrain.examples_config import ClipAugmentSettings, ImageAugmentSettings

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
DOCS, SITE = BUILD / "docs", BUILD / "site"
PACKAGES = ("cli", "pipeline", "stages", "models", "storage")
TOP_PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")
_AS_YAML = {"None": "null", "True": "true", "False": "false", "()": "[]", "''": "''"}

API = {
    "Projects": [
        "pipeline.api.project.Project",
        "pipeline.api.outputs.Run",
        "pipeline.api.outputs.Report",
        "pipeline.run.results.RunOptions",
        "pipeline.run.runner.RunResult",
    ],
    "A trained model": ["pipeline.api.model.Model", "stages.arrays.scores.ModelScores"],
    "Embeddings and predictions": [
        "stages.arrays.embeddings.Embeddings",
        "stages.arrays.embeddings.VideoEmbeddings",
        "stages.arrays.windows.WindowDataset",
        "stages.arrays.scores.Predictions",
        "pipeline.api.outputs.Store",
    ],
    "What is stored": [
        "storage.arrays.frames.FrameStore",
        "storage.arrays.frames.FrameRows",
        "storage.arrays.embeddings.EmbeddingStore",
        "storage.arrays.embeddings.EmbeddingRows",
        "storage.results.predictions.PredictionSet",
        "storage.results.runs.RunFolder",
    ],
    "Models and objectives of your own": [
        "models.contracts.VideoModel",
        "models.contracts.Part",
        "models.contracts.ClipModel",
        "models.encoders.base.Encoder",
        "models.encoders.base.DataConfig",
        "stages.objectives.contract.Objective",
        "stages.objectives.contract.LossParts",
    ],
    "Stages of your own": ["stages.base.registry.Stage", "stages.base.config.StageConfig", "stages.base.work"],
    "Tests for plug-ins": [
        "models.testing.TemporalModelTests",
        "models.testing.EncoderTests",
        "stages.testing.ObjectiveTests",
        "stages.testing.EvaluatorTests",
    ],
    "Errors": ["storage.errors"],
}


def gather() -> None:
    """Pages and generated ones in build/docs; in build/api the packages, where mkdocstrings finds them as one."""
    for folder in (DOCS, BUILD / "api", SITE):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", DOCS, ignore=shutil.ignore_patterns("build.py", "__pycache__"))
    for name in TOP_PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        (DOCS / name).write_text(text.replace("](docs/", "]("), encoding="utf-8")
    for page in DOCS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for target in set(re.findall(r"\]\(\.\./([^)#\s]+)", text)):
            if target not in TOP_PAGES:
                (DOCS / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / target, DOCS / target)
            text = text.replace(f"](../{target}", f"]({target}")
        page.write_text("\n".join(map(_table_line, text.split("\n"))), encoding="utf-8")
    for name, text in reference().items():
        path = DOCS / "reference" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    package = BUILD / "api" / "reelwright"
    package.mkdir(parents=True)
    # with it, what an editable installation calls `reelwright`, which holds nothing else, is not found instead
    (package / "__init__.py").symlink_to(ROOT / "pipeline" / "reelwright" / "__init__.py")
    for name in PACKAGES:
        (package / name).symlink_to(ROOT / name)


def reference() -> dict[str, str]:
    """Page -> Markdown: settings of stages and blocks, options of models and objectives, commands, Python."""
    named = {name: _table(settings_of(name)[0], all_settings(name)) for name in (*STAGES, *blocks())}
    pages = {name: _page(f"`{name}`", [table]) for name, table in named.items()}
    pages["models"] = _page(
        "Models", (f"## `{name}`\n\n{_described(owner)}" for name, owner in models().items()),
        "Options of `model: {name: ...}` of train, and of finetune for models that see clips.",
    )  # fmt: skip
    pages["objectives"] = _page(
        "Objectives", (f"## `{name}`\n\n{_described(owner, name)}" for name, owner in objectives().items()),
        "Options of `objective: {name: ...}`.",
    )  # fmt: skip
    augmentations = {
        "`finetune`: `augment`": AugmentSettings,
        "`pretrain` on clips: `clips.augment`": ClipAugmentSettings,
        "`pretrain` on key frames: `augment`": ImageAugmentSettings,
    }
    pages["augmentations"] = _page(
        "Augmentations", (f"## {title}\n\n{_described(owner)}" for title, owner in augmentations.items()),
        "What becomes of frames and clips before a model learns from them. Of rows only `mix` of [train](train.md) is.",
    )  # fmt: skip
    pages["commands"] = _page("Commands", _commands(typer.main.get_command(app), "reelwright"))
    parts = (
        f"## {title}\n\n" + "\n\n".join(f"::: reelwright.{name}" for name in names) for title, names in API.items()
    )
    pages["python"] = _page("Python", parts)
    return pages


def _page(title: str, parts: Iterable[str], lead: str = "") -> str:
    return "\n\n".join(filter(None, [f"# {title}", lead, *parts])) + "\n"


def _described(owner: type[Any], of_name: str = "") -> str:
    """The docstring of settings, and their table."""
    return _table(owner, listed(owner, of_name=of_name))


def _table(owner: type[Any], settings: Iterable[Setting]) -> str:
    rows = [_row(entry) for entry in settings]
    table = ["| setting and default | meaning |", "|---|---|", *rows] if rows else ["It has no options."]
    lead = " ".join((owner.__doc__ or "").split())
    return "\n\n".join(filter(None, [lead, "\n".join(table)]))


def _row(entry: Setting) -> str:
    default = _AS_YAML.get(entry.default, entry.default.strip("'"))
    limits = f"; {_cell(entry.allowed)}" if entry.allowed else ""
    given = "required" if default == "required" else f"<code>{html.escape(default)}</code>".replace("|", "&#124;")
    return f"| `{entry.name}`<br>{given}{limits} | {_cell(entry.meaning)} |"


def _cell(text: str) -> str:
    """Text in a cell of a table: what Markdown, HTML and the table would take for their own stays as it is."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _plain(part) for part in parts).replace("|", "\\|")


def _plain(text: str) -> str:
    return re.sub(r"([*_\[\]])", r"\\\1", text).replace("<", "&lt;")


def _table_line(line: str) -> str:
    """Bars in code in a table, which are escaped for GitHub, as Python-Markdown wants them."""
    if not line.startswith("|") or "\\|" not in line:
        return line
    return re.sub(
        r"`([^`]*\\\|[^`]*)`",
        lambda code: f"<code>{html.escape(code[1]).replace(chr(92) + '|', '&#124;')}</code>",
        line,
    )


def _commands(command: Any, path: str) -> Iterator[str]:
    """Help of a command and of those below it."""
    context = command.context_class(command)
    for name in sorted(command.list_commands(context)):
        inner, here = command.get_command(context, name), f"{path} {name}"
        if hasattr(inner, "list_commands"):
            yield from _commands(inner, here)
            continue
        rows = []
        for parameter in inner.params:
            names = ", ".join(f"`{each}`" for each in (*parameter.opts, *parameter.secondary_opts))
            shown = names if parameter.opts[0].startswith("-") else f"`{parameter.name.upper()}`"
            rows.append(f"| {shown} | {_cell(' '.join((getattr(parameter, 'help', '') or '').split()))} |")
        table = "\n".join(["| argument or option | meaning |", "|---|---|", *rows])
        yield f"## `{here}`\n\n{_cell(' '.join((inner.help or '').split()))}\n\n{table if rows else ''}"


def navigation() -> list[tuple[str, str, str]]:
    """(section, title, page) in the order of mkdocs.yml."""

    def walk(entries: list[Any], section: str) -> Iterator[tuple[str, str, str]]:
        for entry in entries:
            title, target = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
            if isinstance(target, list):
                yield from walk(target, f"{section} / {title}".removeprefix(" / "))
            else:
                yield section, title, target

    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return list(walk(yaml.safe_load(text[text.index("\nnav:") :])["nav"], ""))


def problems_of_navigation() -> list[str]:
    """Pages that are in no navigation, and the other way round."""
    named = {page for _, _, page in navigation()}
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    missing = [f"mkdocs.yml: {page} is in no navigation; add it to nav" for page in sorted(there - named)]
    return missing + [f"mkdocs.yml: nav names {page}, which is not there" for page in sorted(named - there)]


def problems_of_site() -> list[str]:
    """What pages would load from outside, and pictures that are not there."""
    found = []
    for path in sorted(SITE.rglob("*.html")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(SITE)
        loaded = re.findall(r"<(?:script|img|iframe|source|video)\b[^>]*?\bsrc=[\"']?([^\"'\s>]+)", text)
        loaded += re.findall(
            r"<link\b[^>]*?\bhref=[\"']?([^\"'\s>]+)", re.sub(r"<link rel=[\"']?canonical[^>]*>", "", text)
        )
        found += [f"{name} loads {each}" for each in loaded if re.match(r"(?:https?:)?//", each)]
        local = [each.partition("#")[0] for each in loaded if not re.match(r"(?:\w+:|//)", each)]
        folders = {each: SITE if each.startswith("/") else path.parent for each in local if each}
        found += [f"{name}: {each} is not there" for each in folders if not (folders[each] / each.lstrip("/")).exists()]
        if 'class="mermaid"' in text:
            found.append(f"{name} draws a diagram with Mermaid, which is loaded from outside; draw it as text")
    for path in sorted(SITE.rglob("*.css")):
        outside = re.findall(r"url\([\"']?((?:https?:)?//[^)\"']+)", path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(SITE)} loads {each}" for each in outside]
    return found


def llms() -> str:
    """llms.txt: every page of the navigation with its title and first sentence; the pages lie beside it as Markdown."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    about = re.search(r"^site_description: (.*)$", config, re.MULTILINE)
    assert about
    lines, last = ["# Reelwright", "", f"> {about[1]}"], ""
    for section, title, page in navigation():
        text = (DOCS / page).read_text(encoding="utf-8")
        heading = re.search(r"^# (.*)$", text, re.MULTILINE)
        body = re.sub(r"<!--[^>]*-->|^#[^\n]*$|^!\[[^\n]*$|```.*?```", "", text, flags=re.DOTALL | re.MULTILINE)
        first = next((part for part in body.split("\n\n") if re.match(r"\s*[\w`*(\[]", part)), "")
        sentence = re.split(r"(?<=\.)\s(?=[A-Z`])", " ".join(first.split()), maxsplit=1)[0]
        if section != last:
            lines, last = [*lines, "", f"## {section}", ""], section
        elif section == "" and lines[-1].startswith(">"):
            lines.append("")
        named = title or (heading[1].replace("`", "") if heading else page)
        lines.append(f"- [{named}]({page}){': ' + sentence if sentence and not sentence.startswith(':::') else ''}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Exit code 1 when something is wrong, with what it is on stderr."""
    gather()
    problems = problems_of_navigation()
    if not problems:
        command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", str(ROOT / "mkdocs.yml")]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        problems = [done.stdout + done.stderr] if done.returncode else problems_of_site()
    if problems:
        sys.stderr.write("\n".join(problems) + "\n")
        return 1
    for page in DOCS.rglob("*.md"):
        shutil.copy(page, SITE / page.relative_to(DOCS))
    (SITE / "llms.txt").write_text(llms(), encoding="utf-8")
    sys.stdout.write(f"{len(navigation())} pages: {SITE / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
