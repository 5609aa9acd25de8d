"""Class files: plain arrays that come back as they were, and files that are no class files."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.families.class_files import find_classes, read_class, write_class
from reelwright.stages.synthesize.families.table import FAMILIES
from reelwright.stages.synthesize.family_settings import FractalConfig
from reelwright.storage.errors import InputError


def drawn(family: str, *, still: bool = False) -> dict[str, np.ndarray]:
    fractal = FractalConfig(still=still)
    config = SynthesizeConfig(family=family, fractal=fractal)
    return FAMILIES[family].draw_class(np.random.default_rng(0), config, variation=0)


@pytest.mark.parametrize(
    ("family", "still"),
    [("fractal", False), ("fractal", True), ("octopus", False), ("dead_leaves", False)],
    ids=["fractal", "still fractal", "octopus", "dead leaves"],
)
def test_a_class_comes_back_as_it_was(tmp_path: Path, family: str, still: bool) -> None:
    parameters = drawn(family, still=still)
    write_class(tmp_path / "1.npz", parameters)
    write_class(tmp_path / "2.npz", parameters)
    found = read_class(tmp_path / "1.npz", family=family)
    assert set(found) == set(parameters)
    for name, values in parameters.items():
        np.testing.assert_array_equal(found[name], values)
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def test_published_fractal_classes_open(tmp_path: Path) -> None:
    """The published generator saves float32 arrays and a plain bool under these names."""
    parameters = {name: values.astype(np.float32) for name, values in drawn("fractal").items()}
    np.savez(tmp_path / "1-0.npz", **{**parameters, "var": 0, "is_constant": True})
    assert read_class(tmp_path / "1-0.npz", family="fractal")["sigma"].shape[2:] == (2, 2)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_changed(path: Path, **changes: object) -> None:
    np.savez(path, **{name: values for name, values in {**drawn("fractal"), **changes}.items() if values is not None})


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda path: path.write_text("text"), "not a zip file"),
        (lambda path: write_zip(path, {"var.npy": b"\x93NUMPY"}), "is no class file of fractal"),
        (lambda path: write_zip(path, {"big.npy": bytes(17 << 20)}), "unpacks to 17,825,792 bytes"),
        (lambda path: write_changed(path, sigma=None), "it has no 'sigma"),
        (lambda path: write_changed(path, var=np.array(23)), "var is 23: no such variation"),
        (lambda path: write_changed(path, bias=np.zeros((2, 2, 2))), "bias has the shape"),
        (lambda path: write_changed(path, interp=np.full((19, 3), np.nan)), "interp holds numbers that are not finite"),
        (lambda path: write_changed(path, interp=np.array("text")), "interp holds <U4, not numbers"),
        (lambda path: write_changed(path, interp=np.array([Evil()], dtype=object)), "allow_pickle=False"),
        (lambda path: path.write_bytes(pickle.dumps(Evil())), "is no class file of fractal"),
    ],
    ids=[
        "text",
        "broken array",
        "bomb",
        "missing",
        "variation",
        "shape",
        "not finite",
        "text array",
        "objects",
        "pickle",
    ],
)
def test_what_is_no_class_file_is_refused(tmp_path: Path, monkeypatch, write, match: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "1.npz")
    with pytest.raises(InputError, match=match):
        read_class(tmp_path / "1.npz", family="fractal")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"controls": np.ones((2, 2, 2, 5))}, r"controls has the shape \(2, 2, 2, 5\)"),
        ({"interp": np.zeros(19)}, r"interp has the shape \(19,\)"),
        ({"controls": np.full((3, 2, 2, 5), np.nan)}, "fewer than 3 values"),
    ],
    ids=["limbs", "profile", "controls"],
)
def test_octopuses_that_do_not_fit_together_are_refused(tmp_path: Path, changes: dict, match: str) -> None:
    fitting = {"interp": np.zeros((19, 3)), "controls": np.ones((3, 2, 2, 5))}
    write_class(tmp_path / "1.npz", fitting)
    read_class(tmp_path / "1.npz", family="octopus")
    write_class(tmp_path / "2.npz", {**fitting, **changes})
    with pytest.raises(InputError, match=match):
        read_class(tmp_path / "2.npz", family="octopus")


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    for name in ("10-0", "2-27", "1-4", "2-4"):
        (tmp_path / f"{name}.npz").touch()
    assert list(find_classes(tmp_path)) == ["1-4", "2-4", "2-27", "10-0"]


def test_a_folder_without_classes_is_told_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no class file .*--gen-param N"):
        find_classes(tmp_path / "nothing")
