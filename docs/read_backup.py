"""Read backups with nothing of DataOps: proof that `archive-format.md` says all there is to know.

    python read_backup.py ARTIFACTS_DIR --key-file FILE                                  list the backups
    python read_backup.py ARTIFACTS_DIR --key-file FILE --backup ID                      list a backup's entities
    python read_backup.py ARTIFACTS_DIR --key-file FILE [--backup ID] --entity NAME      its rows, as COPY text

ARTIFACTS_DIR is the folder of the artifacts or a copy; FILE the key ring. ID is a backup's id, or how it begins; it may
be left out where there is one backup only. Rows go to standard output, block by block: they are good only if the exit
code is 0, since what a stream must be is known at its end. Needs the packages `cryptography` and `zstandard`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CHUNK = 1_048_576 + 16
HEADER = 112
LARGEST = HEADER + 8 * CHUNK
FORMAT = 1
INCREMENT = 2


class Damaged(Exception):
    """What was found is not what was stored, or cannot be opened by these keys."""


class NoKey(Damaged):
    """The ring lacks the key: of the backup itself nothing is known."""


def read_ring(text: str) -> dict[str, bytes]:
    """The keys by id: section 3."""
    lines = [line.partition("#")[0].split() for line in text.replace(";", "\n").splitlines()]
    try:
        ring = {key_id: base64.b64decode(key, validate=True) for key_id, key in filter(None, lines)}
    except ValueError:
        raise SystemExit("the key file has a line that is not `<key id> <base64 of 32 bytes>`") from None
    if not ring or any(len(key) != 32 for key in ring.values()):
        raise SystemExit("the key file has no key, or one that has not 32 bytes")
    return ring


def unwrap(ring: dict[str, bytes], wrap: list[str], artifact: UUID, kind: str, number: int) -> bytes:
    """A part's data key: section 3."""
    key_id, wrapped = wrap[0], base64.b64decode(wrap[1])
    if key_id not in ring:
        raise NoKey(f"KEY_UNKNOWN: the key ring lacks the key {key_id!r}")
    associated = b"dataops wrap 1" + artifact.bytes + kind.encode().ljust(16, b"\0") + number.to_bytes(4, "big")
    try:
        return AESGCM(ring[key_id]).decrypt(wrapped[:12], wrapped[12:], associated)
    except (InvalidTag, ValueError):
        raise Damaged(f"the key of {kind} {number} does not unwrap: damaged, or another key {key_id!r}") from None


def open_part(stored: bytes, data_key: bytes, artifact: UUID, kind: str, number: int) -> bytes:
    """The plaintext of one sealed part: section 2, in the order of section 7, invariant 9."""
    where = f"{kind} {number} of {artifact}"
    if not HEADER + 16 < len(stored) <= LARGEST:
        raise Damaged(f"{where}: no part has {len(stored)} bytes")
    bound, commitment, chunks = stored[:80], stored[80:HEADER], stored[HEADER:]
    place = number.to_bytes(4, "big") + artifact.bytes + kind.encode().ljust(16, b"\0")
    if bound[:48] != b"\x89DOPT\r\n\x1a" + b"\x00\x01\x00\x00" + place:
        raise Damaged(f"{where}: the object is no part of format 1, or another part")
    expected = HKDF(SHA256(), length=32, salt=bound, info=b"dataops part commitment 1").derive(data_key)
    if not hmac.compare_digest(commitment, expected):
        raise Damaged(f"{where}: its header does not commit to its key")
    plaintext, count = [], -(-len(chunks) // CHUNK)
    for i in range(count):
        chunk, associated = chunks[i * CHUNK : (i + 1) * CHUNK], bound + i.to_bytes(4, "big") + bytes([i == count - 1])
        try:
            plaintext.append(AESGCM(data_key).decrypt(i.to_bytes(12, "big"), chunk, associated))
        except (InvalidTag, ValueError):
            raise Damaged(f"{where}: chunk {i} does not open") from None
    return b"".join(plaintext)


def unpack(frame: bytes, most: int) -> bytes:
    """One zstd frame of at most `most` bytes."""
    try:
        if zstandard.frame_content_size(frame) > most:
            raise Damaged("a frame says that it is larger than it may be")
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=most)
    except zstandard.ZstdError:
        raise Damaged("a frame cannot be decompressed") from None


def whole_lines(blocks: Iterator[bytes]) -> Iterator[list[bytes]]:
    """The lines of a stream, some at once; COPY escapes every line end but its own."""
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        yield [line + b"\n" for line in lines]


