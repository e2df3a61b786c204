"""What a bundle's manifest.json says, and the limits it is read within."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edge_speech.encoder import StreamingSpec, TensorSpec
from edge_speech.errors import InputError
from edge_speech.fields import Table

FORMAT = "edge-speech-bundle"
VERSION = 1
STATUSES = ("verified", "built", "planned")
GREEDY, PREFIX_BEAM = "greedy", "prefix_beam"
# What a search does with its language model: key, lowest and highest value, as the search itself takes them.
LM_LEVELS = ("word", "token")
LM_WEIGHTS = {"lm_weight": (0.0, 100.0), "word_bonus": (-100.0, 100.0), "unknown_score": (-1000.0, 0.0)}

_TOKENS_LIMIT = 16 << 20
_FILE_LIMIT = 2 << 30
_FILES_LIMIT = 1024
_STATE_LIMIT = 4096
_ELEMENTS_LIMIT = 1 << 26
_VOCAB_LIMIT = 200_000
_STATE_TYPES = ("float32", "float16", "int64", "int32", "int8", "uint8", "bool")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle: its relative POSIX path, SHA-256 in hex, and exact size."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Artifact:
    """One form of the encoder. `command` builds a `planned` one on the device."""

    path: str
    sha256: str
    bytes: int
    backend: str
    precision: str
    status: str
    command: str | None = None


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says. `artifacts` come best first."""

    target: str
    frontend: dict[str, Any]
    encoder: StreamingSpec
    decoder: dict[str, Any]
    tokens: FileEntry
    artifacts: tuple[Artifact, ...]
    golden: tuple[FileEntry, ...] = ()
    reports: tuple[FileEntry, ...] = ()
    quality: dict[str, Any] | None = None
    performance: dict[str, Any] | None = None
    provenance: dict[str, Any] | None = None

    @property
    def language_model(self) -> FileEntry | None:
        """The file of the decoder's language model."""
        entry = self.decoder.get("lm")
        return None if entry is None else FileEntry(**entry)

    @property
    def files(self) -> list[FileEntry | Artifact]:
        """Every file the manifest names."""
        lm = [] if self.language_model is None else [self.language_model]
        return [self.tokens, *self.artifacts, *lm, *self.golden, *self.reports]


def parse_manifest(data: object, where: str) -> Manifest:
    """The manifest in a JSON document. Raises InputError on anything missing, odd or absurdly large."""
    table = Table.of(data, where)
    if table.data.get("format") != FORMAT:
        raise table.wrong("format", repr(FORMAT))
    if table.data.get("version") != VERSION or type(table.data["version"]) is not int:
        raise table.wrong("version", f"{VERSION}, the one this edge-speech reads")
    manifest = Manifest(
        target=table.text("target"),
        frontend=dict(table.table("frontend").data),
        encoder=parse_spec(table.table("encoder")),
        decoder=parse_decoder(table.table("decoder"), _vocab_size(table.table("encoder"))),
        tokens=_parse_entry(table.table("tokens"), _TOKENS_LIMIT),
        artifacts=tuple(_parse_artifact(t) for t in table.tables("artifacts", _FILES_LIMIT)),
        golden=tuple(_parse_entry(t, _FILE_LIMIT) for t in table.tables("golden", _FILES_LIMIT)),
        reports=tuple(_parse_entry(t, _FILE_LIMIT) for t in table.tables("reports", _FILES_LIMIT)),
        quality=table.optional("quality"),
        performance=table.optional("performance"),
        provenance=table.optional("provenance"),
    )
    _check_names(manifest, where)
    if table.text("sha256") != digest(table.data):
        raise InputError(f"{where}: its contents are not those of its 'sha256'; copy the whole bundle again")
    return manifest


def parse_decoder(table: Table, vocab_size: int) -> dict[str, Any]:
    """The decoder with every number in range. An unknown key could change the text, so it is refused."""
    kind = table.text("type")
    if kind not in (GREEDY, PREFIX_BEAM):
        raise table.wrong("type", f"{GREEDY!r} or {PREFIX_BEAM!r}")
    decoder: dict[str, Any] = {"type": kind}
    decoder["blank_id"] = table.integer("blank_id", 0, vocab_size - 1)
    if kind == PREFIX_BEAM:
        decoder["beam_size"] = table.integer("beam_size", 2, 4096)
        decoder["lm"] = _parse_language_model(table)
        decoder["lm_level"] = table.text("lm_level")
        if decoder["lm_level"] not in LM_LEVELS:
            raise table.wrong("lm_level", f"one of {', '.join(LM_LEVELS)}")
        decoder |= {key: table.number(key, low, high) for key, (low, high) in LM_WEIGHTS.items()}
    unknown = sorted(set(table.data) - set(decoder))
    if unknown:
        raise InputError(
            f"{table.where}: {unknown[0][:60]!r} is no key of {kind}; known: {', '.join(decoder)}"
        )
    return decoder


