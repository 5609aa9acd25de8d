"""Requests to object stores by fsspec: list, read, write, create exclusively, remove.

Nothing is remembered between requests, since other machines change the same objects.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import inspect
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from blake3 import blake3

from reelwright.storage.backend import Found
from reelwright.storage.bucket.object_systems import asking, objects_below, says_no_bucket
from reelwright.storage.errors import ConfigError

_CHECKSUMS = ("ETag", "etag", "e_tag", "md5Hash", "generation", "Content-MD5", "Digest", "sha", "blob_id")
_TIMES = ("LastModified", "last_modified", "mtime", "modify", "modificationTime", "updated", "created")
_VERSIONS = (*_CHECKSUMS, *_TIMES, "Last-Modified")
_UNLISTED = frozenset({"http", "https"})  # what they list are links of a page, if there is one
_CONDITIONAL = frozenset({"s3", "s3a"})  # whose file system passes If-Match on
_MD5 = re.compile("[0-9a-f]{32}")
_REMOVED_AT_ONCE = 1000
_LOOKED_AT_ONCE = 16


def list_objects(url: str) -> dict[str, Found]:
    """Everything below ``url`` by its name relative to it; empty where there is nothing.

    Raises ConfigError where the bucket is not there or may not be read, UnusableStoreError where nobody answers.
    """
    try:
        with asking(url) as (system, path):
            found = objects_below(system, path)
            base = system._strip_protocol(path).rstrip("/") + "/"  # noqa: SLF001 - how fsspec names paths in its answers
            return {name[len(base) :]: _found(entry) for name, entry in found.items() if name.startswith(base)}
    except FileNotFoundError:
        with asking(url) as (system, path):
            _check_bucket(system, path)
        return {}


def list_names(url: str) -> set[str]:
    """Names right below ``url``, objects and folders; empty where there is nothing."""
    try:
        with asking(url) as (system, path):
            return {str(entry).rstrip("/").rpartition("/")[2] for entry in system.ls(path, detail=False)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def look(url: str) -> Found | None:
    """Size and version of an object; None where there is none."""
    try:
        with asking(url) as (system, path):
            entry = system.info(path)
    except FileNotFoundError:
        return None
    return None if entry.get("type") == "directory" else _found(entry)


def look_at(urls: Sequence[str]) -> dict[str, Found | None]:
    """`look` at many, folder by folder where several lie in one and a listing says which versions they have."""
    folders: dict[str, list[str]] = {}
    for url in urls:
        folders.setdefault(url.rpartition("/")[0], []).append(url)
    found: dict[str, Found | None] = {}
    single: list[str] = []
    for folder, members in folders.items():
        if len(members) < 3 or folder.partition("://")[0].lower() in _UNLISTED:
            single += members
            continue
        try:
            with asking(folder) as (system, path):
                entries = system.ls(path, detail=True)
        except FileNotFoundError:
            entries = []
        files = (entry for entry in entries if entry["type"] != "directory")
        there = {str(entry["name"]).rpartition("/")[2]: _found(entry) for entry in files}
        listed = {url: there.get(url.rpartition("/")[2]) for url in members}
        single += [url for url, entry in listed.items() if entry is not None and not entry.version]
        found |= listed
    with ThreadPoolExecutor(_LOOKED_AT_ONCE) as pool:
        found.update(zip(single, pool.map(look, single), strict=True))
    return found


def read_object(url: str) -> bytes | None:
    """The content of a small object; None where there is none."""
    try:
        with asking(url) as (system, path):
            content: bytes = system.cat_file(path)
            return content
    except FileNotFoundError:
        return None


def read_objects(urls: Sequence[str]) -> dict[str, bytes]:
    """The contents of many small objects, read at once; those that are not there are left out, and only those."""
    if not urls:
        return {}
    contents: dict[str, bytes] = {}
    with asking(urls[0]) as (system, _):
        paths = {system._strip_protocol(url): url for url in urls}  # noqa: SLF001 - how fsspec names paths in its answers
        found: dict[str, bytes | Exception] = system.cat(list(paths), on_error="return")
        for path, content in found.items():
            if isinstance(content, bytes):
                contents[paths[path]] = content
            elif not isinstance(content, FileNotFoundError) or says_no_bucket(content):
                raise content
    return contents


def download(files: Mapping[str, Path]) -> None:
    """Bring objects (by URL) to local files, several at a time; their folders are made."""
    if not files:
        return
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    with asking(next(iter(files))) as (system, _):
        system.get([system._strip_protocol(url) for url in files], [str(path) for path in files.values()])  # noqa: SLF001


def upload(files: Mapping[Path, str]) -> None:
    """Write local files to objects (URLs), several at a time; each appears whole."""
    if not files:
        return
    with asking(next(iter(files.values()))) as (system, _):
        system.put([str(path) for path in files], [system._strip_protocol(url) for url in files.values()])  # noqa: SLF001


def write_object(url: str, content: bytes) -> None:
    """Write a small object."""
    with asking(url) as (system, path):
        system.pipe_file(path, content)


def create_object(url: str, content: bytes) -> bool:
    """Write an object unless there is one; whether this call made it. Of several at once only one does."""
    with asking(url) as (system, path):
        try:
            if system.protocol[0] == "file":
                with system.open(path, "xb") as file:
                    file.write(content)
            else:
                system.pipe_file(path, content, mode="create")
        except OSError as error:
            if isinstance(error, FileExistsError) or _is_other_version(error):
                return False
            raise
        return True


def rewrite_object(url: str, content: bytes, *, version: str) -> str | None:
    """Write an object that is as it was at ``version`` (`Found.version`); its new version, None where it is not.

    In one step on S3. Elsewhere it is looked for first, any version will do, and the new one is not told.
    """
    with asking(url) as (system, path):
        if system.protocol[0] not in _CONDITIONAL or not version:
            if look(url) is None:
                return None
            system.pipe_file(path, content)
            return ""
        try:
            done = system.pipe_file(path, content, IfMatch=version)
        except OSError as error:
            if says_no_bucket(error) or not (isinstance(error, FileNotFoundError) or _is_other_version(error)):
                raise
        else:
            return str(done["ETag"]).strip('"')
    found = look(url)  # where an answer was lost, the second try finds what the first one wrote
    return found.version if found is not None and read_object(url) == content else None


def _is_other_version(error: OSError) -> bool:
    """Whether a conditional write was refused; s3fs has an error of its own only for some servers' answers."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in {"PreconditionFailed", "412"}