class Backup:
    """One backup: its manifest and its streams."""

    def __init__(self, folder: Path, ring: dict[str, bytes], artifact: UUID, generation: str) -> None:
        """By this generation of its keys object. Raises Damaged."""
        self.folder, self.ring, self.artifact = folder, ring, artifact
        try:
            keys = json.loads((folder / "keys" / artifact.hex / generation).read_bytes())
            if (keys["format"], keys["artifact_id"]) != (FORMAT, str(artifact)):
                raise Damaged("the keys object is of another format or backup")
            self.wraps = {"MANIFEST": list(keys["manifest"]), "SEGMENT": list(keys["segments"])}
            frame = b"".join(self._part("MANIFEST", n, str(n)) for n in range(len(self.wraps["MANIFEST"])))
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise Damaged("the keys object is none") from None
        self.text = unpack(frame, 1 << 30)
        self.manifest: dict[str, Any] = json.loads(self.text)
        if self.manifest["format"] not in (FORMAT, INCREMENT):
            raise Damaged(f"the manifest has format {self.manifest['format']}, expected {FORMAT} or {INCREMENT}")
        if self.manifest["artifact_id"] != str(artifact):
            raise Damaged("the manifest is another backup's")
        if len(self.manifest["segments"]) != len(self.wraps["SEGMENT"]):
            raise Damaged("the manifest and the keys do not belong together")
        self.parent = self._open_parent() if self.manifest["format"] == INCREMENT else None

    def _open_parent(self) -> Backup:
        """What this one is an increment of: section 6."""
        named = self.manifest["parent"]
        if not (self.folder / "manifests" / UUID(named["artifact_id"]).hex / "0").exists():
            raise Damaged(f"its parent, the backup {named['backup_id']}, is not there")
        parent = open_backup(self.folder, self.ring, UUID(named["artifact_id"]))
        if hashlib.sha256(parent.text).hexdigest() != named["checksum"]:
            raise Damaged(f"its parent, the backup {named['backup_id']}, is not the one that it names")
        return parent

    def unwraps(self) -> bool:
        """Whether the keys of all its parts can be had."""
        try:
            for kind, wraps in self.wraps.items():
                for number, wrap in enumerate(wraps):
                    unwrap(self.ring, wrap, self.artifact, kind, number)
        except (Damaged, ValueError, TypeError, IndexError):
            return False
        return True

    def _part(self, kind: str, number: int, name: str) -> bytes:
        path = self.folder / f"{kind.lower()}s" / self.artifact.hex / name
        try:
            data_key = unwrap(self.ring, self.wraps[kind][number], self.artifact, kind, number)
            stored = path.read_bytes()
        except (FileNotFoundError, TypeError, IndexError, ValueError):
            raise Damaged(f"{kind} {number} of {self.artifact} is missing, or its key is") from None
        return open_part(stored, data_key, self.artifact, kind, number)

    def missing(self) -> int:
        """How many segments of the chain are not there with their length."""
        folder = self.folder / "segments" / self.artifact.hex
        sizes = {path.name: path.stat().st_size for path in folder.glob("*")}
        own = sum(sizes.get(segment["name"]) != segment["stored"] for segment in self.manifest["segments"])
        return own + (self.parent.missing() if self.parent is not None else 0)

    def stream(self, name: str, expected: dict[str, Any]) -> Iterator[bytes]:
        """The blocks of one stream; raises Damaged at its end if it is not what the manifest says."""
        digest, rows, size = hashlib.sha256(), 0, 0
        for number, segment in enumerate(self.manifest["segments"]):
            if segment["stream"] != name:
                continue
            frame = self._part("SEGMENT", number, segment["name"])
            if (len(frame), hashlib.sha256(frame).hexdigest()) != (segment["length"], segment["sha256"]):
                raise Damaged(f"segment {number} is not the one that the manifest lists")
            block = unpack(frame, segment["bytes"])
            if len(block) != segment["bytes"]:
                raise Damaged(f"the block of segment {number} has another size")
            digest.update(block)
            rows, size = rows + block.count(b"\n"), size + len(block)
            yield block
        found = {"rows": rows, "sha256": digest.hexdigest(), "bytes": size}
        if any(found[key] != expected[key] for key in found if key in expected):
            raise Damaged(f"the stream {name} has {rows} rows, {size} bytes, which is not what the manifest says")

    def rows(self, entity: str) -> Iterator[bytes]:
        """The rows of an entity as COPY gives them."""
        names = [found["entity"] for found in self.manifest["entities"]]
        if entity not in names:
            raise SystemExit(f"the backup has no entity {entity!r}, but {', '.join(names)}")
        number = names.index(entity)
        described = self.manifest["entities"][number]
        if self.parent is None:
            return self.stream(str(number), described)
        return self._merged(number, described, self.parent)

    def _merged(self, number: int, described: dict[str, Any], parent: Backup) -> Iterator[bytes]:
        """The parent's rows without those that are gone, then the increment's own: section 6."""
        delta, rows = described["delta"], 0
        gone = set(self._gone(number, delta))
        table = described["schema"], described["table"]
        before = next(e for e in parent.manifest["entities"] if (e["schema"], e["table"]) == table)
        if gone and max(gone) >= before["rows"]:
            raise Damaged(f"a row is gone that the parent of {described['entity']} does not have")
        at = 0
        for lines in whole_lines(parent.rows(before["entity"])):
            kept = [line for place, line in enumerate(lines, at) if place not in gone]
            at, rows = at + len(lines), rows + len(kept)
            yield b"".join(kept)
        for block in self.stream(str(number), {"rows": delta["rows"], "sha256": described["sha256"]}):
            rows += block.count(b"\n")
            yield block
        if rows != described["rows"]:
            raise Damaged(f"{described['entity']} has {rows} rows in the chain, expected {described['rows']}")

    def _gone(self, number: int, delta: dict[str, Any]) -> Iterator[int]:
        """Positions, from the distances between them."""
        position, expected = -1, {"rows": delta["gone"], "sha256": delta["gone_sha256"]}
        for lines in whole_lines(self.stream(f"{number}.gone", expected)):
            for line in lines:
                position += int(line)
                yield position

    def line(self) -> str:
        """What a list shows of it."""
        lacking = self.missing()
        rows = sum(entity["rows"] for entity in self.manifest["entities"])
        state = f"DAMAGED: {lacking} segments missing or cut" if lacking else hashlib.sha256(self.text).hexdigest()
        columns = (self.manifest["backup_id"], self.manifest["trigger_type"], self.manifest["snapshot_at"], rows, state)
        return "\t".join(map(str, (*columns, self.manifest["name"])))


