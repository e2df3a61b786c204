"""What is broken or odd in data sets: each fault is put into a clean set, and only it is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_speech.cli import main
from edge_speech.encoder import FloatArray
from edge_speech.validation.finding import Finding
from edge_speech.validation.measures import measure
from edge_speech.validation.report import validate

RATE = 16000
Rows = list[dict[str, object]]
TEXTS = ["the quick fox", "a lazy dog ran", "jumps over it", "we pack my box", "five dozen jugs"] * 2


def words_and_pauses(seconds: float, seed: int, snr_db: float = 45.0, level: float = 0.1) -> FloatArray:
    """Noise bursts of a quarter of a second, as loud again as pauses, over noise `snr_db` below them."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * RATE)) / RATE
    bursts = level * rng.standard_normal(len(time_s)) * (np.floor(4 * time_s) % 2 == 0)
    noise = level * 10 ** (-snr_db / 20) * rng.standard_normal(len(time_s))
    return np.asarray(bursts + noise, np.float32)


def write_set(folder: Path, name: str, seed: int = 0) -> Rows:
    """Ten utterances of about two seconds by two speakers; → the rows of its manifest."""
    rows: Rows = []
    for i, text in enumerate(TEXTS):
        path, seconds = f"{name}-{i}.wav", len(text) / 7
        soundfile.write(folder / path, words_and_pauses(seconds, 100 * seed + i), RATE)
        row = {"audio_filepath": path, "duration": seconds, "sample_rate": RATE, "text": text}
        rows.append({**row, "speaker": f"{name}{i % 2}"})
    return rows


