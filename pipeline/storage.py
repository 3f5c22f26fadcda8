"""Where a run folder is: on a local disk, or in an object store that speaks S3. Files there are whole or not there.

Two acts are all that a run needs. `write` makes a file visible in one act; `create` does so and never replaces one,
which is what a commit rests on. On a disk: a hidden name, fsync, rename or link, fsync of the folder. In an object
store: one PUT, conditional where nothing may be replaced. Nothing is ever renamed there.

botocore is asked itself: through s3fs a refused PUT of some stores looks like any other fault, each read is two
requests, and two layers try again on top of one another.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipeline.errors import InputError

T = TypeVar("T")

HIDDEN = ".tmp-"  # what a file's name begins with until it is whole
OBJECT_STORES = ("s3://", "s3a://")
PATIENCE_S = 45.0  # a store that is away or busy for longer fails the call
WAITS_S = (0.2, 0.5, 1.0, 2.0, 4.0)  # between two tries; the last one over and over
CONNECT_S = 5.0
READ_S = 20.0  # without a byte of the answer, which begins when all is sent

leaving = threading.Event()
"""Set when this process is to end: a store that is away is then asked once and no more."""


class Folder(Protocol):
    """A run folder; names are paths in it with "/". Any method may raise OSError where the storage fails."""

    place: str
    local: Path | None

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Make a file visible whole, in one act, in place of any that is there."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Like `write`, but never replaces: False, and nothing changed, where the file exists."""
        ...

    def names(self, under: str) -> list[str]:
        """The names of the files right under a folder, hidden ones included, in order; none where it is not there."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def holds_other_things(self) -> bool:
        """Whether there is anything but a run's own `.run` in it."""
        ...

    def require_writable(self) -> None:
        """Raises InputError, in one sentence, where nothing can be written there. Leaves nothing behind."""
        ...


Place = Folder | Path | str
"""What the functions that read a run take: a folder, its local path, or its URL."""


def folder_at(place: Place) -> Folder:
    """The folder at a local path or an "s3://bucket/path" URL. Raises InputError for anything else, as a file."""
    if not isinstance(place, str | Path):
        if not hasattr(place, "holds_other_things"):
            raise InputError(f"{place!r} is no run folder; give its path or its s3://bucket/path as a text")
        return place
    text = str(place)
    if text.startswith(OBJECT_STORES):
        return ObjectFolder(text)
    if "://" in text and not text.startswith("file://"):
        kind = text.split("://")[0]
        raise InputError(f"{text}: a run folder is a local path or s3://bucket/path; {kind}:// has not been tried")
    path = Path(text.removeprefix("file://")).expanduser()
    if os.path.isfile(path):  # of a name that is too long it says no, and Path raises
        raise InputError(f"{path} is a file, and not a run folder")
    return LocalFolder(path)


def claim(folder: Folder, name: str, content: bytes) -> bool:
    """`create`, where a file of this very content is our own: an earlier try was, whose answer got lost."""
    return folder.create(name, content) or folder.read(name) == content


