"""File systems of fsspec by URL, and errors of requests to them in our own words.

Every URL that fsspec has a file system for is taken; `s3://` needs s3fs, `gs://` gcsfs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from reelwright.storage.errors import ConfigError, UnusableStoreError
from reelwright.storage.store import is_url

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # scheme -> extra of our package
_LIBRARIES = (  # whose errors do not derive from OSError
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
)
_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "NoAuthTokenError", "DefaultCredentialsError"}
)
_NO_BUCKET = ("specified bucket does not exist", "NoSuchBucket", "the bucket ")


@contextlib.contextmanager
def asking(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL and the path in it; errors of the block in our words.

    Raises ConfigError for a scheme, package, bucket or credentials that are wrong, UnusableStoreError for all else.
    """
    try:
        yield _system(url)
    except (FileNotFoundError, FileExistsError) as error:
        if says_no_bucket(error):
            raise ConfigError(
                f"{url}: no such bucket ({_short(error)}). Make it, or correct the name; we make none"
            ) from error
        raise
    except PermissionError as error:
        raise ConfigError(f"{url}: access is refused ({_short(error)}). {_CREDENTIALS}") from error
    except NotImplementedError:
        raise
    except _failures() as error:
        if type(error).__name__ in _NO_CREDENTIALS:
            raise ConfigError(f"{url}: no credentials ({_short(error)}). {_CREDENTIALS}") from error
        raise UnusableStoreError(
            f"{url} cannot be reached or failed: {type(error).__name__}: {_short(error)}. What was done is kept; run "
            "again when it answers"
        ) from error


def _system(url: str) -> tuple[Any, str]:
    import fsspec

    scheme = url.partition("://")[0] if is_url(url) else "file"
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": False}
    if scheme == "file":
        options["auto_mkdir"] = True
    if scheme in {"s3", "s3a"} and "AWS_MAX_ATTEMPTS" not in os.environ:
        # s3fs tries five times what botocore tries five times: seven minutes for a server that takes requests and
        # never answers, instead of two and a half.
        options["config_kwargs"] = {
            "retries": {"max_attempts": 1},
            **fsspec.config.conf.get(scheme, {}).get("config_kwargs", {}),
        }
    try:
        return fsspec.filesystem(scheme, **options), str(url)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        advice = f"pip install 'reelwright[{extra}]'" if extra else f"install what fsspec names: {error}"
        raise ConfigError(f"{url}: {scheme}:// needs a package that is not installed: {advice}") from None
    except ValueError as error:
        raise ConfigError(f"{url}: {error}. Known are s3://, gs:// and all others that fsspec has") from None


def says_no_bucket(error: OSError) -> bool:
    """Whether an error says that there is no bucket: that is another thing than no object."""
    return any(mark in str(error) for mark in _NO_BUCKET)


def objects_below(system: Any, path: str) -> dict[str, Mapping[str, Any]]:
    """Entries by path. Raises FileNotFoundError where there is nothing of that name."""
    own = type(system)._find if system.async_impl else type(system).find  # noqa: SLF001
    if own.__module__ not in {"fsspec.asyn", "fsspec.spec"}:
        listed: dict[str, Mapping[str, Any]] = system.find(path, detail=True, withdirs=False)
        return listed
    # fsspec's own, which walks folder by folder, takes a folder that cannot be read for an empty one.
    found: dict[str, Mapping[str, Any]] = {}
    base = system._strip_protocol(path)  # noqa: SLF001
    folders = [base]
    while folders:
        folder = folders.pop()
        try:
            entries = system.ls(folder, detail=True)
        except FileNotFoundError:
            if folder == base:
                raise
            continue  # it went while this walked
        for entry in entries:
            name = str(entry["name"]).rstrip("/")
            if entry["type"] == "directory" and name != folder:
                folders.append(name)
            elif entry["type"] != "directory":
                found[name] = entry
    return found


def _failures() -> tuple[type[Exception], ...]:
    """What a request may raise: system errors, and those of the libraries below fsspec that are loaded."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in _LIBRARIES)
    return (OSError, *(kind for kind in found if isinstance(kind, type)))


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


_CREDENTIALS = (
    "Give them as the service wants them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile for s3:// "
    "(AWS_ENDPOINT_URL for a server of your own), GOOGLE_APPLICATION_CREDENTIALS for gs://"
)
