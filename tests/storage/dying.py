"""A bucket in memory whose service can fall silent, come back and come back empty: `dying://bucket/...` for fsspec."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from reelwright.storage.store import Store

BUCKET = "bucket"


class DyingFileSystem(AsyncFileSystem):
    """Objects by name; listed folder by folder, as fsspec does where a file system has no `find` of its own."""

    protocol = "dying"
    objects: ClassVar[dict[str, bytes]] = {}
    buckets: ClassVar[set[str]] = {BUCKET}
    fails: ClassVar[Callable[[str], bool]] = staticmethod(lambda _: False)  # by the name of what is asked for

    @classmethod
    def ask(cls, path: str) -> str:
        """The name of an object. Raises what a service that does not answer raises."""
        name = cls._strip_protocol(path).strip("/")
        if cls.fails(name):
            raise OSError(5, f"no answer about {name}")
        if name.partition("/")[0] not in cls.buckets:
            raise FileNotFoundError("The specified bucket does not exist")
        return name

    def _entry(self, name: str) -> dict[str, Any]:
        content = self.objects[name]
        return {"name": name, "size": len(content), "type": "file", "ETag": hashlib.md5(content).hexdigest()}

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        name = self.ask(path)
        if name in self.objects:
            return self._entry(name)
        if name in self.buckets or any(other.startswith(f"{name}/") for other in self.objects):
            return {"name": name, "size": 0, "type": "directory"}
        raise FileNotFoundError(name)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        name = self.ask(path)
        below = [other for other in self.objects if other.startswith(f"{name}/")]
        if not below:
            if name not in self.objects:
                raise FileNotFoundError(name)
            return [self._entry(name)] if detail else [name]
        children = {f"{name}/{other[len(name) + 1 :].partition('/')[0]}" for other in below}
        entries = [
            self._entry(child) if child in self.objects else {"name": child, "size": 0, "type": "directory"}
            for child in sorted(children)
        ]
        return entries if detail else [entry["name"] for entry in entries]

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        name = self.ask(path)
        if name not in self.objects:
            raise FileNotFoundError(name)
        return self.objects[name][start:end]

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        name = self.ask(path)
        if mode == "create" and name in self.objects:
            raise FileExistsError(name)
        self.objects[name] = bytes(value)

    async def _get_file(self, rpath: str, lpath: str, **_: Any) -> None:
        Path(lpath).write_bytes(await self._cat_file(rpath))  # noqa: ASYNC240 - of a few bytes

    async def _put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **_: Any) -> None:
        await self._pipe_file(rpath, Path(lpath).read_bytes(), mode=mode)  # noqa: ASYNC240

    async def _rm_file(self, path: str, **_: Any) -> None:
        name = self.ask(path)
        if name not in self.objects:
            raise FileNotFoundError(name)
        del self.objects[name]


class Service:
    """The service as a test sees it, and machines that use a store in it, one after the other in this process."""

    url = f"dying://{BUCKET}/store"

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, patch
        self.objects: dict[str, bytes] = {}
        patch.setattr(DyingFileSystem, "objects", self.objects)
        patch.setattr(DyingFileSystem, "buckets", {BUCKET})
        self.answer()

    def use(self, machine: str) -> Store:
        """The store as a machine sees it on which no process has run yet."""
        self._patch.setenv("REELWRIGHT_CACHE", str(self._folder / machine))
        store = Store.at(self.url)
        store.backend.forget()
        return store

    def fall_silent(self, about: str = "") -> None:
        """From now on nothing is answered, or nothing about names that hold ``about``."""
        self._patch.setattr(DyingFileSystem, "fails", staticmethod(lambda name: about in name))

    def answer(self) -> None:
        """Answer again."""
        self._patch.setattr(DyingFileSystem, "fails", staticmethod(lambda _: False))

    def lose_everything(self) -> None:
        """Come back with an empty bucket."""
        self.objects.clear()

    def lose_the_bucket(self) -> None:
        """Come back without it."""
        self.objects.clear()
        self._patch.setattr(DyingFileSystem, "buckets", set())

    def names(self, area: str = "") -> set[str]:
        """Objects of the store."""
        base = f"{BUCKET}/store/"
        found = {name.removeprefix(base) for name in self.objects if name.startswith(base)}
        return {name for name in found if name.startswith(area)}


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    fsspec.register_implementation("dying", DyingFileSystem, clobber=True)
    return Service(tmp_path, monkeypatch)
