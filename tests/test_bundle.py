"""The bundle as untrusted input, its writer's all-or-nothing promise, and its packed form."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_speech import cli
from edge_speech.archive import pack
from edge_speech.bundle import MANIFEST, new_bundle, read_bundle, verify_bundle
from edge_speech.errors import InputError
from edge_speech.recognizer import Recognizer
from tiny import SPEC, TOKENS, edit, write_bundle, write_sealed


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        verify_bundle(path)
    assert "\n" not in str(caught.value)


def test_round_trip(bundle: Path) -> None:
    read = verify_bundle(bundle)
    assert list(read.tokens) == TOKENS
    assert read.manifest.encoder == SPEC
    assert read.manifest.artifacts[0].backend == "onnxruntime"


def test_a_changed_manifest_is_refused(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text.replace('"target": "', '"target": "x', 1))
    refused(bundle, "not those of its 'sha256'")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.update(version=2), "version"),
        (lambda d: d.update(version=True), "version"),
        (lambda d: d.update(format="other"), "format"),
        (lambda d: d.pop("encoder"), "encoder"),
        (lambda d: d["encoder"].update(chunk_frames=10**9), "chunk_frames"),
        (lambda d: d["encoder"].update(chunk_frames=9), "multiple of subsampling_factor"),
        (lambda d: d["encoder"].update(padding_value=float("nan")), "padding_value"),
        (lambda d: d["encoder"]["state"][0].update(shape=[1 << 20, 1 << 20]), "elements"),
        (lambda d: d["encoder"]["state"][0].update(shape=[0]), "shape"),
        (lambda d: d["encoder"]["state"][0].update(dtype="object"), "dtype"),
        (lambda d: d["artifacts"][0].update(path="../model.onnx"), "relative"),
        (lambda d: d["artifacts"][0].update(path="/etc/passwd"), "relative"),
        (lambda d: d["artifacts"][0].update(bytes=1 << 60), "bytes"),
        (lambda d: d["artifacts"][0].update(bytes=3), "says 3"),
        (lambda d: d["artifacts"][0].update(sha256="0" * 64), "SHA-256"),
        (lambda d: d["artifacts"][0].update(status="perfect"), "status"),
        (lambda d: d.update(artifacts=[]), "at least one"),
        (lambda d: d.update(artifacts="model.onnx"), "artifacts"),
        (lambda d: d["artifacts"].append(d["artifacts"][0]), "twice"),
        (lambda d: d["decoder"].update(blank_id=99), "blank_id"),
        (lambda d: d["decoder"].update(blank_id=1), "blank_id"),
        (lambda d: d["decoder"].update(type="oracle"), "greedy"),
        (lambda d: d["encoder"].update(vocab_size=5), "6 tokens"),
    ],
)
def test_odd_manifests_are_refused(bundle: Path, change, match: str) -> None:
    edit(bundle, change)
    refused(bundle, match)


@pytest.mark.parametrize("name", ["model.onnx", "tokens.txt"])
def test_any_changed_byte_is_found(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    refused(bundle, "SHA-256")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_damaged_manifest(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    refused(bundle, r"manifest\.json")


def test_huge_manifest_is_not_read(bundle: Path) -> None:
    with (bundle / MANIFEST).open("r+b") as file:
        file.truncate(1 << 40)  # sparse: reading it would not fit in memory
    refused(bundle, "at most")


def test_links_missing_files_and_strangers(bundle: Path, tmp_path: Path) -> None:
    (bundle / "model.onnx").rename(tmp_path / "outside.onnx")
    refused(bundle, "missing")
    os.symlink(tmp_path / "outside.onnx", bundle / "model.onnx")
    refused(bundle, "link")
    refused(tmp_path, "not a bundle")
    refused(tmp_path / "nowhere", "no such bundle")


def test_existing_output_needs_force_and_must_be_a_bundle(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--force"):
        write_bundle(bundle)
    before = (bundle / MANIFEST).stat().st_ino
    write_bundle(bundle, force=True)
    assert (bundle / MANIFEST).stat().st_ino != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a bundle"):
        write_bundle(tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_interrupted_write_leaves_nothing_and_keeps_the_old(bundle: Path, error: BaseException) -> None:
    before = (bundle / MANIFEST).read_bytes()

    def interrupted() -> None:
        with new_bundle(bundle, force=True) as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert (bundle / MANIFEST).read_bytes() == before
    assert list(bundle.parent.iterdir()) == [bundle]


def test_unverifiable_bundle_is_not_published(tmp_path: Path) -> None:
    def unverifiable() -> None:
        with new_bundle(tmp_path / "out") as folder:
            (folder / MANIFEST).write_text("{}")

    with pytest.raises(InputError, match="format"):
        unverifiable()
    assert list(tmp_path.iterdir()) == []


def test_pack_is_deterministic_and_loads(bundle: Path, tmp_path: Path) -> None:
    one = pack(bundle, tmp_path / "one.esb")
    os.utime(bundle / "model.onnx", (1, 1))
    two = pack(bundle, tmp_path / "two.esb")
    assert one.read_bytes() == two.read_bytes()
    packed = verify_bundle(one)
    assert packed.manifest == read_bundle(bundle).manifest
    with pytest.raises(InputError, match="--force"):
        pack(bundle, one)


def test_damaged_packed_bundles(bundle: Path, tmp_path: Path) -> None:
    """Random bytes, half of them in the directory at the end, and cuts: read truly or refused."""
    content, manifest = pack(bundle, tmp_path / "one.esb").read_bytes(), read_bundle(bundle).manifest
    random, refusals = np.random.default_rng(0), 0
    for i in range(400):
        damaged = bytearray(content)
        for _ in range(random.integers(1, 5)):
            damaged[-random.integers(1, len(content) if i % 2 else 600)] = random.integers(256)
        (tmp_path / "damaged.esb").write_bytes(
            damaged[: random.integers(len(damaged))] if i % 10 == 0 else damaged
        )
        try:
            assert verify_bundle(tmp_path / "damaged.esb").manifest == manifest  # a field nobody reads
        except InputError:
            refusals += 1
    assert refusals > 200
    (tmp_path / "noise.esb").write_bytes(os.urandom(4000))
    refused(tmp_path / "noise.esb", "not a packed bundle")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a//b", "a/../../b", "C:\\evil", "a\nb"])
def test_packed_bundle_cannot_escape(bundle: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.esb", "w") as archive:
        archive.writestr(name, "x")
    refused(tmp_path / "evil.esb", "unsafe member name")
    assert not (tmp_path.parent / "evil").exists()


def test_zip_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.esb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, "0" * 10_000_000)
    refused(tmp_path / "bomb.esb", "compressed")


def any_json() -> st.SearchStrategy[object]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    return st.recursive(leaves, lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=5), s))


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_value_anywhere_is_read_or_refused(tmp_path_factory, data: st.DataObject) -> None:
    """One value of the manifest becomes something else: never another exception than InputError."""
    bundle = _shared_bundle(tmp_path_factory)
    document = json.loads((bundle / MANIFEST).read_text())
    original = json.dumps(document)
    node: object = document
    while True:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        child = node[key]
        if not isinstance(child, (dict, list)) or not child or data.draw(st.booleans()):
            break
        node = child
    node[key] = data.draw(any_json())
    write_sealed(bundle, document)
    with contextlib.suppress(InputError):
        Recognizer.load(bundle).create_stream()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert cli.main(["inspect", str(bundle)]) in (0, 2), err.getvalue()
    (bundle / MANIFEST).write_text(original)


_SHARED: list[Path] = []


def _shared_bundle(factory: pytest.TempPathFactory) -> Path:
    if not _SHARED:
        _SHARED.append(write_bundle(factory.mktemp("fuzz") / "bundle"))
    return _SHARED[0]


def test_unpacked_bundles_leave_nothing_behind(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, scratch = pack(bundle, tmp_path / "one.esb"), tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    opened = read_bundle(packed)
    assert len(list(scratch.iterdir())) == 1
    del opened
    assert list(scratch.iterdir()) == []
    with zipfile.ZipFile(tmp_path / "odd.esb", "w") as archive:
        archive.writestr("a", "x")
        archive.writestr("a/b", "x")
    refused(tmp_path / "odd.esb", "not a packed bundle")
    assert list(scratch.iterdir()) == []
