"""The bundle: the only thing that crosses from the host to the device.

A directory with `manifest.json`, `tokens.txt`, the artifacts and the golden vectors; docs/bundle_format.md is
its full text. A bundle is untrusted input: names, sizes, versions and shapes are checked before anything
is allocated, and every failure is one InputError.

    with new_bundle(Path("out"), force=False) as folder:       # a temporary sibling of out
        tokens = write_tokens(folder, ["<blk>", "▁one"])
        convert(model, folder / "model.onnx")
        artifact = describe_artifact(folder, "model.onnx", backend="onnxruntime", precision="fp32")
        write_manifest(folder, Manifest(...))
    # here out exists, complete and verified; after any exception nothing is left behind

    bundle = read_bundle(Path("out"))
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from edge_speech.bundle_manifest import Artifact, FileEntry, Manifest, as_json, parse_manifest
from edge_speech.errors import InputError

__all__ = ["Artifact", "Bundle", "FileEntry", "Manifest", "as_json", "check_output", "describe_artifact"]
__all__ += ["describe_file", "new_bundle", "read_bundle", "sha256_of", "verify_bundle", "write_manifest"]
__all__ += ["write_tokens"]

MANIFEST = "manifest.json"
TOKENS = "tokens.txt"
LANGUAGE_MODEL = "lm.bin"
BLANK = "<blk>"
GOLDEN_WAVEFORM = "golden/waveform.npy"  # (samples,) float32 in [-1, 1] at the frontend's rate
GOLDEN_FEATURES = "golden/features.npy"  # (T, F) float32
GOLDEN_LOG_PROBS = "golden/log_probs.npy"  # (T_out, V) float32, of the reference model
GOLDEN_TEXT = "golden/text.txt"

_MANIFEST_LIMIT = 4 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk with manifest, file sizes and tokens checked (hashes: see `verified_path`)."""

    root: Path
    manifest: Manifest
    tokens: tuple[str, ...]
    keep_alive: object = None  # the temporary directory of a packed bundle

    def verified_path(self, entry: FileEntry | Artifact) -> Path:
        """Path of `entry` after comparing its SHA-256. Raises InputError."""
        _check_hash(self.root, entry)
        return self.root / entry.path


def read_bundle(path: Path | str) -> Bundle:
    """Open a bundle directory or packed file. Raises InputError."""
    path = Path(path)
    if path.is_file():
        from edge_speech.archive import unpack

        folder = unpack(path)
        return _read_directory(folder.path, str(path), folder)
    if not path.is_dir():
        raise InputError(
            f"{path}: no such bundle; make one with `edge-speech optimize MODEL.pt --target NAME -o {path}`"
        )
    return _read_directory(path, str(path), None)


def verify_bundle(path: Path | str) -> Bundle:
    """`read_bundle`, then compare the SHA-256 of every file. Raises InputError."""
    bundle = read_bundle(path)
    for entry in bundle.manifest.files:
        _check_hash(bundle.root, entry)
    return bundle


def _read_directory(root: Path, shown: str, keep_alive: object) -> Bundle:
    manifest = parse_manifest(_load_json(root / MANIFEST, shown), f"{shown}/{MANIFEST}")
    for entry in manifest.files:
        _check_size(root, entry)
    _check_hash(root, manifest.tokens)
    return Bundle(root, manifest, _read_tokens(root, manifest), keep_alive)


def _load_json(path: Path, shown: str) -> object:
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{shown}: not a bundle, it has no {MANIFEST}; see `edge-speech optimize --help`")
    if path.stat().st_size > _MANIFEST_LIMIT:
        raise InputError(
            f"{shown}/{MANIFEST}: {path.stat().st_size} bytes, at most {_MANIFEST_LIMIT} are read"
        )
    try:
        data: object = json.loads(path.read_bytes().decode("utf-8"))
        return data
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{shown}/{MANIFEST}: not JSON ({error}); the bundle is damaged, make it again"
        ) from None