def open_backup(folder: Path, ring: dict[str, bytes], artifact: UUID) -> Backup:
    """By the newest generation of its keys that opens the manifest and unwraps throughout; where there is none such, by
    the newest that opens the manifest."""
    failure, partly = Damaged("found no keys object"), None
    for generation in sorted((path.name for path in (folder / "keys" / artifact.hex).glob("*")), reverse=True):
        try:
            backup = Backup(folder, ring, artifact, generation)
        except Damaged as error:
            failure = error if str(failure) == "found no keys object" else failure
            continue
        if backup.unwraps():
            return backup
        partly = partly or backup
    if partly is None and isinstance(failure, NoKey):
        raise NoKey(f"{artifact} cannot be opened by this ring ({failure})")
    if partly is None:
        raise Damaged(f"DAMAGED {artifact}: {failure}")
    return partly


def find(folder: Path, ring: dict[str, bytes]) -> tuple[list[Backup], list[str]]:
    """Every backup that exists, which is every one whose manifest has a part 0; and what is wrong with the others."""
    found, wrong = [], []
    for path in sorted((folder / "manifests").glob("*/0")):
        try:
            found.append(open_backup(folder, ring, UUID(path.parent.name)))
        except Damaged as error:
            wrong.append(str(error))
    return sorted(found, key=lambda backup: str(backup.manifest["snapshot_at"])), wrong


def pick(found: list[Backup], name: str) -> Backup:
    """The one backup whose id begins with `name`."""
    matches = [backup for backup in found if backup.manifest["backup_id"].startswith(name.lower())]
    if len(matches) != 1:
        raise SystemExit(f"found {len(matches)} readable backups whose id begins with {name!r}, expected one")
    return matches[0]


def main() -> None:
    """List backups, list entities, or write the rows of one to standard output."""
    parser = argparse.ArgumentParser(description="read the backups of a DataOps installation")
    parser.add_argument("artifacts", type=Path, help="the folder of the artifacts")
    parser.add_argument("--key-file", type=Path, required=True, help="the key ring")
    parser.add_argument("--backup", default="", help="a backup's id, or how it begins")
    parser.add_argument("--entity", help="write the rows of this entity")
    arguments = parser.parse_args()
    try:
        ring = read_ring(arguments.key_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"the key file cannot be read: {error}")
    if not arguments.artifacts.is_dir():
        sys.exit(f"found no folder {arguments.artifacts}")
    found, wrong = find(arguments.artifacts, ring)
    if not found:
        sys.exit("\n".join(wrong) or f"found no backup in {arguments.artifacts}")
    if arguments.entity is None and not arguments.backup:
        for backup in found:
            print(backup.line())
        sys.exit("\n".join(wrong) or (1 if any(backup.missing() for backup in found) else 0))
    backup = pick(found, arguments.backup)
    try:
        if arguments.entity is None:
            for entity in backup.manifest["entities"]:
                for _ in backup.rows(entity["entity"]):
                    pass
                print(entity["entity"], entity["rows"], ", ".join(c["name"] for c in entity["columns"]), sep="\t")
            for _ in backup.stream("settings", backup.manifest["settings"]):
                pass
        else:
            for block in backup.rows(arguments.entity):
                sys.stdout.buffer.write(block)
    except Damaged as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
