"""docs/scene-augmentations.md: its settings are ones that finetune takes, and it has a sheet of every augmentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from PIL import Image
from pydantic import BaseModel

from reelwright.cli.inspect.settings import settings
from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.plan.graph import build_graph
from reelwright.stages.augment.config import AugmentSettings
from reelwright.stages.augment.scene.config import ForegroundSettings, SceneSettings
from reelwright.stages.finetune.config import FinetuneConfig
from tests.scene_sheets import FOLDER, LEFT, SHEETS, THUMB, TOP, sheet

PAGE = (FOLDER.parents[1] / "scene-augmentations.md").read_text(encoding="utf-8")
PIPELINE, BLOCK = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_its_pipeline_hangs_together(tmp_path: Path) -> None:
    path = tmp_path / "reelwright.yaml"
    path.write_text(PIPELINE, encoding="utf-8")
    file = load_pipeline(path)
    assert set(build_graph(file).nodes) == set(file.nodes)
    tuned = file.nodes["tuned"]
    assert isinstance(tuned, FinetuneConfig)
    assert tuned.augment.scene == SceneSettings()


def test_its_settings_are_the_defaults_but_for_what_is_switched_off() -> None:
    scene = AugmentSettings(**yaml.safe_load(BLOCK)["augment"]).scene
    assert scene == SceneSettings(foreground=ForegroundSettings(shift=None))


def test_the_settings_command_lists_them_with_what_they_mean(capsys: pytest.CaptureFixture[str]) -> None:
    settings("finetune")
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("augment.scene.camera.shake.least = (1.0, 2.0)")
    assert lines[place + 1].strip().startswith("Least standard deviation at the start and at the end")
    assert {"augment.scene = None", "augment.scene.camera.shake = {}", "optimizer.groups = ()"} <= set(lines)
    settings("embed")
    assert "views.augment.crop_scale = (0.8, 1.0)" in capsys.readouterr().out.splitlines()


def test_its_table_has_every_switch() -> None:
    """Blocks that can be null, of all levels."""
    named = set(re.findall(r"^\| `([\w.]+)`", PAGE, re.MULTILINE))
    assert _switches(SceneSettings) - named <= {"foreground", "camera"}


def _switches(block: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, field in block.model_fields.items():
        inner = [
            entry for entry in get_args(field.annotation) if isinstance(entry, type) and issubclass(entry, BaseModel)
        ]
        for entry in inner:
            found |= {f"{prefix}{name}", *_switches(entry, f"{prefix}{name}.")}
    return found


def test_every_sheet_is_shown_and_small() -> None:
    assert sorted(re.findall(r"pictures/scene/([\w-]+)\.png", PAGE)) == sorted(SHEETS)
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(SHEETS)
    for name in SHEETS:
        path = FOLDER / f"{name}.png"
        assert path.stat().st_size < 100_000
        with Image.open(path) as picture:
            assert picture.size == sheet(name, torch.zeros(4, 8, 3, 16, 16)).size


@pytest.mark.parametrize("name", ["camera-zoom", "background-static", "easy-key"])
def test_a_sheet_has_clips_as_they_are_read_and_as_they_are_seen(name: str) -> None:
    clips = torch.rand(4, 8, 3, THUMB, THUMB, generator=torch.Generator().manual_seed(0))
    picture = sheet(name, clips)
    first = picture.crop((LEFT, TOP, LEFT + THUMB, TOP + THUMB))
    frame = Image.fromarray((clips[0, 0] * 255).round().byte().movedim(0, -1).numpy())
    second = picture.crop((LEFT, TOP + THUMB + 2, LEFT + THUMB, TOP + 2 * THUMB + 2))
    assert (first.tobytes() == frame.tobytes()) == (name != "easy-key")
    assert second.tobytes() not in {first.tobytes(), frame.tobytes()}
