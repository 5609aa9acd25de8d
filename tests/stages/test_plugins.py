"""Plug-ins: what a name is, what of its source counts, and that just what was digested is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reelwright.stages.base import plugin_source
from reelwright.stages.base.plugins import Plugin, PluginUse, check_plugin, checked_options, find_plugin, load_plugin
from reelwright.storage.errors import ConfigError

NET = '''
"""A net."""
import math
from parts import half
from tools import deep


class Net:
    """What it is."""

    def __init__(self, sizes, *, width: int = 8, shares: tuple[float, float] = (0.5, 0.5)):
        self.width = half(width)  # of a part
        self.sizes, self.depth = sizes, deep.DEPTH
'''
FILES = {
    "net.py": NET,
    "parts.py": "def half(x):\n    return x // 2\n",
    "tools/deep.py": "DEPTH = 3\n",
    "unused.py": "X = 1\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a plug-in of several files; what they import is forgotten afterwards."""
    write(tmp_path, FILES)
    yield tmp_path
    for name in list(plugin_source._served):
        plugin_source._served.pop(name)
        sys.modules.pop(name, None)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)


def find(folder: Path, name: str = "net.py:Net") -> Plugin:
    return find_plugin("models", name, folder=folder)


def load(plugin: Plugin) -> object:
    return load_plugin("models", plugin.name, {f"models:{plugin.name}": plugin.plain()})


@pytest.mark.parametrize(
    ("file", "old", "new", "counts"),
    [
        ("net.py", "width: int = 8", "width: int = 9", True),
        ("net.py", "# of a part", "# of another", False),
        ("net.py", '"""What it is."""', '"""What it was."""', False),
        ("net.py", "self.sizes, self.depth = sizes", "self.sizes,   self.depth=sizes", False),
        ("parts.py", "x // 2", "x // 3", True),
        ("tools/deep.py", "3", "4", True),
        ("unused.py", "1", "2", False),
    ],
)
def test_what_of_the_source_counts(folder: Path, file: str, old: str, new: str, *, counts: bool) -> None:
    before = find(folder).identity
    text = (folder / file).read_text()
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new))
    assert (find(folder).identity != before) == counts


def test_the_digest_of_a_source_is_pinned(folder: Path) -> None:
    assert find(folder).identity == {"source": "0534fa1a508ad35e791615524825bf8f"}


def test_the_folder_is_no_part_of_the_identity(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write(other, FILES)
    assert find(other).identity == find(folder).identity


def test_what_is_imported_is_what_was_digested(folder: Path) -> None:
    """Python's own cache of compiled modules would not see a change of equal length within the same second."""
    first = load(find(folder))(None)  # type: ignore[operator]
    assert (first.width, first.depth) == (4, 3)
    write(folder, {"tools/deep.py": "DEPTH = 5\n"})
    assert load(find(folder))(None).depth == 5  # type: ignore[operator]


def test_two_projects_may_have_modules_of_one_name(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write(other, FILES | {"parts.py": "def half(x):\n    return x\n"})
    nets = [load(find(place)) for place in (folder, other, folder)]
    assert [net(None).width for net in nets] == [4, 8, 4]  # type: ignore[operator]


def test_two_plugins_share_what_both_import(folder: Path) -> None:
    write(folder, {"loss.py": "from parts import half\nclass Loss: half = half\n"})
    net, loss = load(find(folder)), load(find(folder, "loss.py:Loss"))
    assert sys.modules[net.__module__].half is loss.half  # type: ignore[attr-defined]


def test_a_changed_source_is_not_imported(folder: Path) -> None:
    plugin = find(folder)
    write(folder, {"parts.py": "raise SystemExit('was run')\n"})
    with pytest.raises(ConfigError, match=r"net.py:Net is not what the plan was made of.*has changed since; run again"):
        load(plugin)


def test_imports_that_the_source_does_not_show_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    write(folder, {"net.py": NET.replace("import math", "import importlib\nimportlib.import_module('unused')")})
    with pytest.raises(ConfigError, match=r"imports unused .* in a way that its source does not show"):
        load(find(folder))


def test_a_name_that_a_run_alone_knows_is_not_imported(folder: Path) -> None:
    write(folder, {"net.py": "raise SystemExit('was run')\n"})
    with pytest.raises(ConfigError, match=r"'net.py:Net' is a plug-in of the group models that nothing here names"):
        load_plugin("models", "net.py:Net", {})


def test_finding_imports_nothing(folder: Path) -> None:
    write(folder, {"net.py": "raise SystemExit('was run')\n"})
    assert find(folder).identity


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("nte.py:Net", {}, r"nte.py: no such file"),
        ("net.py:Nett", {}, r"net.py has no Nett. Did you mean 'Net'"),
        ("net.py:Net", {"net.py": "class Net(:\n"}, r"net.py:1: no Python"),
        (
            "net.py:Net",
            {"net.py": "import torhc\n"},
            r"cannot be imported: ModuleNotFoundError: No module named 'torhc'",
        ),
        ("net.py:Net", {"net.py": "\nx = y\n"}, r"NameError: name 'y' is not defined \(.*net.py:2\)"),
        ("no_such_package.net:Net", {}, r"no module 'no_such_package.net' is found"),
        ("random.py:Net", {"random.py": ""}, r"a module cannot be called random; rename the file"),
        ("yaml.py:Net", {"yaml.py": ""}, r"a module called yaml is imported already, from .*; rename the file"),
        ("nett", {}, r"'nett' is no plug-in: no installed package offers it as an entry point of reelwright.models"),
    ],
)
def test_what_is_not_there_is_told(folder: Path, name: str, files: dict[str, str], message: str) -> None:
    write(folder, files)
    with pytest.raises(ConfigError, match=message):
        load(find(folder, name))