def write_manifest(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def findings(folder: Path, rows: Rows) -> list[Finding]:
    found = validate([write_manifest(folder / "m.jsonl", rows)], quiet=True).findings
    return [f for f in found if f.check != "noise"]


def test_a_clean_set_has_no_fault(tmp_path: Path) -> None:
    validation = validate([write_manifest(tmp_path / "m.jsonl", write_set(tmp_path, "a"))], quiet=True)
    (advice,) = validation.findings
    assert (advice.check, advice.count) == ("noise", 0)
    assert validation.document()["sets"][0]["snr_db"][2] == pytest.approx(45, abs=1.5)
    assert "data.noise" in advice.message
    (described,) = validation.document()["sets"]
    assert (described["utterances"], described["speakers"], described["different_texts"]) == (10, 2, 5)
    assert described["sample_rates"] == {"16000": 10}
    assert described["hours"] == pytest.approx(sum(map(len, TEXTS)) / 7 / 3600, abs=1e-4)
    assert described["characters_per_s"][2] == pytest.approx(7, abs=0.1)
    assert described["characters"]["q"] == 2


def rewrite(change: Callable[[FloatArray], FloatArray], rate: int = RATE) -> Callable[[Path, Rows], None]:
    """A fault in the samples of the first utterance."""

    def fault(folder: Path, rows: Rows) -> None:
        path = folder / str(rows[0]["audio_filepath"])
        soundfile.write(path, change(soundfile.read(path, dtype="float32")[0]), rate)

    return fault


def retell(**fields: object) -> Callable[[Path, Rows], None]:
    """A fault in the first line."""
    return lambda folder, rows: rows[0].update(fields)


FAULTS = {
    "missing": ("broken", retell(audio_filepath="gone.wav"), "no such file"),
    "unreadable": ("broken", lambda folder, rows: (folder / "a-0.wav").write_bytes(b"RIFF"), "not readable"),
    "empty text": ("broken", retell(text=" "), "empty"),
    "sample rate": ("advice", retell(sample_rate=8000), "16000 Hz, the manifest says 8000"),
    "mixed rates": ("advice", rewrite(lambda x: x[::2], RATE // 2), "8000 Hz"),
    "duration": ("advice", retell(duration=9.0), "the manifest says 9.00"),
    "duration outliers": ("advice", rewrite(lambda x: np.tile(x, 9)), "16.71 s, usual 2.00"),
    "speaking rate outliers": ("advice", retell(text="the quick fox" * 4), "28.00 characters/s, usual 7.00"),
    "silent": ("advice", rewrite(lambda x: x * 1e-3), "-8"),
    "clipped": ("advice", rewrite(lambda x: np.clip(20 * x, -1, 1)), "samples at full scale"),
    "dc offset": ("advice", rewrite(lambda x: x + 0.05), "mean +0.05"),
    "odd characters": ("advice", retell(text="the quick fox 5!"), "fox 5!"),
    "mixed case": ("advice", retell(text="The quick fox"), "The quick fox"),
    "odd spaces": ("advice", retell(text="the  quick fox"), "the  quick"),
    "not NFC": ("advice", retell(text="the quick fu\u0308chs"), "fu\u0308chs"),
    "duplicate audio": ("advice", lambda folder, rows: copy(folder, "a-1.wav", "a-6.wav"), "a-1.wav"),
}
COMPANIONS = {"mixed rates": {"sample rate"}, "duration outliers": {"duration", "speaking rate outliers"}}


def copy(folder: Path, source: str, target: str) -> None:
    (folder / target).write_bytes((folder / source).read_bytes())


@pytest.mark.parametrize("check", FAULTS)
def test_each_fault_is_found_and_no_other(tmp_path: Path, check: str) -> None:
    severity, fault, detail = FAULTS[check]
    rows = write_set(tmp_path, "a")
    fault(tmp_path, rows)
    found = {f.check: f for f in findings(tmp_path, rows)}
    assert set(found) == {check} | COMPANIONS.get(check, set())
    (case,) = found[check].cases
    assert (found[check].severity, found[check].count) == (severity, 1)
    assert detail in case.detail
    assert case.utterance.endswith(("-0.wav", "gone.wav", "a-6.wav"))


def test_rare_letters_and_their_limit(tmp_path: Path) -> None:
    rows = write_set(tmp_path, "a")
    rows += [{**rows[0], "text": "ab" * 3000}] * 4 + [{**rows[0], "text": "é"}]
    (rare,) = (f for f in findings(tmp_path, rows) if f.check == "rare letters")
    assert "é × 1" in rare.message
    assert [case.detail for case in rare.cases if "é" in case.detail] == ["é"]
    rows += [{**rows[0], "text": "".join(map(chr, range(0x4E00, 0x4E80)))}]  # an alphabet of hanzi
    assert "rare letters" not in {f.check for f in findings(tmp_path, rows)}


def test_noise_needs_no_text(tmp_path: Path) -> None:
    rows = [{"audio_filepath": row["audio_filepath"]} for row in write_set(tmp_path, "a")]
    (found,) = validate([write_manifest(tmp_path / "m.jsonl", rows)], quiet=True).findings
    assert (found.severity, found.check, found.count) == ("advice", "no text", 10)


def test_what_two_sets_have_in_common(tmp_path: Path) -> None:
    train, dev = write_set(tmp_path, "a", 1), write_set(tmp_path, "b", 2)
    for i, row in enumerate(dev):
        row["text"] = f"other words {'abcdefghij'[i]}"
    names = [write_manifest(tmp_path / f"{n}.jsonl", rows) for n, rows in (("train", train), ("dev", dev))]
    assert {f.check for f in validate(names, quiet=True).findings} == {"noise"}
    copy(tmp_path, "a-3.wav", "b-5.wav")
    dev[4]["text"], dev[5]["duration"] = train[0]["text"], train[3]["duration"]
    dev[8]["speaker"] = "a1"
    write_manifest(tmp_path / "dev.jsonl", dev)
    found = {f.check: f for f in validate(names, quiet=True).findings if f.manifest == names[1]}
    assert set(found) == {"shared audio", "shared texts", "shared speakers", "noise"}
    assert "a-3.wav" in found["shared audio"].cases[0].detail
    assert "10% of the texts" in found["shared texts"].message
    assert [case.utterance for case in found["shared speakers"].cases] == ["a1"]


@pytest.mark.parametrize("snr_db", [5.0, 20.0, 35.0, 60.0])
def test_the_ratio_of_known_noise(snr_db: float) -> None:
    estimate = measure(words_and_pauses(4, 1, snr_db), RATE).snr_db
    assert estimate == pytest.approx(snr_db, abs=1.5)


def test_silence_has_no_ratio_and_padding_does_not_count() -> None:
    assert measure(np.zeros(RATE, np.float32), RATE).snr_db is None
    speech = words_and_pauses(4, 1, 30.0)
    padded = measure(np.concatenate([np.zeros(4 * RATE, np.float32), speech]), RATE).snr_db
    assert padded == pytest.approx(measure(speech, RATE).snr_db, abs=0.1)


def test_clipped_samples_stand_in_runs() -> None:
    samples = np.full(1000, 0.1, np.float32)
    samples[[10, 12]] = 1.0  # peaks
    samples[20:25] = -1.0  # five in a row
    samples[30:32] = 1.0  # two
    assert measure(samples, RATE).clipped_samples == 5


def test_segments_are_measured_as_parts(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", words_and_pauses(4, 1), RATE)
    (tmp_path / "wav.scp").write_text("long long.wav\n")
    (tmp_path / "segments").write_text("u1 long 0 1.5\nu2 long 1.5 4\nu3 long 3 9\n")
    (tmp_path / "text").write_text("u1 one\nu2 two\nu3 three\n")
    validation = validate([str(tmp_path)], quiet=True)
    assert [m.duration_s for _, m in validation.sets[0].readable] == [1.5, 2.5]
    assert (validation.findings[0].check, validation.broken) == ("unreadable", 1)
    assert validation.findings[0].cases[0].utterance.endswith("long.wav at 3.00 s")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_set(tmp_path, "a")
    manifest, page = write_manifest(tmp_path / "m.jsonl", rows), str(tmp_path / "page.html")
    assert main(["data", "validate", manifest, "--html", page]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[:3] == ["manifest", "utterances", "hours"]
    rows[0].update(audio_filepath="gone.wav", text="")
    rows[1].update(text="<b>")
    write_manifest(tmp_path / "m.jsonl", rows)
    assert main(["data", "validate", manifest, "--json", "--html", page]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["broken"] == 1
    assert document["findings"][0]["cases"] == [
        {"utterance": str(tmp_path / "gone.wav"), "detail": "no such file"}
    ]
    assert "broken utterances: 1 of 10" in captured.err
    check_page(Path(page).read_text(encoding="utf-8"))


def check_page(html: str) -> None:
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(html)
    assert tags.count("svg") == 4
    assert tags.count("rect") >= 4
    assert "http" not in html
    assert not {"script", "link", "img"} & set(tags)
    assert "gone.wav" in html
    assert "&lt;b&gt;" in html


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_manifest(tmp_path / "m.jsonl", write_set(tmp_path, "a"))
    assert main(["data", "validate", manifest, "--html", str(tmp_path)]) == 2
    assert main(["data", "validate", str(tmp_path / "gone.jsonl")]) == 2
    assert "no such manifest" in capsys.readouterr().err