class LocalFolder:
    """A folder on a disk of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.local: Path | None = path
        self.place = str(path)

    def __str__(self) -> str:
        return self.place

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        path = self.path / name
        os.replace(_write_hidden(path, content), path)
        _sync_folder(path.parent)

    def create(self, name: str, content: bytes) -> bool:
        path = self.path / name
        temporary = _write_hidden(path, content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP):
                raise
            raise InputError(
                f"{path.parent}: no hard links here, which commits need; name a folder on a local disk"
            ) from None
        finally:
            temporary.unlink()
        _sync_folder(path.parent)
        return True

    def names(self, under: str) -> list[str]:
        folder = self.path / under
        return sorted(entry.name for entry in folder.iterdir() if entry.is_file()) if folder.is_dir() else []

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def holds_other_things(self) -> bool:
        return self.path.is_dir() and any(entry.name != ".run" for entry in self.path.iterdir())

    def require_writable(self) -> None:
        for place in (self.path, *self.path.parents):
            if place.is_dir():
                probe = place / ".instructmill-probe"
                try:
                    probe.touch(exist_ok=True)
                    probe.unlink()
                except OSError as error:
                    raise InputError(
                        f"{self}: the run folder cannot be written ({error.strerror}: {place}); name another"
                    ) from None
                return
            if place.exists():
                raise InputError(f"{self}: the run folder cannot be written: {place} is not a folder; name another")


class ObjectFolder:
    """A folder in an object store. Credentials, region and endpoint come from the environment, as boto's do.

    A store that is away or busy is asked again for PATIENCE_S; one that has stayed away for that long is then asked
    once, until it answers, so that a run which must end does not wait at each of its last steps.
    """

    local: Path | None = None

    def __init__(self, url: str) -> None:
        """Raises InputError where botocore is not installed, or the address names no bucket or holds credentials."""
        scheme, _, path = url.partition("://")
        self._bucket, _, path = path.rstrip("/").partition("/")
        if "@" in self._bucket:
            raise InputError("a run folder's address holds no credentials: set AWS_ACCESS_KEY_ID and the like")
        if not self._bucket:
            raise InputError(f"{url}: no bucket is named; write s3://bucket/path")
        self._root = f"{path}/" if path else ""
        self.place = f"{scheme}://{self._bucket}/{path}".rstrip("/")
        self._client = _client()
        self._away = False

    def __str__(self) -> str:
        return self.place

    def read(self, name: str) -> bytes:
        def get() -> bytes:
            content: bytes = self._client.get_object(Bucket=self._bucket, Key=self._root + name)["Body"].read()
            return content

        return self._ask(name, get)

    def write(self, name: str, content: bytes) -> None:
        self._ask(name, partial(self._client.put_object, Bucket=self._bucket, Key=self._root + name, Body=content))

    def create(self, name: str, content: bytes) -> bool:
        put = partial(self._client.put_object, Bucket=self._bucket, Key=self._root + name, Body=content)
        try:
            self._ask(name, partial(put, IfNoneMatch="*"))
        except FileExistsError:
            return False
        return True

    def names(self, under: str) -> list[str]:
        files, _ = self._listed(f"{self._root}{under}/")
        return files

    def remove(self, name: str) -> None:
        self._ask(name, partial(self._client.delete_object, Bucket=self._bucket, Key=self._root + name))

    def holds_other_things(self) -> bool:
        files, folders = self._listed(self._root)
        return bool(files) or any(folder != ".run" for folder in folders)

    def require_writable(self) -> None:
        name = ".run/probe"
        try:
            self.write(name, b"")
            replaced = self.create(name, b"")
            self.remove(name)
        except PermissionError as error:
            raise InputError(f"{self}: the run folder cannot be written ({error}); mend it or name another") from None
        if replaced:
            raise InputError(
                f"{self}: this store replaces a file where it is asked not to (If-None-Match), which commits need; "
                "name a folder in another store"
            )

    def _listed(self, prefix: str) -> tuple[list[str], list[str]]:
        """The names of the files and of the folders right under a prefix, each in order."""

        def pages() -> list[dict[str, Any]]:
            pages = self._client.get_paginator("list_objects_v2")
            return list(pages.paginate(Bucket=self._bucket, Prefix=prefix, Delimiter="/"))

        files, folders = list[str](), list[str]()
        for page in self._ask(prefix.removeprefix(self._root), pages):
            files += [entry["Key"].removeprefix(prefix) for entry in page.get("Contents", ())]
            folders += [entry["Prefix"].removeprefix(prefix)[:-1] for entry in page.get("CommonPrefixes", ())]
        return sorted(filter(None, files)), sorted(folders)  # a file of no name is how some tools mark a folder

    def _ask(self, name: str, act: Callable[[], T]) -> T:
        """What the store answers. Raises InputError where the configuration is at fault, else OSError."""
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        until = time.monotonic() + (0.0 if self._away else PATIENCE_S)
        for wait in chain(WAITS_S, repeat(WAITS_S[-1])):
            try:
                answer = act()
            except (BotoCoreError, ClientError, ResponseParserError) as error:
                passing = _may_pass(error)
                if not passing or time.monotonic() + wait > until or leaving.wait(wait):
                    self._away = passing
                    raise self._fault(name, error) from error
            else:
                self._away = False
                return answer
        raise AssertionError("the waits have no end")

    def _fault(self, name: str, error: Exception) -> Exception:
        """An error of the client library as one that all callers know."""
        from botocore import exceptions as kinds

        status, code = _answer(error)
        where = f"{self}/{name}: {error}"
        match status, code:
            case _, "NoSuchBucket":
                return InputError(f"{self}: there is no bucket {self._bucket!r}; make it, or name another")
            case 404, _:
                return FileNotFoundError(where)
            case 412, _:
                return FileExistsError(where)
            case 401 | 403, _:
                return PermissionError(where)
        if isinstance(error, kinds.NoCredentialsError | kinds.PartialCredentialsError | kinds.CredentialRetrievalError):
            return InputError(f"{self}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")
        if isinstance(error, kinds.ParamValidationError):
            return InputError(f"{self}: {error}; write s3://bucket/path")
        return OSError(where)


@cache
def _client() -> Any:
    """The client of this process, safe to share among threads."""
    try:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
        from botocore.session import get_session
    except ImportError as error:
        raise InputError(
            f"a run folder in S3 needs {error.name}, which is not installed; install instructmill[s3]"
        ) from None
    # How often and how long to ask again is ours to say: see `_ask`.
    config = Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"total_max_attempts": 1})
    try:
        return get_session().create_client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise InputError(f"the environment's settings of S3 are wrong: {error}") from None


def _answer(error: Exception) -> tuple[int, str]:
    """The status and code of a store's own answer; 0 and nothing where there was none."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0), response.get("Error", {}).get("Code", "")


def _may_pass(error: Exception) -> bool:
    """Whether the same call may succeed a little later: the store is away, busy, or cut its answer off."""
    from botocore.exceptions import ConnectionError, HTTPClientError, IncompleteReadError
    from botocore.parsers import ResponseParserError

    status, code = _answer(error)
    if status:  # a conflict, 409, is that of another write under way
        return status in (408, 409, 429) or status >= 500 or code in ("RequestTimeout", "Throttling", "SlowDown")
    return isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError | ResponseParserError)


def _write_hidden(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{HIDDEN}{secrets.token_hex(6)}-{path.name}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None  # a full disk names no file
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
