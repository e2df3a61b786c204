"""wav2vec 2.0: weights as torchaudio publishes them, fine-tuning, teaching. Weights here are random."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from edge_speech import cli
from edge_speech.audio import read_audio
from edge_speech.errors import InputError
from edge_speech.features import features_of, frontend_from_dict
from edge_speech.training import models, wav2vec2
from edge_speech.training.checkpoint import load_model
from edge_speech.training.frontends import WaveformConfig
from edge_speech.training.frontends import features_of as training_features_of
from edge_speech.training.recipe import Augment, Data, Optimizer, Recipe, Run, Source
from edge_speech.training.teacher import load_teacher
from edge_speech.training.torchaudio_import import import_torchaudio
from edge_speech.training.train import train
from tiny import write_wav

TINY: dict[str, Any] = {
    "conv_dim": 16,
    "d_model": 32,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_dim": 64,
    "position_kernel": 16,
    "position_groups": 4,
    "vocab_size": 32,
}
# A published width, so that its heads are known.
WIDE = {**TINY, "d_model": 768, "num_heads": 12, "num_layers": 1, "position_groups": 16}
VARIANTS = [{}, {"layer_norm": True, "conv_bias": True}]
BUNDLE = "WAV2VEC2_ASR_BASE_960H"
WORDS = {"lo": 220, "mid": 700, "hi": 1900, "top": 5200}  # tones, in hertz


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(**settings: Any) -> wav2vec2.Wav2Vec2:
    """With fresh weights, in eval mode, moved so that no norm or bias is the identity."""
    torch.manual_seed(0)
    model = wav2vec2.build(wav2vec2.Config(**{**TINY, "dropout": 0.0, **settings})).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return model


def save(model: wav2vec2.Wav2Vec2, path: Path) -> Path:
    """As torchaudio publishes weights."""
    torch.save(model.model.state_dict(), path)
    return path


def noise(*lengths: int) -> tuple[Tensor, Tensor]:
    """Waveforms (B, samples) of those lengths (B,), with noise after their ends too."""
    return torch.randn(len(lengths), max(lengths)) * 0.1, torch.tensor(lengths)


def torchaudios(model: wav2vec2.Wav2Vec2, waveform: Tensor) -> Tensor:
    """torchaudio's log_probs of one waveform (samples,), made longer by zeros as ours does."""
    if model.config.layer_norm:  # what its bundles of this variant do before the model
        waveform = functional.layer_norm(waveform, waveform.shape)
    padded = functional.pad(waveform, (0, -len(waveform) % 320 + 80))
    return model.model(padded[None])[0][0].log_softmax(-1)