def remove_objects(urls: Iterable[str]) -> None:
    """Remove objects; those that are not there are none the worse. Raises UnusableStoreError for one that stays."""
    wanted = list(urls)
    if not wanted:
        return
    with asking(wanted[0]) as (system, _):
        paths = [system._strip_protocol(url) for url in wanted]  # noqa: SLF001
        if len(paths) > 1 and system.protocol[0] in _CONDITIONAL:
            _remove_from_s3(system, paths)
            return
        at_once = [paths] if len(paths) > 1 and system.async_impl else paths
        for part in at_once:
            try:
                system.rm(part) if isinstance(part, list) else system.rm_file(part)
            except FileNotFoundError as error:  # none of them is there
                if says_no_bucket(error):
                    raise


def _remove_from_s3(system: Any, paths: Sequence[str]) -> None:
    """Many at once, as s3fs does, which does not look at what the service says of single objects."""
    for start in range(0, len(paths), _REMOVED_AT_ONCE):
        parts = [path.partition("/") for path in paths[start : start + _REMOVED_AT_ONCE]]
        listed = {"Objects": [{"Key": key} for _, _, key in parts], "Quiet": True}
        answer = system.call_s3("delete_objects", Bucket=parts[0][0], Delete=listed)
        for refused in answer.get("Errors", ()):
            raise OSError(f"{refused.get('Key')} cannot be removed: {refused.get('Code')} {refused.get('Message', '')}")


def check_creates_once(url: str) -> None:
    """Raise ConfigError where the store would let two processes create the same object: locks need that it does not."""
    with asking(url) as (system, _):
        # The other file systems of fsspec look whether there is an object, and then write one.
        is_one_step = system.protocol[0] == "file" or (
            system.async_impl and "mode" in inspect.signature(system._pipe_file).parameters  # noqa: SLF001
        )
    if not is_one_step:
        raise ConfigError(f"{url}: fsspec cannot create objects exclusively there, and locks need that. {_ELSEWHERE}")
    probe = f"{url.rstrip('/')}/locks/probe-{uuid.uuid4().hex}"
    try:
        first, second = create_object(probe, b"1"), create_object(probe, b"2")
    except NotImplementedError:
        first, second = False, True
    remove_objects([probe])
    if not first or second:
        raise ConfigError(
            f"{url} takes no conditional writes (If-None-Match: *), so machines cannot keep out of each other's way. "
            f"Use a newer server. {_ELSEWHERE}"
        )


def check_bucket(url: str) -> None:
    """Raise ConfigError where the bucket of ``url`` is not there or may not be read."""
    look(
        f"{url.rstrip('/')}/videos.json"
    )  # says what is wrong; to be asked for a bucket, s3fs answers no to all of that
    with asking(url) as (system, path):
        _check_bucket(system, path)


def _check_bucket(system: Any, path: str) -> None:
    """Tell an empty folder from a bucket that is not there, and that from one that does not answer."""
    bucket = str(system._strip_protocol(path)).lstrip("/").partition("/")[0]  # noqa: SLF001
    if bucket and system.async_impl:
        try:
            system.info(bucket)  # `exists` of s3fs says no where nobody answers
        except FileNotFoundError as error:
            raise FileNotFoundError(f"the bucket {bucket} does not exist") from error


def _found(entry: Mapping[str, Any]) -> Found:
    version = next((str(entry[name]) for name in _VERSIONS if entry.get(name) is not None), "")
    return Found(int(entry.get("size") or 0), version.strip('"'), _changed(entry))


def _changed(entry: Mapping[str, Any]) -> float:
    """When an object was written last; of file systems that do not tell, now."""
    when = next((entry[name] for name in _TIMES if entry.get(name) is not None), None)
    if isinstance(when, str):
        when = dt.datetime.fromisoformat(when)
    if isinstance(when, dt.datetime):
        return (when if when.tzinfo else when.replace(tzinfo=dt.UTC)).timestamp()
    return float(when) if isinstance(when, (int, float)) else time.time()


def holds(found: Found, path: Path) -> bool | None:
    """Whether an object is what a local file is; None where only its size says so, since its version is no checksum.

    S3 gives the MD5 of what was sent in one part.
    """
    if path.stat().st_size != found.size:
        return False
    if _MD5.fullmatch(found.version) is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, functools.partial(hashlib.md5, usedforsecurity=False)).hexdigest() == (
            found.version
        )


def version_number(version: str) -> int:
    """A version as a number of 63 bits, for tables that hold numbers."""
    return int.from_bytes(blake3(version.encode()).digest()[:8], "little") >> 1


_ELSEWHERE = "Stores may lie in folders, in s3:// and in gs://; videos anywhere"
