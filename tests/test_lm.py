"""N-gram models: estimates against the definition, scores against KenLM, the commands and their refusals."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

import edge_speech as es
from edge_speech.lm import counts
from edge_speech.lm.perplexity import perplexity
from edge_speech.lm.text import read_sentences
from edge_speech.lm.train import TrainConfig, train
from kneser_ney_reference import Reference
from test_errors import refused, run

PRUNED = (0, 0, 1, 1)


def sentences_of(seed: int, count: int, vocabulary: int = 30) -> list[list[str]]:
    """A chain of words of very different frequencies, each depending on the one before."""
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, vocabulary + 1)
    lines = []
    for length in random.integers(1, 12, count):
        word, line = 0, []
        for step in random.choice(vocabulary, length, p=weights / weights.sum()):
            word = int(3 * word + step) % vocabulary
            line.append(f"wörd{word}")
        lines.append(line)
    return lines


def write(path: Path, sentences: list[list[str]]) -> Path:
    path.write_text("".join(" ".join(s) + "\n" for s in sentences), encoding="utf-8")
    return path


SENTENCES = sentences_of(0, 400)
HELD_OUT = [*sentences_of(1, 100, vocabulary=33), ["wörd0"] * 7, ["nothing", "of", "this"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    write(folder / "text.txt", SENTENCES)
    write(folder / "held_out.txt", HELD_OUT)
    for name, config in {"full": TrainConfig(4), "pruned": TrainConfig(4, PRUNED)}.items():
        train(folder / "text.txt", folder / f"{name}.arpa", config)
    return folder


@pytest.mark.parametrize("order", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("prune", [(0,), (0, 0, 1), (0, 1, 1, 1)])
def test_estimates_follow_the_definition(tmp_path: Path, order: int, prune: tuple[int, ...]) -> None:
    config = TrainConfig(order, prune[:order])
    train(write(tmp_path / "t", SENTENCES), tmp_path / "lm.arpa", config)
    lm = es.NgramLm.load(tmp_path / "lm.arpa")
    reference = Reference(SENTENCES, order, config.thresholds())
    for sentence in HELD_OUT:
        words = [w if w in reference.words else "<unk>" for w in sentence] + ["</s>"]
        expected = [math.log(reference.prob(("<s>", *words[:i]), w)) for i, w in enumerate(words)]
        assert lm.log_probs(" ".join(sentence)) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("name", ["full", "pruned"])
def test_probabilities_of_every_context_sum_to_one(folder: Path, name: str) -> None:
    lm = es.NgramLm.load(folder / f"{name}.arpa")
    words = sorted({w for s in SENTENCES for w in s})
    for context in [[], *SENTENCES[:20], *HELD_OUT[-3:]]:
        for history in (context[:1], context[:2], context):
            text = " ".join(history)
            total = math.exp(lm.log_probs(text)[-1])
            total += sum(math.exp(lm.log_probs(f"{text} {w}")[-2]) for w in [*words, "not-a-word"])
            assert total == pytest.approx(1, abs=2e-5)


@pytest.mark.optional
@pytest.mark.parametrize("name", ["full", "pruned"])
def test_scores_are_kenlms(folder: Path, name: str) -> None:
    kenlm = pytest.importorskip("kenlm")
    theirs, ours = kenlm.Model(str(folder / f"{name}.arpa")), es.NgramLm.load(folder / f"{name}.arpa")
    assert ours.order == theirs.order == 4
    for sentence in [*SENTENCES, *HELD_OUT, []]:
        text = " ".join(sentence)
        expected = np.array([s for s, _, _ in theirs.full_scores(text)]) * math.log(10)
        found = np.array(ours.log_probs(text))
        assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() <= 1e-4  # every prefix, then the whole
        assert ours.score(text) == pytest.approx(theirs.score(text) * math.log(10), abs=1e-4)


def test_a_compiled_model_scores_the_same_to_the_bit(folder: Path) -> None:
    done = json.loads(run(folder, "lm", "compile", "full.arpa", "-o", "lm.bin", "--json").stdout)
    text, compiled = es.NgramLm.load(folder / "full.arpa"), es.NgramLm.load(folder / "lm.bin")
    assert done["ngrams"] == list(text.counts) == list(compiled.counts)
    assert done["bytes"] == (folder / "lm.bin").stat().st_size < (folder / "full.arpa").stat().st_size
    for sentence in HELD_OUT:
        assert compiled.log_probs(" ".join(sentence)) == text.log_probs(" ".join(sentence))


def test_large_texts_are_counted_in_blocks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "_BLOCK", 100)
    train(folder / "text.txt", folder / "blocks.arpa", TrainConfig(4, PRUNED))
    assert (folder / "blocks.arpa").read_bytes() == (folder / "pruned.arpa").read_bytes()


def test_packed_text_and_packed_models_are_the_same(folder: Path) -> None:
    (folder / "text.txt.gz").write_bytes(gzip.compress((folder / "text.txt").read_bytes()))
    train(folder / "text.txt.gz", folder / "packed.arpa.gz", TrainConfig(4))
    assert gzip.decompress((folder / "packed.arpa.gz").read_bytes()) == (folder / "full.arpa").read_bytes()
    assert es.NgramLm.load(folder / "packed.arpa.gz").counts == es.NgramLm.load(folder / "full.arpa").counts


def test_vocabulary_limit_turns_rare_words_into_unk(tmp_path: Path) -> None:
    limited = TrainConfig(3, vocab_limit=10)
    document = train(write(tmp_path / "t", SENTENCES), tmp_path / "lm.arpa", limited)
    lm = es.NgramLm.load(tmp_path / "lm.arpa")
    kept = {w for s in SENTENCES for w in s if w in lm}
    assert len(kept) == 10
    assert document["vocabulary"] == lm.counts[0] == 13
    assert "<unk>" not in lm
    reference = Reference([[w if w in kept else "<unk>" for w in s] for s in SENTENCES], 3, (0, 0, 0))
    rare = next(w for s in SENTENCES for w in s if w not in kept)
    assert lm.log_probs(rare)[0] == pytest.approx(math.log(reference.prob(("<s>",), "<unk>")), abs=2e-5)


def test_order_and_training_help_the_perplexity(folder: Path) -> None:
    held_out = sentences_of(2, 200)
    measured = []
    for order in (1, 2):
        train(folder / "text.txt", folder / "p.arpa", TrainConfig(order))
        measured.append(perplexity(es.NgramLm.load(folder / "p.arpa"), held_out).perplexity)
    assert measured[1] < 0.8 * measured[0] < 0.8 * 31  # 30 words and the end, all alike, would give 31


def test_train_reports_what_perplexity_measures(folder: Path) -> None:
    words = (
        "lm",
        "train",
        "text.txt",
        "-o",
        "new.arpa",
        "--prune",
        "0",
        "0",
        "1",
        "--eval",
        "held_out.txt",
        "--json",
    )
    trained = json.loads(run(folder, *words).stdout)
    assert list(trained) == "path order ngrams vocabulary sentences words discounts eval".split()
    assert trained["sentences"] == len(SENTENCES)
    assert trained["words"] == sum(map(len, SENTENCES))
    assert (folder / "new.arpa").read_bytes() == (folder / "pruned.arpa").read_bytes()
    measured = json.loads(run(folder, "lm", "--json", "perplexity", "new.arpa", "held_out.txt").stdout)
    assert measured == trained["eval"]
    lm, unknown = es.NgramLm.load(folder / "new.arpa"), 0
    known, events = 0.0, 0
    for sentence in HELD_OUT:
        for word, log_prob in zip([*sentence, "</s>"], lm.log_probs(" ".join(sentence)), strict=True):
            unknown += word not in lm
            known, events = (known + log_prob, events + 1) if word in lm else (known, events)
    assert measured["oov_words"] == unknown > 3
    assert measured["perplexity"] == pytest.approx(math.exp(-known / events), rel=1e-4)


def test_shown_for_people(folder: Path) -> None:
    shown = run(folder, "lm", "train", "text.txt", "-o", "x.arpa", "--order", "2", "--eval", "held_out.txt")
    assert b"2-grams\nperplexity" in shown.stdout
    assert shown.stderr == b""
    for verb in ("train", "compile", "perplexity"):
        assert f"edge-speech lm {verb}".encode() in run(folder, "lm", verb, "--help").stdout


def test_refusals(folder: Path) -> None:
    (folder / "odd.txt").write_bytes(b"fine\n\xff\xfe\n")
    (folder / "cut.txt.gz").write_bytes(gzip.compress(b"a b c\n" * 10000)[:-20])
    (folder / "marks.txt").write_text("a <s> b\n")
    (folder / "empty.txt").write_text("\n \n")
    (folder / "short.txt").write_text("a\nb\n")
    (folder / "odd.arpa").write_bytes((folder / "full.arpa").read_bytes()[:2000])
    (folder / "cut.arpa.gz").write_bytes(gzip.compress((folder / "full.arpa").read_bytes())[:2000])
    before = set(folder.iterdir())
    to = "-o", "never"
    refused(folder, "text.txt exists", "lm", "train", "text.txt", "-o", "text.txt")
    refused(folder, "no such directory", "lm", "train", "text.txt", "-o", "nowhere/lm.arpa")
    refused(folder, "no such text file", "lm", "train", "nowhere", *to)
    refused(folder, "not UTF-8", "lm", "train", "odd.txt", *to)
    refused(folder, "damaged gzip", "lm", "train", "cut.txt.gz", *to)
    refused(folder, "the word <s>", "lm", "train", "marks.txt", *to)
    refused(folder, "no words", "lm", "train", "empty.txt", *to)
    refused(folder, "4-grams: none", "lm", "train", "short.txt", *to)
    refused(folder, "--order is 7", "lm", "train", "text.txt", *to, "--order", "7")
    refused(folder, "--prune is 0 2 1", "lm", "train", "text.txt", *to, "--prune", "0", "2", "1")
    refused(folder, "--prune is 1", "lm", "train", "text.txt", *to, "--prune", "1")
    refused(folder, "--vocab-limit", "lm", "train", "text.txt", *to, "--vocab-limit", "0")
    refused(folder, "--eval nowhere", "lm", "train", "text.txt", *to, "--eval", "nowhere")
    refused(folder, "odd.arpa: line 7", "lm", "compile", "odd.arpa", *to)
    refused(folder, "damaged gzip", "lm", "compile", "cut.arpa.gz", *to)
    refused(folder, "not an ARPA", "lm", "compile", "text.txt", *to)
    refused(folder, "No such file", "lm", "perplexity", "nowhere", "text.txt")
    refused(folder, "no words", "lm", "perplexity", "full.arpa", "empty.txt")
    refused(folder, "required", "lm")
    assert set(folder.iterdir()) == before


def test_damaged_compiled_models_are_refused(folder: Path, tmp_path: Path) -> None:
    run(folder, "lm", "compile", "pruned.arpa", "-o", str(tmp_path / "lm.bin"))
    good = (tmp_path / "lm.bin").read_bytes()
    middle = bytearray(good)
    middle[len(good) // 2] ^= 1
    for odd, match in ((good[:-8], "its header says"), (bytes(middle), "checksum"), (good[:20], "header")):
        (tmp_path / "lm.bin").write_bytes(odd)
        with pytest.raises(es.InputError, match=match):
            es.NgramLm.load(tmp_path / "lm.bin")


def test_reading_gives_words_and_skips_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes("one\ttwo\r\n\n \n  drei\u00a0vier\nlast".encode())
    assert list(read_sentences(tmp_path / "t")) == [["one", "two"], ["drei", "vier"], ["last"]]