def _check_size(root: Path, entry: FileEntry | Artifact) -> None:
    path = root / entry.path
    parents = [root / parent for parent in PurePosixPath(entry.path).parents if parent.name]
    if any(p.is_symlink() for p in [path, *parents]):
        raise InputError(f"{path}: a link; a bundle holds plain files only")
    if not path.is_file():
        raise InputError(f"{path}: missing, but {MANIFEST} names it; copy the whole bundle again")
    size = path.stat().st_size
    if size != entry.bytes:
        raise InputError(f"{path}: {size} bytes, but {MANIFEST} says {entry.bytes}; copy the bundle again")


def _check_hash(root: Path, entry: FileEntry | Artifact) -> None:
    _check_size(root, entry)
    if sha256_of(root / entry.path) != entry.sha256:
        raise InputError(
            f"{root / entry.path}: its SHA-256 is not the one in {MANIFEST}; copy the bundle again"
        )


def _read_tokens(root: Path, manifest: Manifest) -> tuple[str, ...]:
    path = root / manifest.tokens.path
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; expected one `symbol id` per line") from None
    lines = lines[:-1] if lines[-1] == "" else lines
    tokens = []
    for number, line in enumerate(lines):
        symbol, _, index = line.rpartition(" ")
        if not symbol or index != str(number):
            raise InputError(f"{path}:{number + 1}: expected `symbol {number}`, got {line[:60]!r}")
        tokens.append(symbol)
    if len(tokens) != manifest.encoder.vocab_size:
        raise InputError(
            f"{path}: {len(tokens)} tokens, but the encoder's vocab_size is {manifest.encoder.vocab_size}"
        )
    blank_id = manifest.decoder["blank_id"]
    if tokens[blank_id] != BLANK:
        raise InputError(
            f"{path}: token {blank_id} is {tokens[blank_id]!r}, but blank_id says it is {BLANK!r}"
        )
    return tuple(tokens)


# -- writing ------------------------------------------------------------------------------------------------


@contextmanager
def new_bundle(output: Path | str, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes the bundle `output` when the block ends well.

    The folder is a sibling of `output`, so the last step is a rename; after an exception (Ctrl-C, a full
    disk, a bundle that does not verify) nothing of it remains and an older `output` is untouched. Raises
    InputError if `output` exists and `force` is false, or if it exists and is not a bundle.
    """
    output = Path(output).absolute()
    check_output(output, force)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{output.name}.", dir=output.parent, ignore_cleanup_errors=True
    ) as work:
        folder = Path(work) / "bundle"
        folder.mkdir()
        yield folder
        verify_bundle(folder)
        _replace(folder, output, Path(work) / "old")


def check_output(output: Path, force: bool) -> None:
    """Raise InputError unless a bundle may be written to `output`; call it before long work."""
    if not output.exists() and not output.is_symlink():
        return
    if not force:
        raise InputError(f"{output} exists; choose another name or add --force to replace it")
    empty = output.is_dir() and not any(output.iterdir())
    if output.is_symlink() or not (empty or (output / MANIFEST).is_file()):
        raise InputError(
            f"{output} exists and is not a bundle, so --force does not replace it; choose another name"
        )


def _replace(folder: Path, output: Path, old: Path) -> None:
    if not output.exists():
        folder.rename(output)
        return
    output.rename(old)
    try:
        folder.rename(output)
    except BaseException:
        old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_tokens(folder: Path, tokens: Sequence[str]) -> FileEntry:
    """Write tokens.txt, one `symbol id` per line, and describe it."""
    text = "".join(f"{symbol} {index}\n" for index, symbol in enumerate(tokens))
    (folder / TOKENS).write_text(text, encoding="utf-8")
    return describe_file(folder, TOKENS)


def describe_file(folder: Path, name: str) -> FileEntry:
    """The entry of the file `name` already written into `folder`."""
    path = folder / name
    return FileEntry(name, sha256_of(path), path.stat().st_size)


def describe_artifact(
    folder: Path,
    name: str,
    *,
    backend: str,
    precision: str,
    status: str = "verified",
    command: str | None = None,
) -> Artifact:
    """The entry of the artifact `name` already written into `folder`."""
    return Artifact(
        **asdict(describe_file(folder, name)),
        backend=backend,
        precision=precision,
        status=status,
        command=command,
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json; call it last."""
    (folder / MANIFEST).write_text(
        json.dumps(as_json(manifest), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