@pytest.mark.parametrize("settings", VARIANTS)
@torch.no_grad()
def test_a_padded_batch_gives_what_torchaudio_gives_for_each(settings: dict[str, Any]) -> None:
    model = make(**settings)
    waveforms, lengths = noise(16000, 4801, 320, 7)
    together = model.log_probs(waveforms, lengths)
    assert together.shape == (4, 50, 32)
    for row, waveform, length in zip(together, waveforms, lengths.tolist(), strict=True):
        rows = -(-length // 320)
        if length >= 320:
            want = torchaudios(model, waveform[:length])
            torch.testing.assert_close(row[:rows], want, rtol=0, atol=1e-5)
        alone = model.log_probs(waveform[None, :length], torch.tensor([length]))[0]
        torch.testing.assert_close(row[:rows], alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.exp().sum(-1), torch.ones(4, 50))


@torch.no_grad()
def test_frames_of_samples_are_the_waveform() -> None:
    model = make()
    waveform = noise(3000)[0][0]
    frames = torch.from_numpy(training_features_of(waveform.numpy(), WaveformConfig()))
    assert frames.shape == (19, 160)
    padded = functional.pad(frames, (0, 0, 0, 6), value=-15.942385)
    want = model.log_probs(functional.pad(waveform, (0, 40))[None], torch.tensor([3040]))[0]
    torch.testing.assert_close(model.parallel(padded[None])[0, :10], want, rtol=0, atol=1e-5)
    assert model.parallel(torch.zeros(1, 0, 160)).shape == (1, 0, 32)


def published() -> dict[str, Any]:
    """torchaudio's bundles of wav2vec 2.0 and HuBERT by name."""
    pipelines = import_torchaudio("torchaudio.pipelines")
    found = {n: getattr(pipelines, n) for n in pipelines.__all__}
    bundles = {n: b for n, b in found.items() if isinstance(b, pipelines.Wav2Vec2Bundle)}
    return {n: b for n, b in bundles.items() if b._model_type == "Wav2Vec2"}


def test_every_published_model_is_known_by_its_shapes() -> None:
    bundles = published()
    assert len(bundles) >= 27
    for bundle in {kind_of(bundle): bundle for bundle in bundles.values()}.values():
        params = bundle._params
        with torch.device("meta"):
            state = import_torchaudio("torchaudio.models").wav2vec2_model(**params).state_dict()
            config = wav2vec2._config_of(Path(bundle._path), state, {"vocab_size": 7})
            ours = wav2vec2.build(config).model.state_dict()
        assert shapes(ours) == shapes(state)
        assert config.num_heads == params["encoder_num_heads"]
        assert config.layer_norm == params["encoder_layer_norm_first"] == bundle._normalize_waveform


def kind_of(bundle: Any) -> str:
    """What a bundle's model is made of: many are the same model in other weights."""
    made_of = {k: v for k, v in bundle._params.items() if not k.endswith(("dropout", "drop", "out"))}
    return f"{made_of} {bundle._normalize_waveform}"


def shapes(state: dict[str, Tensor], prefix: str = "") -> dict[str, torch.Size]:
    """Of all tensors but the output layer's."""
    return {prefix + name: t.shape for name, t in state.items() if "aux." not in name}


@torch.no_grad()
def test_published_recogniser_is_read_with_its_letters(tmp_path: Path) -> None:
    model = make(**WIDE)
    loaded = wav2vec2.load(save(model, tmp_path / "asr.pth"), BUNDLE)
    assert loaded.tokens[:4] == ["<blk>", "▁", "E", "T"]
    assert len(loaded.tokens) == 29  # of the file's 32, three are used by nothing
    waveforms, lengths = noise(9600)
    kept = [0, *range(4, 32)]
    want = model.model(functional.pad(waveforms, (0, 80)))[0][..., kept].log_softmax(-1)
    assert isinstance(loaded.model, wav2vec2.Wav2Vec2)
    torch.testing.assert_close(loaded.model.log_probs(waveforms, lengths), want, rtol=0, atol=1e-5)
    teacher = load_teacher(tmp_path / "asr.pth", BUNDLE)
    got, rows = teacher.log_probs(waveforms, lengths)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    assert (teacher.sample_rate, teacher.samples_per_row, rows.tolist()) == (16000, 320, [30])


@torch.no_grad()
def test_weights_from_before_torch_2_are_read(tmp_path: Path) -> None:
    model = make()
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = model.model.state_dict()
    for new, old in names.items():
        place = "encoder.transformer.pos_conv_embed.conv."
        state[place + old] = state.pop(place + new)
    torch.save({n: t.half() for n, t in state.items()}, tmp_path / "old.pth")
    tuned = wav2vec2.fine_tune(tmp_path / "old.pth", {"num_heads": 2, "vocab_size": 9}).eval()
    assert {p.dtype for p in tuned.parameters()} == {torch.float32}
    got, want = tuned.model.encoder(torch.ones(1, 9, 16)), model.model.encoder(torch.ones(1, 9, 16))
    torch.testing.assert_close(got, want, rtol=0, atol=0.05)  # the file is in half precision


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Ten utterances of three tones each, and a file of tiny weights."""
    folder, rng = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    time_s = np.arange(3200) / 16000
    tones = {word: np.sin(2 * np.pi * hz * time_s) for word, hz in WORDS.items()}
    with (folder / "ten.jsonl").open("w", encoding="utf-8") as manifest:
        for i in range(10):
            words = rng.choice(list(WORDS), size=3)
            gap = np.zeros(800)
            wave = np.concatenate([np.concatenate((tones[word], gap)) for word in words])
            wave = 8000 * wave + rng.normal(0, 50, len(wave))
            write_wav(folder / f"{i}.wav", wave.astype(np.int16))
            manifest.write(json.dumps({"audio_filepath": f"{i}.wav", "text": " ".join(words)}) + "\n")
    save(make(), folder / "tiny.pth")
    source = Source("ten.jsonl")
    return Recipe(
        data=Data((source,), root=str(folder), dev=(source,), vocabulary=tuple(WORDS)),
        architecture="wav2vec2",
        model={"weights": "tiny.pth", "num_heads": 2, "dropout": 0.0},
        frontend={"type": "waveform"},
        augment=Augment(speeds=(1.0,), gain_db=0.0, noise_probability=0.0),
        optimizer=Optimizer(steps=320, batch_size=10, warmup_steps=10, learning_rate=3e-3, ema_decay=0.9),
        run=Run(workers=0, evaluate_every=320),
    )


@pytest.fixture(scope="module")
def tuned(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.pt of the whole training run."""
    return train(recipe, tmp_path_factory.mktemp("run"), quiet=True)


def test_fine_tuning_learns_ten_utterances_by_heart(recipe: Recipe, tuned: Path) -> None:
    loaded = load_model(tuned)
    assert loaded.metrics["dev_wer"] == 0.0
    assert loaded.tokens == ["<blk>", *(f"▁{word}" for word in WORDS)]
    assert loaded.frontend == {"type": "waveform"}
    before = torch.load(Path(recipe.data.root) / "tiny.pth", weights_only=True)
    after = {name.removeprefix("model."): t for name, t in loaded.model.state_dict().items()}
    frozen = [name for name in before if name.startswith("feature_extractor.")]
    assert len(frozen) == 9  # seven convolutions and one norm
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    moved = [name for name in before if not name.startswith(("feature_extractor.", "aux."))]
    assert all(not torch.equal(before[name], after[name]) for name in moved)


def test_fine_tuned_model_teaches(recipe: Recipe, tuned: Path) -> None:
    teacher = load_teacher(tuned)
    lines = (Path(recipe.data.root) / "ten.jsonl").read_text(encoding="utf-8").splitlines()[:3]
    said = [json.loads(line)["text"].split() for line in lines]
    waves = [torch.from_numpy(read_audio(Path(recipe.data.root) / f"{i}.wav")[0]) for i in range(3)]
    lengths = torch.tensor([len(wave) for wave in waves])
    log_probs, rows = teacher.log_probs(pad_sequence(waves, batch_first=True), lengths)
    assert rows.tolist() == [-(-n // teacher.samples_per_row) for n in lengths.tolist()]
    for row, count, words in zip(log_probs, rows, said, strict=True):
        best = row[:count].argmax(dim=1).unique_consecutive()
        assert [teacher.tokens[n].strip("▁") for n in best if n] == words


def test_a_streaming_model_teaches_too(digits: Path) -> None:
    teacher, loaded = load_teacher(digits / "model.pt"), load_model(digits / "model.pt")
    waveforms, lengths = noise(8000, 5000)
    log_probs, rows = teacher.log_probs(waveforms, lengths)
    assert teacher.samples_per_row == 4 * teacher.sample_rate // 100
    for row, count, wave, length in zip(log_probs, rows, waveforms, lengths.tolist(), strict=True):
        frames = features_of(wave[:length].numpy(), frontend_from_dict(loaded.frontend))
        with torch.no_grad():
            want = loaded.model.parallel(torch.from_numpy(frames)[None])[0]
        assert count == len(want)
        torch.testing.assert_close(row[:count], want, rtol=1e-5, atol=1e-5)


def test_optimize_refuses_an_offline_model(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["optimize", str(tuned), "--target", "linux-x86_64", "-o", str(tmp_path / "bundle")]
    assert cli.main(command) == 2
    said = capsys.readouterr().err.strip()
    assert "wav2vec2, which hears a whole recording before it answers; let it teach" in said
    assert "\n" not in said
    assert not (tmp_path / "bundle").exists()


def test_it_does_not_count_as_streaming() -> None:
    assert "wav2vec2" not in models.available()
    with pytest.raises(InputError, match=r"there are .*wav2vec2"):
        models.build("wav2vec3", {})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": {}}, r"set model\.weights"),
        ({"model": {"weights": "none.pth"}}, "no such file"),
        ({"model": {"weights": "tiny.pth"}}, r"32 wide.*set model\.num_heads"),
        ({"model": {"weights": "tiny.pth", "num_heads": 3}}, "not a multiple of num_heads 3"),
        ({"model": {"weights": "tiny.pth", "d_model": 32}}, "finds 'd_model' in its weights"),
        ({"frontend": {"type": "fbank"}}, "allowed is type = 'waveform'"),
        ({"architecture": "conformer", "model": {}}, "frontend type is 'waveform'"),
        (
            {"architecture": "conformer", "frontend": {"type": "fbank"}, "model": {"weights": "tiny.pth"}},
            "not 'edge-speech-model'",
        ),
    ],
)
def test_bad_recipe_is_one_line(
    recipe: Recipe, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        train(replace(recipe, **changed), tmp_path, quiet=True)
    assert "\n" not in str(caught.value)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("hostile-was-run"),))  # type: ignore[return-value]


def test_wrong_files_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path, good = tmp_path / "weights.pth", make().model.state_dict()
    convolution = "encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original1"
    wrong: list[tuple[Any, str]] = [
        ([1, 2], "no weights by name"),
        ({"format": "edge-speech-model"}, "no weights by name"),
        ({}, "lacks"),
        ({n: t for n, t in good.items() if "k_proj" not in n}, "does not fit .*k_proj"),
        ({**good, "more": torch.zeros(1)}, "does not fit .*more"),
        ({**good, "a.rel_attn_embed.weight": torch.zeros(1)}, "WavLM"),
        ({**good, convolution: torch.zeros(3)}, "lacks .*original1"),
        ({**good, convolution: torch.zeros(0, 0, 0)}, "d_model is 0; allowed are 1 to 4096"),
        ({**good, "feature_extractor.conv_layers.0.conv.weight": torch.zeros(16, 1, 11)}, "does not fit"),
    ]
    for state, message in wrong:
        torch.save(state, path)
        with pytest.raises(InputError, match=message) as caught:
            wav2vec2.fine_tune(path, {"num_heads": 2, "vocab_size": 5})
        assert "\n" not in str(caught.value)
    for raw in (b"", b"text", pickle.dumps(Hostile())):
        path.write_bytes(raw)
        with pytest.raises(InputError, match="not a file of torchaudio's weights"):
            wav2vec2.fine_tune(path, {"vocab_size": 5})
    assert not (tmp_path / "hostile-was-run").exists()


def test_wrong_bundles_are_one_line(tmp_path: Path) -> None:
    path = save(
        make(
            **WIDE,
        ),
        tmp_path / "asr.pth",
    )
    with pytest.raises(InputError, match=f"unknown bundle 'BASE'; there are .*{BUNDLE}"):
        wav2vec2.load(path, "BASE")
    with pytest.raises(InputError, match="has 32 outputs, the bundle 43"):
        wav2vec2.load(path, "VOXPOPULI_ASR_BASE_10K_FR")
    torch.save({n: t for n, t in torch.load(path).items() if not n.startswith("aux")}, path)
    with pytest.raises(InputError, match="no output layer; fine-tune it"):
        wav2vec2.load(path, BUNDLE)


def test_hostile_config_is_refused() -> None:
    config = wav2vec2.Config
    numbers = {field.name for field in fields(config) if field.type == "int"}
    assert set(config.LIMITS) == numbers, "a whole number without a limit"
    for name in numbers:
        for value in (0, config.LIMITS[name] + 1, 10**18, 4.0, float("nan"), True, "64", None, [64]):
            with pytest.raises(InputError, match=f"{name} is .*; allowed are 1 to {config.LIMITS[name]}"):
                models.build("wav2vec2", {name: value})
    for name, value, message in (
        ("dropout", 2.0, "allowed are 0 to 1"),
        ("layer_norm", 1, "allowed are true, false"),
        ("num_features", 80, "allowed is 160"),
        ("position_groups", 7, "not a multiple of position_groups 7"),
    ):
        with pytest.raises(InputError, match=message):
            models.build("wav2vec2", {name: value})


@pytest.mark.parametrize("size", wav2vec2.SIZES)
def test_sizes_are_published_ones(size: str) -> None:
    bundles = {"base": "WAV2VEC2_BASE", "large": "WAV2VEC2_LARGE", "large_lv60k": "WAV2VEC2_LARGE_LV60K"}
    with torch.device("meta"):
        ours = models.build("wav2vec2", {"size": size}).state_dict()
        theirs = import_torchaudio("torchaudio.models").wav2vec2_model(**published()[bundles[size]]._params)
    assert shapes(ours) == shapes(theirs.state_dict(), "model.")
