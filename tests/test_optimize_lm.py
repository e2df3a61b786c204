"""optimize --lm: the model goes into the bundle, its fit checked first, its worth measured beside greedy."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import jiwer
import numpy as np
import pytest

from edge_speech import _core, bundle, cli
from edge_speech.audio import read_audio
from edge_speech.ctc import CtcConfig, CtcPrefixBeam
from edge_speech.decoder import DecoderOptions
from edge_speech.errors import InputError
from edge_speech.features import frontend_from_dict
from edge_speech.lm.model import NgramLm
from edge_speech.lm.train import TrainConfig, train
from edge_speech.manifest import read_manifest
from edge_speech.quality import Score
from edge_speech.recognizer import Recognizer
from edge_speech.verification import verify
from edge_speech_tools import language_model, latency, pipeline, report_html
from edge_speech_tools.decoding import Line
from edge_speech_tools.evaluation import PYTORCH, Measured, Quality, measure_quality
from edge_speech_tools.language_model import Speller, check_fit
from edge_speech_tools.passes import PassResult
from edge_speech_tools.progress import Progress
from edge_speech_tools.recordings import Recording
from test_optimize import TOKENS, WORDS, config_of, write_model
from tiny import FRONTEND, SPEC, TinyEncoder, TinyStream, speech_like
from tiny import TOKENS as TINY

OPTIONS = {"lm_weight": 0.4, "word_bonus": 0.3}


def write_lm(path: Path, lines: list[str], order: int = 2) -> Path:
    """An ARPA file estimated from these lines."""
    path.with_suffix(".txt").write_text("\n".join(lines), encoding="utf-8")
    train(path.with_suffix(".txt"), path, TrainConfig(order))
    return path


@pytest.fixture(scope="module", autouse=True)
def one_round() -> Iterator[None]:
    """Latency is of no interest here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "ROUNDS", 1)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.pt")


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits in pairs, without "nine", and a word that the model's tokens do not spell."""
    pairs = [" ".join(pair) for pair in itertools.product(WORDS[:9], WORDS[:5])]
    return write_lm(tmp_path_factory.mktemp("lm") / "lm.arpa", [*pairs, "oh one"])


