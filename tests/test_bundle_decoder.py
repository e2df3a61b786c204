"""The decoder that travels in a bundle: read within limits, run by default, changed by a caller, verified."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_speech import _core
from edge_speech.archive import pack
from edge_speech.bundle import (
    GOLDEN_LOG_PROBS,
    GOLDEN_TEXT,
    LANGUAGE_MODEL,
    describe_file,
    read_bundle,
    verify_bundle,
)
from edge_speech.bundle_manifest import FileEntry, parse_decoder
from edge_speech.ctc import CtcConfig, CtcPrefixBeam
from edge_speech.decoder import in_words, manifest_decoder
from edge_speech.errors import InputError
from edge_speech.fields import Table
from edge_speech.lm.model import NgramLm
from edge_speech.recognizer import Recognizer, Result
from test_bundle import any_json
from test_errors import refused, run
from test_lm_fusion import ARPA
from tiny import TOKENS, edit, speech_like, write_bundle, write_wav

# It has one of the words that the tokens spell: what is heard changes with it.
ONLY_TWO = "\\data\\\nngram 1=4\n\n\\1-grams:\n-4\t<unk>\n-99\t<s>\n-1\t</s>\n-0.1\ttwo\n\n\\end\\\n"
WEIGHTS = {"lm_level": "word", "lm_weight": 0.7, "word_bonus": 0.25, "unknown_score": -8.0}
WAVEFORM = (speech_like(8) * 32767).astype(np.int16)


def only_two() -> NgramLm:
    return NgramLm(_core.NgramModel.from_arpa(ONLY_TWO.encode()))


def add_decoder(bundle: Path, config: CtcConfig, content: bytes | None = None) -> Path:
    """Give a bundle the search of `config`, its model's image (or `content`) as lm.bin, the text of both."""
    lm = None
    if config.lm is not None:
        (bundle / LANGUAGE_MODEL).write_bytes(
            config.lm.core.image().tobytes() if content is None else content
        )
        lm = describe_file(bundle, LANGUAGE_MODEL)
    search = CtcPrefixBeam(TOKENS, config)
    search.step(np.load(bundle / GOLDEN_LOG_PROBS))
    (bundle / GOLDEN_TEXT).write_text(search.finish().text, encoding="utf-8")

    def change(document: dict) -> None:
        document["decoder"] = manifest_decoder(config, 0, lm)
        document["golden"][3] = asdict(describe_file(bundle, GOLDEN_TEXT))

    edit(bundle, change)
    return bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The bundle of the tests with a search and a model; and a recording beside it."""
    write_wav(tmp_path / "a.wav", WAVEFORM)
    return add_decoder(write_bundle(tmp_path / "bundle"), CtcConfig(16, lm=only_two(), **WEIGHTS))


def heard(recognizer: Recognizer, **how: object) -> Result:
    stream = recognizer.create_stream(**how)  # type: ignore[arg-type]
    stream.accept_waveform(WAVEFORM, 16000)
    stream.input_finished()
    return stream.result


def test_a_stream_runs_what_the_bundle_says(bundle: Path, tmp_path: Path) -> None:
    recognizer = Recognizer.load(bundle)
    config = CtcConfig(16, lm=only_two(), **WEIGHTS)
    expected, greedy = heard(recognizer, config=config), heard(recognizer, beam_size=1)
    assert heard(recognizer) == expected
    assert recognizer.transcribe(tmp_path / "a.wav") == expected
    assert expected.text != greedy.text
    assert greedy == heard(Recognizer(recognizer.encoder, recognizer.frontend, TOKENS))
    assert heard(recognizer, config=CtcConfig(16)).text != expected.text


def test_beam_and_hotwords_join_the_bundles_search(bundle: Path) -> None:
    recognizer = Recognizer.load(bundle)
    lm = {"lm": recognizer.decoder.lm, **WEIGHTS}  # type: ignore[union-attr]
    assert heard(recognizer, beam_size=3) == heard(recognizer, config=CtcConfig(3, **lm))
    both = heard(recognizer, hotwords=["three"])
    assert both == heard(recognizer, config=CtcConfig(16, hotwords=["three"], **lm))
    with pytest.raises(InputError, match="beam_size is 1 with hotwords"):
        recognizer.create_stream(hotwords=["three"], beam_size=1)


def test_streams_share_one_mapping(bundle: Path) -> None:
    recognizer = Recognizer.load(bundle)
    streams = [recognizer.create_stream() for _ in range(3)]
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(bundle) in line]
    assert len([line for line in mapped if line.endswith(LANGUAGE_MODEL)]) == 1
    assert streams


def test_a_search_without_a_model(tmp_path: Path) -> None:
    bundle = add_decoder(write_bundle(tmp_path / "bundle"), CtcConfig(5))
    assert read_bundle(bundle).manifest.language_model is None
    recognizer = Recognizer.load(bundle)
    assert heard(recognizer) == heard(recognizer, config=CtcConfig(5))


def test_packed_and_verified(bundle: Path, tmp_path: Path) -> None:
    packed = pack(bundle, tmp_path / "one.esb")
    assert verify_bundle(packed).manifest.language_model == describe_file(bundle, LANGUAGE_MODEL)
    assert heard(Recognizer.load(packed)) == heard(Recognizer.load(bundle))
    document = json.loads(run(tmp_path, "verify", "one.esb", "--json").stdout)
    assert document["decoder"]["lm"] == {"order": 1, "ngrams": [4]}
    assert document["text"] == (bundle / GOLDEN_TEXT).read_text(encoding="utf-8")
    shown = run(tmp_path, "inspect", "bundle").stdout.decode()
    assert re.search(r"beam 16, .*weight 0.7, .*bonus 0.25.*lm\.bin of \d+ bytes", shown)


def test_verify_finds_a_decoder_that_gives_another_text(bundle: Path, tmp_path: Path) -> None:
    (bundle / GOLDEN_TEXT).write_text("four four")
    edit(bundle, lambda d: d["golden"].__setitem__(3, asdict(describe_file(bundle, GOLDEN_TEXT))))
    done = run(tmp_path, "verify", "bundle")
    assert done.returncode == 1
    assert b"golden text is 'four four'" in done.stderr
    assert done.stderr.count(b"\n") == 1


def reference(**changes: object):  # type: ignore[no-untyped-def]
    return lambda d: d["decoder"].update(changes)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (reference(type="beam"), "'greedy' or 'prefix_beam'"),
        (reference(beam_size=1), "beam_size.*2 to 4096"),
        (reference(beam_size=10**9), "beam_size.*2 to 4096"),
        (reference(beam_size=8.0), "beam_size"),
        (reference(lm_weight=-0.1), "lm_weight.*0 to 100"),
        (reference(lm_weight=float("nan")), "lm_weight"),
        (reference(lm_weight=True), "lm_weight"),
        (reference(word_bonus=1e9), "word_bonus.*-100 to 100"),
        (reference(unknown_score=1), "unknown_score.*-1000 to 0"),
        (reference(unknown_score="-10"), "unknown_score"),
        (reference(colour="red"), "'colour' is no key of prefix_beam"),
        (lambda d: d["decoder"].pop("lm"), "'lm' must be .* or null, got nothing"),
        (lambda d: d["decoder"].pop("word_bonus"), "word_bonus.*got nothing"),
        (reference(lm="lm.bin"), "lm: expected a table"),
        (reference(lm={}), "path"),
        (lambda d: d["decoder"]["lm"].update(path="../lm.bin"), "relative"),
        (lambda d: d["decoder"]["lm"].update(path="tokens.txt"), "twice"),
        (lambda d: d["decoder"]["lm"].update(bytes=1 << 40), "bytes"),
        (lambda d: d["decoder"]["lm"].update(sha256="0" * 64), "SHA-256"),
        (lambda d: d.update(decoder={"type": "greedy", "blank_id": 0, "beam_size": 8}), "no key of greedy"),
    ],
)
def test_odd_decoders_are_refused(bundle: Path, change, match: str) -> None:  # type: ignore[no-untyped-def]
    edit(bundle, change)
    with pytest.raises(InputError, match=match) as caught:
        verify_bundle(bundle)
    assert "\n" not in str(caught.value)


def test_a_missing_or_changed_model_is_one_line(bundle: Path, tmp_path: Path) -> None:
    words = "transcribe", "bundle", "a.wav"
    content = bytearray((bundle / LANGUAGE_MODEL).read_bytes())
    (bundle / LANGUAGE_MODEL).unlink()
    refused(tmp_path, "lm.bin: missing, but manifest.json names it", *words)
    content[len(content) // 2] ^= 4
    (bundle / LANGUAGE_MODEL).write_bytes(content)
    refused(tmp_path, "lm.bin: its SHA-256 is not the one in manifest.json", *words)
    (bundle / LANGUAGE_MODEL).write_bytes(content[:100])
    refused(tmp_path, "100 bytes, but manifest.json says", *words)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not a compiled language model"),
        (ONLY_TWO.encode(), "not a compiled language model"),
        (b"\x1f\x8b" + b"\0" * 100, "not a compiled language model"),
        (only_two().core.image().tobytes()[:-64], "not a usable compiled language model"),
        (b"ESNGRAM\n" + b"\xff" * 500, "not a usable compiled language model"),
    ],
    ids=["empty", "arpa", "gzip", "cut", "noise"],
)
def test_an_odd_model_with_the_right_hash_is_one_line(tmp_path: Path, content: bytes, match: str) -> None:
    write_wav(tmp_path / "a.wav", WAVEFORM)
    add_decoder(write_bundle(tmp_path / "bundle"), CtcConfig(lm=only_two()), content)
    for words in (("transcribe", "bundle", "a.wav"), ("verify", "bundle"), ("bench", "bundle")):
        refused(tmp_path, match, *words)


def test_any_changed_byte_of_the_model_is_refused(tmp_path: Path) -> None:
    """With a hash that fits, so that only the model's own checks are between the bytes and the search."""
    bundle, random = write_bundle(tmp_path / "bundle"), np.random.default_rng(0)
    image = NgramLm(_core.NgramModel.from_arpa(ARPA.encode())).core.image().tobytes()
    for _ in range(60):
        damaged = bytearray(image)
        damaged[random.integers(len(image))] ^= 1 << int(random.integers(8))
        add_decoder(bundle, CtcConfig(lm=only_two()), bytes(damaged))
        with pytest.raises(InputError, match="compiled language model"):
            Recognizer.load(bundle)


