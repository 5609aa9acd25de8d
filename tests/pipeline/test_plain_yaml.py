"""Plain YAML is read as OmegaConf reads it, or left to OmegaConf."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from reelwright.pipeline.config.pipeline_file import load_pipeline, read_plain
from reelwright.storage.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[2] / "pipeline" / "config" / "recipes").glob("*.yaml"))
SCALARS = """
3e-4 1e5 1E+3 .5 5. 5.0 -1 +2 0 -0 007 0o7 0x1f 0b1 1_000 1:30 1:30.5 .inf -.inf .nan 2024-01-01 1.2.3 256x256 - -a
./a ../a a.b ~ null Null true TRUE yes Off n y = '5' '3e-4' 'true' 'null' '' word a/b.mp4 timm/vit_s.in1k x=1,y=2
s3://b/c 1e 1e+ 1.e3 .e3 -.5 +.5 00 0.0 1e-400 12345678901234567890 é `a` @a
""".split()  # noqa: SIM905 - a list of sixty lines


def omega(path: Path) -> object:
    return OmegaConf.to_container(OmegaConf.load(path), resolve=True)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_read_alike(recipe: Path) -> None:
    values = read_plain(recipe)
    assert values is None or repr(values) == repr(omega(recipe))


def test_plain_recipes_need_no_omegaconf() -> None:
    assert {"default", "demo", "st_abn"} <= {recipe.stem for recipe in RECIPES if read_plain(recipe) is not None}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_are_read_alike_with_their_type_or_left_to_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for form in (f"a: {text}\n", f"a: [{text}, 1]\n", f"a: {{b: {text}}}\n"):
        path.write_text(form, encoding="utf-8")
        values = read_plain(path)
        assert values is None or repr(values) == repr(omega(path))
    assert text not in {"3e-4", "-1", "5.0", "yes", "word", "'3e-4'", "~"} or values is not None


@pytest.mark.parametrize(
    "text",
    [
        "a: ${oc.env:HOME}",
        "a: &x {b: *x}",
        "a: &a [1, 2, 3, 4, 5, 6]\nb: &b [*a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c]",
        "a: !!str 5",
        "a: 1\na: 2",
        "1: a",
        "true: a",
        "a: {<<: {b: 1}}",
        "- a",
        "a: [",
        "a: 1\n---\nb: 2",
        "",
        "a: ???",
        'a: "\\\\${b}"',
    ],
)
def test_what_is_not_plain_is_left_to_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    assert read_plain(path) is None
    assert read_plain(tmp_path / "b.yaml") is None


def test_text_over_several_lines_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text('a: |\n  one\n  two\nb: >-\n  3\n  4\nc:\n  - x  # said\n  -\nd: "5\\u00e9"\n', encoding="utf-8")
    assert read_plain(path) is None  # an escape
    path.write_text(path.read_text(encoding="utf-8").replace("\\u00e9", ""), encoding="utf-8")
    assert repr(read_plain(path)) == repr(omega(path))


@pytest.mark.parametrize("overrides", [[], ["videos.workers=1"]], ids=["plain", "laid over"])
def test_stages_that_are_no_mapping_are_refused_with_and_without_overrides(
    overrides: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("videos: {folder: .}\nstages: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="stages"):
        load_pipeline(path, overrides)
