"""The key ring's file: made once, a key added at each rotation; and the recovery sheet, which is printed from it.

Key material leaves this module in two ways only: into the file, and as the text that `create`, `rotate` and `sheet`
show on the terminal.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import secrets
import shlex
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from engine.backups.manifest import FORMAT, INCREMENT_FORMAT
from engine.config import Settings
from engine.crypto.keyring import KEY_BYTES, KeyRing, parse_keys, read_key_file
from engine.errors import FailedPrecondition

BLANK = "______________________________________________"
"""Where the sheet leaves room for a pen."""

_SHEET = """\
DATAOPS RECOVERY SHEET
made {made}

Print this twice and keep it offline, away from the installation and from every
copy of its artifacts. Who has these keys and the artifacts reads every row. Who
has lost the keys reads nothing: there is no second way in.

Artifacts   {where}
Copies      {blank}
Key file    {file}
Database    {blank}

KEYS, as the lines of the key file. The first one seals, all of them open.

{keys}

CHECK VALUES, by which a typing error is found:
`dataops-admin keys list --file FILE` shows those of a file.

{checks}

TO READ THE BACKUPS where there is no control schema any more, on any host that
has dataops: type the keys into a FILE, `chmod 600` it, and

  dataops-admin rescue list {command}
  dataops-admin rescue verify {command}
  dataops-admin rescue show BACKUP {command}
  dataops-admin rescue restore BACKUP --dsn DSN {command}

docs/read_backup.py reads them too, with nothing but Python, cryptography and
zstandard; what it goes by is docs/archive-format.md. `dataops-admin repository
adopt` makes them known to a new, empty control schema.

Make a new sheet after each `dataops-admin keys rotate`. Keep the old ones while
a backup or a copy of one needs their keys.
"""


def create(path: Path, now: datetime) -> str:
    """Makes a ring of one new key, readable by its owner alone; its text.

    Raises:
        FailedPrecondition: KEY_FILE_REFUSED when there is a file of this name, or none can be made.
    """
    text = _line(f"key-{now:%Y-%m-%d}")
    with _explained(path):
        _write(path, text.encode(), 0o600)
        _flush(path.parent)
    return text


def rotate(settings: Settings | None, path: Path | None, now: datetime) -> tuple[Path, str]:
    """Adds a new key to the ring's file as its first, which is the active one; the file, and its text.

    The file is replaced as a whole: whoever reads it finds the old ring or the new one. Its mode and owner stay.

    Raises:
        FailedPrecondition: KEY_FILE_REFUSED when a setting names the active key, when the keys come from a variable, or
            when the file cannot be written; InvalidRequest: KEYS_MISSING, KEYS_INVALID.
    """
    path = path or _file_of(settings)
    path = path.resolve()  # a link to it is to go on leading there
    with _explained(path), _alone(path.parent):
        text = read_key_file(path)
        keys = parse_keys(text)
        KeyRing(keys, next(iter(keys)))
        new = _line(_new_id(keys, now)) + text
        if dict(list(parse_keys(new).items())[1:]) != keys:
            raise _refused(path, "the new ring would lack a key of the old one")
        status = path.stat()
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            _write(draft, new.encode(), stat.S_IMODE(status.st_mode))
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(draft, status.st_uid, status.st_gid)
            draft.replace(path)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise
        _flush(path.parent)
    return path, new


def ring_text(settings: Settings) -> str:
    """The ring as its file or setting has it.

    Raises:
        InvalidRequest: KEYS_MISSING, KEYS_INVALID.
    """
    KeyRing.from_settings(settings)
    return settings.keys if settings.key_file is None else read_key_file(settings.key_file)


def check_value(key: bytes) -> str:
    """Tells keys apart, and a typing error, without showing anything of the key."""
    return hashlib.sha256(key).hexdigest()[:8]


def sheet(text: str, now: datetime, *, active: str = "", artifacts: str = "", file: Path | None = None) -> str:
    """The recovery sheet: with the artifacts and a copy of this software, all that is needed to read every backup."""
    keys = parse_keys(text)
    active = KeyRing(keys, active or next(iter(keys))).active_id
    keys = {active: keys[active]} | keys
    where = str(Path(artifacts).absolute()) if artifacts and "://" not in artifacts else artifacts
    command = f"--artifacts {shlex.quote(where) if where else 'DIR'} --key-file FILE"
    formats = f"{FORMAT} and {INCREMENT_FORMAT}"
    return _SHEET.format(
        made=f"{now:%Y-%m-%d %H:%M} UTC by dataops {version('dataops')}, archive formats {formats}",
        where=where or BLANK,
        file=file.absolute() if file else BLANK,
        blank=BLANK,
        keys="\n".join(f"{key_id} {base64.b64encode(key).decode()}" for key_id, key in keys.items()),
        checks="\n".join(f"{key_id}  {check_value(key)}" for key_id, key in keys.items()),
        command=command,
    )


def _file_of(settings: Settings | None) -> Path:
    if settings is not None and settings.active_key:
        raise FailedPrecondition(
            "keys: DATAOPS_ACTIVE_KEY names the active key, so that a new first line would change nothing; unset it",
            reason="KEY_FILE_REFUSED",
        )
    if settings is None or settings.key_file is None:
        raise FailedPrecondition(
            "keys: they come from DATAOPS_KEYS, expected a file in DATAOPS_KEY_FILE that a key can be added to",
            reason="KEY_FILE_REFUSED",
        )
    return settings.key_file


def _new_id(keys: Mapping[str, bytes], now: datetime) -> str:
    base = f"key-{now:%Y-%m-%d}"
    names = (base, *(f"{base}-{number}" for number in range(2, len(keys) + 3)))
    return next(name for name in names if name not in keys)


def _line(key_id: str) -> str:
    return f"{key_id} {base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"


def _write(path: Path, data: bytes, mode: int) -> None:
    """A new file, never readable by more than it shall be, not even for a moment; on disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode & 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One rotation at a time: of two at once, one key would be lost, and with it what it has sealed by then."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise _refused(path, "found a file of this name, expected none: a ring is never written over") from None
    except OSError as error:
        raise _refused(path, f"it cannot be written: {error.strerror}") from None


def _refused(path: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(f"key file {path.name}: {why}", reason="KEY_FILE_REFUSED")