@pytest.fixture(scope="module")
def made(
    model: Path, lm: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The bundle and report of a run with the language model."""
    output = tmp_path_factory.mktemp("made") / "bundle"
    options = DecoderOptions(12, str(lm), **OPTIONS)
    changes = {
        "eval_manifest": digits / "clips.jsonl",
        "accuracy_budget": 1000.0,
        "precision": "int8-dynamic",
    }
    return output, pipeline.optimize(
        config_of(model, output, "linux-x86_64", decoder=options, **changes)
    ).report


def test_the_bundle_has_the_compiled_model(made: tuple[Path, dict[str, Any]], lm: Path) -> None:
    output, report = made
    manifest = bundle.verify_bundle(output).manifest
    assert (output / bundle.LANGUAGE_MODEL).read_bytes() == NgramLm.load(lm).core.image().tobytes()
    size = (output / bundle.LANGUAGE_MODEL).stat().st_size
    assert manifest.decoder["lm"]["bytes"] == report["decoder"]["lm"]["bytes"] == size
    assert {k: v for k, v in manifest.decoder.items() if k != "lm"} == {
        "type": "prefix_beam", "blank_id": 0, "beam_size": 12, "lm_level": "word", "unknown_score": -10.0,
        **OPTIONS,
    }  # fmt: skip
    there = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert there == {entry.path for entry in manifest.files} | {bundle.MANIFEST}


def test_error_rates_are_those_of_the_bundle(made: tuple[Path, dict[str, Any]], digits: Path) -> None:
    output, report = made
    recognizer, utterances = Recognizer.load(output), read_manifest(digits / "clips.jsonl")

    def wer(**how: Any) -> float:
        texts = []
        for utterance in utterances:
            stream = recognizer.create_stream(**how)
            stream.accept_waveform(*read_audio(utterance.audio_path))
            stream.input_finished()
            texts.append(stream.result.text)
        return round(100 * jiwer.wer([u.text for u in utterances], texts), 3)

    (int8,) = (a for a in report["quality"]["artifacts"] if a["precision"] == "int8-dynamic")
    assert recognizer.artifact is not None
    assert recognizer.artifact.precision == "int8-dynamic"
    assert (int8["wer"], int8["wer_greedy"]) == (wer(), wer(beam_size=1))
    assert int8["wer"] != int8["wer_greedy"]
    assert int8["wer_against_greedy"] == pytest.approx(int8["wer"] - int8["wer_greedy"], abs=1e-3)
    quality = json.loads((output / bundle.MANIFEST).read_text())["quality"]
    assert (quality["wer"], quality["wer_greedy"]) == (int8["wer"], int8["wer_greedy"])
    assert quality["wer_fp32"] == report["quality"]["wer_pytorch"]
    for key, figures in (("wer", int8), ("wer_pytorch", report["quality"])):
        for name in (key, f"{key}_greedy", f"{key}_against_greedy"):
            low, high = figures[f"{name}_ci95"]
            assert low <= figures[name] <= high


def test_the_report_says_how_the_model_fits(made: tuple[Path, dict[str, Any]], digits: Path) -> None:
    output, report = made
    about = report["decoder"]["lm"]
    assert (about["source"], about["order"]) == ("lm.arpa", 2)
    assert (about["words"], about["unspellable_words"]) == (10, 1)  # "nine" is missing, "oh" is unspellable
    words = [w for u in read_manifest(digits / "clips.jsonl") for w in u.text.split()]
    measured = about["eval"]
    assert (measured["words"], measured["oov_words"]) == (len(words), words.count("nine"))
    assert measured["oov_percent"] == pytest.approx(100 * words.count("nine") / len(words), abs=1e-3)
    assert 1 < measured["perplexity"] < 100
    page = (output / "report.html").read_text(encoding="utf-8")
    text = " ".join(ElementTree.fromstring(page.partition("\n")[2]).itertext())
    for shown in ("lm.arpa: ", "KiB in the bundle", "1 of its 10 words", "beam 12", "pytorch, greedy"):
        assert shown in text


def test_the_golden_text_is_the_searchs(made: tuple[Path, dict[str, Any]], lm: Path) -> None:
    output, _ = made
    search = CtcPrefixBeam(TOKENS, CtcConfig(12, lm=NgramLm.load(lm), **OPTIONS))
    search.step(np.load(output / bundle.GOLDEN_LOG_PROBS))
    golden = (output / bundle.GOLDEN_TEXT).read_text(encoding="utf-8")
    assert golden == search.finish().text
    assert verify(output).text == golden


class CountingEncoder:
    """Counts the steps of all its streams."""

    spec = SPEC

    def __init__(self) -> None:
        self.steps = 0

    def open(self, features: np.ndarray, log_probs: np.ndarray) -> TinyStream:
        stream, step = TinyStream(features, log_probs), TinyStream.step

        def counted() -> None:
            self.steps += 1
            step(stream)

        stream.step = counted  # type: ignore[method-assign]
        return stream


def test_two_decoders_hear_one_run_of_the_encoder() -> None:
    waveform, frontend = speech_like(3), frontend_from_dict(FRONTEND)
    line = Line(frontend, TINY, CtcConfig(8, word_bonus=0.0))
    recordings = [Recording("a", "two one", lambda: (waveform, 16000))]
    encoder = CountingEncoder()
    found = measure_quality(line, {"x": encoder}, recordings, Progress(quiet=True))
    alone = Recognizer(TinyEncoder(), frontend, TINY)
    assert encoder.steps == -(-len(waveform) // 160 // 8)
    for score, how in ((found["x"].score, {"config": line.decoder}), (found["x"].greedy, {})):
        stream = alone.create_stream(**how)  # type: ignore[arg-type]
        stream.accept_waveform(waveform, 16000)
        stream.input_finished()
        assert score.wer == pytest.approx(100 * jiwer.wer("two one", stream.result.text))


def test_the_gate_compares_like_with_like(tmp_path: Path) -> None:
    def score(errors: int) -> Score:
        return Score(np.array([errors]), np.array([10]))

    (tmp_path / "x.onnx").write_bytes(b"x")
    result = PassResult(tmp_path / "x.onnx", "onnxruntime", "fp32", "built", "onnxruntime")
    quality = {PYTORCH: Quality(score(1), score(6)), result.key: Quality(score(3), score(5))}
    candidate = pipeline._candidate(
        result, SimpleNamespace(device_bench={}), Measured((result,), {}, quality, {}, "x")
    )
    assert candidate.wer_added == pytest.approx(20.0)


def test_a_beam_without_a_model(tmp_path: Path) -> None:
    config = DecoderOptions(4).over(None)
    assert language_model.write(tmp_path, config) is None
    assert list(tmp_path.iterdir()) == []
    described = language_model.describe_decoder(config, None, None)
    assert described == {"type": "prefix_beam", "beam_size": 4}
    assert report_html._decoder(described) == "<p>Beam 4, without a language model.</p>"


def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "build", lambda *_: pytest.fail("work was begun"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (DecoderOptions(lm="nowhere.arpa"), "nowhere.arpa: cannot be read"),
        (DecoderOptions(lm_weight=1.0), "lm_weight is given without a language model"),
        (DecoderOptions(beam_size=0), "beam_size is 0"),
        (DecoderOptions(beam_size=4097), "beam_size is 4097"),
        (DecoderOptions(1, "nowhere.arpa"), "lm is given, but greedy"),
    ],
)
def test_bad_options_are_one_line(
    options: DecoderOptions, named: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_work(monkeypatch)
    with pytest.raises(InputError, match=named) as error:
        pipeline.optimize(config_of(model, tmp_path / "bundle", "linux-x86_64", decoder=options))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_other_words_is_refused_before_any_work(
    model: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lm: Path
) -> None:
    no_work(monkeypatch)
    output, given = tmp_path / "bundle", {"eval_manifest": digits / "clips.jsonl"}
    upper = write_lm(tmp_path / "upper.arpa", [" ".join(WORDS).upper()])
    few = write_lm(tmp_path / "few.arpa", ["one two one two", "two one"])
    for path, changes, match in (
        (upper, {}, "can spell no word of the language model"),
        (few, given, r"of the 30 words of the --eval texts are not .*'eight'"),
        (lm, {**given, "decoder": DecoderOptions(lm=str(lm), lm_weight=101.0)}, "lm_weight"),
    ):
        changed = {"decoder": DecoderOptions(lm=str(path)), **changes}
        with pytest.raises(InputError, match=match) as error:
            pipeline.optimize(config_of(model, output, "linux-x86_64", **changed))
        assert "\n" not in str(error.value)
        assert not output.exists()


def cuts(text: str) -> list[list[str]]:
    """All ways to cut a text."""
    return [[text[:i], *rest] for i in range(1, len(text)) for rest in cuts(text[i:])] + [[text]]


def test_spelling_is_some_cut_into_tokens() -> None:
    random, letters = np.random.default_rng(0), "ab▁"
    for _ in range(30):
        tokens = ["<blk>", *{"".join(random.choice(list(letters), random.integers(1, 4))) for _ in range(5)}]
        speller = Speller(tokens)
        for length in range(1, 5):
            word = "".join(random.choice(["a", "b"], length))
            assert speller.spells(word) == any(set(cut) <= set(tokens) for cut in cuts("▁" + word))


def test_a_few_unspellable_words_are_a_warning() -> None:
    lm = NgramLm(_core.NgramModel.from_arpa(
        b"\\data\\\nngram 1=5\n\n\\1-grams:\n-4\t<unk>\n-1\t<s>\n-1\t</s>\n-1\tone\n-1\telse\n\n\\end\\\n"
    ))  # fmt: skip
    fit = check_fit(lm, "word", TOKENS, [])
    assert fit.unspellable == ("else",)
    assert fit.warning() is not None
    assert "1 of 2 words" in str(fit.warning())
    assert fit.on_texts is None
    assert check_fit(lm, "word", [*TOKENS, "▁else"], ["one", ""]).warning() is None


def test_dry_run_shows_the_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "optimize", "missing.pt", "--target", "linux-x86_64", "-o", str(tmp_path / "b"), "--dry-run"
    assert cli.main([*words, "--lm", "lm.arpa", "--eval", "e.jsonl"]) == 0
    shown = capsys.readouterr().out
    assert "decoder   lm.arpa: compile the language model" in shown
    assert "with the bundle's decoder and greedily" in shown
    assert cli.main([*words, "--beam-size", "8"]) == 0
    assert "decoder   beam 8" in capsys.readouterr().out