def test_the_words_of_a_model() -> None:
    lm = NgramLm(
        _core.NgramModel.from_arpa(
            ARPA.replace("\tab\t", "\täb\t").replace(" ab", " äb").replace("ab c", "äb c").encode()
        )
    )
    assert sorted(lm.words()) == ["a", "c", "äb"]
    assert only_two().words() == ["two"]


def test_commands_change_the_bundles_search(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "two.arpa").write_text(ONLY_TWO)
    recognizer = Recognizer.load(bundle)
    lm = recognizer.decoder.lm  # type: ignore[union-attr]
    wanted = {
        (): recognizer.decoder,
        ("--beam-size", "1"): None,
        ("--greedy",): None,
        ("--beam-size", "4"): CtcConfig(4, lm=lm, **WEIGHTS),
        ("--lm-weight", "0", "--word-bonus", "3"): CtcConfig(
            16, lm=lm, lm_weight=0, word_bonus=3, unknown_score=-8.0
        ),
        ("--lm", "two.arpa", "--lm-weight", "2"): CtcConfig(
            16, lm=only_two(), lm_weight=2, word_bonus=0.25, unknown_score=-8.0
        ),
    }
    for options, config in wanted.items():
        recognizer.decoder = config
        done = run(tmp_path, "transcribe", "bundle", "a.wav", *options)
        assert done.stdout.decode().strip() == heard(recognizer).text, (options, done.stderr)