def _parse_language_model(table: Table) -> dict[str, Any] | None:
    if "lm" not in table.data:
        raise table.wrong("lm", "the entry of a compiled language model, or null")
    return None if table.data["lm"] is None else asdict(_parse_entry(table.table("lm"), _FILE_LIMIT))


def _check_names(manifest: Manifest, where: str) -> None:
    names = [entry.path for entry in manifest.files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{where}: file {twice[0]!r} is named twice")
    if not manifest.artifacts:
        raise InputError(f"{where}: 'artifacts' must name at least one artifact")


def parse_spec(table: Table) -> StreamingSpec:
    """StreamingSpec with every size inside limits that keep a step's buffers allocatable."""
    spec = StreamingSpec(
        chunk_frames=table.integer("chunk_frames", 1, 10_000),
        right_context_frames=table.integer("right_context_frames", 0, 10_000),
        subsampling_factor=table.integer("subsampling_factor", 1, 64),
        num_features=table.integer("num_features", 1, 1024),
        vocab_size=_vocab_size(table),
        padding_value=table.number("padding_value", -1e6, 1e6),
        state=tuple(_parse_state(t) for t in table.tables("state", _STATE_LIMIT)),
    )
    if spec.chunk_frames % spec.subsampling_factor:
        raise table.wrong("chunk_frames", f"a multiple of subsampling_factor = {spec.subsampling_factor}")
    if spec.output_frames * spec.vocab_size > _ELEMENTS_LIMIT:
        raise table.wrong("vocab_size", f"small enough for {_ELEMENTS_LIMIT} log_probs in a step")
    if sum(_elements(t) for t in spec.state) > _ELEMENTS_LIMIT:
        raise InputError(f"{table.where}: the state has more than {_ELEMENTS_LIMIT} elements")
    return spec


def _vocab_size(encoder: Table) -> int:
    return encoder.integer("vocab_size", 2, _VOCAB_LIMIT)


def _parse_state(table: Table) -> TensorSpec:
    tensor = TensorSpec(
        table.text("name"), table.integers("shape", 8, 1, _ELEMENTS_LIMIT), table.text("dtype")
    )
    if tensor.dtype not in _STATE_TYPES:
        raise table.wrong("dtype", f"one of {', '.join(_STATE_TYPES)}")
    if _elements(tensor) > _ELEMENTS_LIMIT:
        raise table.wrong("shape", f"of at most {_ELEMENTS_LIMIT} elements")
    return tensor


def _elements(tensor: TensorSpec) -> int:
    count = 1
    for n in tensor.shape:
        count *= n
    return count


def _parse_artifact(table: Table) -> Artifact:
    entry = _parse_entry(table, _FILE_LIMIT)
    command = table.text("command") if table.data.get("command") is not None else None
    if table.text("status") not in STATUSES:
        raise table.wrong("status", f"one of {', '.join(STATUSES)}")
    return Artifact(
        **asdict(entry),
        backend=table.text("backend"),
        precision=table.text("precision"),
        status=table.text("status"),
        command=command,
    )


def _parse_entry(table: Table, limit: int) -> FileEntry:
    entry = FileEntry(table.text("path"), table.text("sha256"), table.integer("bytes", 0, limit))
    if not is_safe_name(entry.path):
        raise table.wrong("path", "a relative name inside the bundle, without '..'")
    if not _SHA256.fullmatch(entry.sha256):
        raise table.wrong("sha256", "64 hexadecimal digits")
    return entry


def is_safe_name(name: str) -> bool:
    """Whether `name` is a plain relative POSIX path that stays inside its folder."""
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") for part in parts)
    return plain and len(name) <= 255 and name.isprintable() and not set(name) & set('\\:*?"<>|')


def as_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as the document that manifest.json holds."""
    data = {"format": FORMAT, "version": VERSION, **asdict(manifest)}
    for artifact in data["artifacts"]:
        if artifact["command"] is None:
            del artifact["command"]
    data["sha256"] = digest(data)
    return data


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's document without its key `sha256`, as JSON with sorted keys and no spaces."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