OPTIONS = [
    ({"widht": 4}, r"unknown option of net.py:Net 'widht'. Did you mean 'width'\? Known: width, shares"),
    ({"width": "four"}, r"width is 'four': Input should be a valid integer"),
    ({"width": True}, r"width is True: Input should be a valid integer"),
    ({"shares": [1.0]}, r"shares is \[1.0\]"),
    ({"sizes": 3}, r"unknown option of net.py:Net 'sizes'"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_options_are_held_against_the_signature(folder: Path, options: dict[str, object], message: str) -> None:
    use = PluginUse(group="models", name="net.py:Net", options=options, num_given=1)
    with pytest.raises(ConfigError, match=message):
        check_plugin(use, find(folder))


def test_options_have_the_types_of_the_signature(folder: Path) -> None:
    found = checked_options(load(find(folder)), {"shares": [1, 0]}, name="net", num_given=1)  # type: ignore[arg-type]
    assert found == {"shares": (1.0, 0.0)}


def test_an_option_without_default_has_to_be_given() -> None:
    with pytest.raises(ConfigError, match=r"net: option width is missing; it has no default"):
        checked_options(lambda sizes, *, width: (sizes, width), {}, name="net", num_given=1)
    with pytest.raises(ConfigError, match=r"net takes 0 arguments, but is given 1 besides its options"):
        checked_options(lambda: None, {}, name="net", num_given=1)


INSTALLED = {
    "toy_nets/__init__.py": "",
    "toy_nets/net.py": "class Net:\n    pass\n",
    "toy_nets-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy-nets\nVersion: 1.0\n",
    "toy_nets-1.0.dist-info/top_level.txt": "toy_nets\n",
    "toy_nets-1.0.dist-info/entry_points.txt": "[reelwright.models]\ntoy = toy_nets.net:Net\n",
    "toy_nets-1.0.dist-info/RECORD": "toy_nets/__init__.py,sha256=aaa,0\ntoy_nets/net.py,sha256=bbb,23\n",
}


@pytest.fixture
def site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a package is installed, as pip does."""
    place = folder / "site"
    write(place, INSTALLED)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setattr(plugin_source, "_library_folders", lambda: (f"{place.resolve()}/", *_folders))
    yield place
    for name in [name for name in sys.modules if name.startswith("toy_nets")]:
        del sys.modules[name]


_folders = plugin_source._library_folders()


@pytest.mark.parametrize("name", ["toy", "toy_nets.net:Net"])
def test_an_installed_package_is_known_by_its_version_and_files(site: Path, name: str) -> None:
    plugin = find(site, name)
    assert plugin.identity.keys() == {"distribution", "version", "files"}
    assert (plugin.identity["distribution"], plugin.identity["version"]) == ("toy-nets", "1.0")
    assert load(plugin).__module__ == "toy_nets.net"
    write(site, {"toy_nets-1.0.dist-info/RECORD": "toy_nets/net.py,sha256=ccc,23\n"})
    assert find(site, name).identity["files"] != plugin.identity["files"]
    with pytest.raises(ConfigError, match="has changed since; run again"):
        load(plugin)


def test_what_a_package_offers_may_be_imported_for_a_run(site: Path) -> None:
    assert load_plugin("models", "toy", {}).__name__ == "Net"
    with pytest.raises(ConfigError, match="nothing here names"):
        load_plugin("models", "toy_nets.net:Net", {})
    with pytest.raises(ConfigError, match="nothing here names"):
        load_plugin("objectives", "toy", {})


def test_a_package_that_runs_from_a_folder_is_known_by_its_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"lab/__init__.py": "", "lab/net.py": "from . import base\nclass Net: size = base.SIZE\n"})
    write(folder, {"lab/base.py": "SIZE = 1\n", "lab/other.py": "raise SystemExit\n"})
    monkeypatch.syspath_prepend(folder)
    plugin = find(folder, "lab.net:Net")
    assert plugin.identity.keys() == {"source"}
    assert load(plugin).size == 1  # type: ignore[attr-defined]
    write(folder, {"lab/base.py": "SIZE = 2\n"})
    again = find(folder, "lab.net:Net")
    assert again.identity != plugin.identity
    assert load(again).size == 2  # type: ignore[attr-defined]
    assert load(replace(again)) is load(again)