def test_eval_and_bench_say_what_decoded(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio_filepath": "a.wav", "text": "two one"}))
    search = {"type": "prefix_beam", "beam_size": 16, "lm": {"order": 1, "ngrams": [4]}, **WEIGHTS}
    document = json.loads(run(tmp_path, "eval", "bundle", "m.jsonl", "--json", "--details").stdout)
    assert document["decoder"] == search
    assert document["details"][0]["hypothesis"] == heard(Recognizer.load(bundle)).text
    assert b"language model weight 0.7" in run(tmp_path, "eval", "bundle", "m.jsonl").stdout
    greedy = json.loads(run(tmp_path, "eval", "bundle", "m.jsonl", "--json", "--greedy").stdout)
    assert greedy["decoder"] == {"type": "greedy"}
    timed = json.loads(run(tmp_path, "bench", "bundle", "--json", "--word-bonus", "1").stdout)
    assert timed["decoder"] == search | {"word_bonus": 1.0}
    assert len(timed["results"]) == 1


ODD = {
    "no such model": (("--lm", "nowhere.bin"), "nowhere.bin: cannot be read"),
    "not a model": (("--lm", "a.wav"), "a.wav: "),
    "weight": (("--lm-weight", "-1"), "lm_weight, word_bonus and unknown_score are -1"),
    "weight NaN": (("--lm-weight", "nan"), "lm_weight"),
    "bonus": (("--word-bonus", "1e9"), "word_bonus"),
    "greedy with a model": (("--greedy", "--lm", "a.wav"), "lm is given, but greedy"),
    "greedy with a weight": (("--beam-size", "1", "--lm-weight", "1"), "lm_weight is given, but greedy"),
    "beam": (("--beam-size", "5000"), "beam_size is 5000"),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("command", ["transcribe bundle a.wav", "bench bundle"])
def test_odd_options(bundle: Path, tmp_path: Path, kind: str, command: str) -> None:
    options, match = ODD[kind]
    refused(tmp_path, match, *command.split(), *options)


def test_weights_need_a_model(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    write_wav(tmp_path / "a.wav", WAVEFORM)
    for option in ("--lm-weight", "--word-bonus"):
        refused(
            tmp_path,
            "without a language model; name one with --lm",
            "transcribe",
            "bundle",
            "a.wav",
            option,
            "1",
        )


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["type", "blank_id", "beam_size", "lm", *WEIGHTS, "new"]), any_json(), st.booleans())
def test_any_value_in_a_decoder_is_read_or_refused(key: str, value: object, inside: bool) -> None:
    """Read, its numbers are in range: a search opens with them. Never another exception than InputError."""
    entry = {"path": "lm.bin", "sha256": "0" * 64, "bytes": 1}
    decoder = manifest_decoder(CtcConfig(lm=only_two()), 0, FileEntry(**entry))  # type: ignore[arg-type]
    if inside:
        decoder["lm"] = {**entry, {"beam_size": "path", "lm": "sha256"}.get(key, "bytes"): value}
    else:
        decoder[key] = value
    with contextlib.suppress(InputError):
        read = parse_decoder(Table(decoder, "decoder"), 6)
        weights = {name: read[name] for name in WEIGHTS} if read["type"] == "prefix_beam" else {}
        CtcPrefixBeam(TOKENS, CtcConfig(read.get("beam_size", 8), lm=only_two(), **weights))
        assert in_words(read)
