"""A bundle as one file: a deterministic zip whose members are stored, not compressed."""

from __future__ import annotations

import errno
import shutil
import struct
import tempfile
import weakref
import zipfile
from pathlib import Path

from edge_speech.bundle import MANIFEST, verify_bundle
from edge_speech.bundle_manifest import is_safe_name
from edge_speech.errors import InputError

_MEMBERS_LIMIT = 4096
# What zipfile raises on damaged archives: more than BadZipFile, and EINVAL when an offset points nowhere.
_DAMAGE = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, FileExistsError, NotADirectoryError)
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(bundle_path: Path | str, output: Path | str, force: bool = False) -> Path:
    """Verify the bundle and write it to `output`; equal bundles give equal bytes. Raises InputError."""
    bundle, output = verify_bundle(bundle_path), Path(output)
    if output.is_dir() or (output.exists() and not force):
        raise InputError(f"{output} exists; choose another name or add --force to replace a file")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such directory for {output.name}; make it first")
    names = [MANIFEST, *sorted(entry.path for entry in bundle.manifest.files)]
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as work:
        part = Path(work) / "part"
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name in names:
                _store(archive, bundle.root / name, name)
        part.replace(output)
    return output


class Unpacked:
    """A temporary directory that goes when this object does."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="edge-speech-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def unpack(path: Path) -> Unpacked:
    """Extract a packed bundle into a directory that lives as long as the result. Raises InputError."""
    folder = Unpacked()
    try:
        with zipfile.ZipFile(path) as archive:
            for member in _checked_members(archive, path):
                target = folder.path / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except BaseException as error:
        folder.remove()
        if isinstance(error, InputError) or not _is_damage(error):
            raise
        raise InputError(f"{path}: not a packed bundle ({error}); make one with `edge-speech pack`") from None
    return folder


def _is_damage(error: BaseException) -> bool:
    pointless = isinstance(error, OSError) and error.errno == errno.EINVAL
    return pointless or isinstance(error, (*_DAMAGE, struct.error))


def _store(archive: zipfile.ZipFile, source: Path, name: str) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o100644 << 16
    info.create_system = 3
    info.file_size = source.stat().st_size
    with source.open("rb") as reader, archive.open(info, "w") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def _checked_members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The members, once names, count and sizes are safe: stored members cannot outgrow the file itself."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(members) > _MEMBERS_LIMIT or len(set(names)) != len(names):
        raise InputError(
            f"{path}: {len(members)} members, some twice or more than {_MEMBERS_LIMIT}; not a packed bundle"
        )
    for member in members:
        if not is_safe_name(member.filename):
            raise InputError(f"{path}: unsafe member name {member.filename[:60]!r}; not a packed bundle")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise InputError(f"{path}: member {member.filename!r} is compressed; packed bundles only store")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise InputError(f"{path}: members claim more bytes than the file has; it is damaged")
    return members
