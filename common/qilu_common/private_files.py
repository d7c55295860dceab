"""Files and folders that only their owner can read, whatever the umask; locks between processes."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qilu_contract.errors import ConfigError


def private_folder(folder: Path) -> None:
    """Make a folder that is missing; take from one of ours what others could do in it. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    shared = found.st_mode & stat.S_ISVTX  # /tmp and its like are everybody's
    if found.st_uid == os.geteuid() and found.st_mode & 0o077 and not shared:
        with suppress(PermissionError):
            folder.chmod(0o700)


def private_file(path: Path) -> None:
    """Make a file that is missing, empty; take from one of ours what others could do with it. Raises
    OSError."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        # Not opened: closing it again would end the locks that a database of this process holds on it.
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & 0o077:
            with suppress(OSError):  # a file system that is read-only
                path.chmod(0o600)


@contextmanager
def sole_user(lock: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file while the block runs; the lock ends with the process. Raises ConfigError with
    `refusal` when another process holds it, OSError when the file cannot be made."""
    private_file(lock)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(refusal) from error
        yield


def write_private(path: Path, content: str | bytes, others: int = 0) -> None:
    """Write a file that only its owner can read, replacing what was there, whole or not at all and durably.
    `others`: permission bits beside the owner's. Blocks for the disk. Raises OSError."""
    with replacing(path) as part:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        if others:
            part.chmod(0o600 | others)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path`: what the block writes there takes the place of `path` once it is on the disk.
    After an error `path` is as it was. Raises OSError."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
