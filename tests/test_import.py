"""Models of others become bundles that say what their own runtime says; what cannot be right is found."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

import foreign_models as foreign
from edge_speech import cli
from edge_speech.bundle import read_bundle, verify_bundle
from edge_speech.encoder import FloatArray
from edge_speech.errors import CheckFailed, InputError
from edge_speech.features import LogMelConfig, OnlineFrontend
from edge_speech.recognizer import Recognizer
from edge_speech.verification import verify
from edge_speech_tools import sherpa_text
from edge_speech_tools.importing.command import ImportConfig, import_model
from edge_speech_tools.importing.tokens import read_tokens
from edge_speech_tools.onnx_model import load_any
from edge_speech_tools.pipeline import optimize
from edge_speech_tools.plan import OptimizeConfig
from edge_speech_tools.recordings import at_rate, from_manifest
from edge_speech_tools.reference import TorchEncoder, single_thread
from edge_speech_tools.search.options import SearchOptions
from streaming_double import StreamingDouble, streaming_double

TWO_SPEAKERS = 3


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(scope="module")
def speech(digits: Path) -> list[FloatArray]:
    """Recordings at 16 kHz with a second of silence after them."""
    recordings = from_manifest(digits / "clips.jsonl").recordings[:TWO_SPEAKERS]
    return [np.pad(at_rate(r, 16000), (0, 16000)) for r in recordings]


@pytest.fixture(scope="module")
def audio(digits: Path) -> Path:
    path = from_manifest(digits / "clips.jsonl").recordings[0].path
    assert path is not None
    return path


def stream_of(bundle: Path, waveform: FloatArray) -> Any:
    stream = Recognizer.load(bundle).create_stream(keep_log_probs=True)
    stream.accept_waveform(waveform, 16000)
    stream.input_finished()
    return stream


FOREIGN: dict[str, tuple[Callable[[Path], Path], str, str, dict[str, int]]] = {
    "zipformer2": (foreign.write_zipformer2, "<blk>", "from_zipformer2_ctc", {}),
    "wenet": (foreign.write_wenet, "<blank>", "from_wenet_ctc", {"chunk_size": 4, "num_left_chunks": 2}),
}


@pytest.mark.parametrize("family", sorted(FOREIGN))
def test_an_imported_model_says_what_sherpa_onnx_says(
    family: str, speech: list[FloatArray], audio: Path, tmp_path: Path
) -> None:
    write, blank, loader, options = FOREIGN[family]
    model, tokens = write(tmp_path / "model.onnx"), foreign.write_tokens(tmp_path / "tokens.txt", blank)
    document = import_model(ImportConfig(model, tokens, tmp_path / "bundle", audio=audio, quiet=True))
    assert (document["family"], document["doubts"]) == (family, [])
    options = {"sample_rate": 16000, "feature_dim": 80, **options}
    theirs = sherpa_text.texts(model, tokens, speech, loader, options)
    assert theirs == [stream_of(tmp_path / "bundle", waveform).result.text for waveform in speech]
    assert min(map(len, theirs)) > 20
    assert verify(tmp_path / "bundle").artifacts[0].agreement == 1


def test_nemo_models_stream_as_their_graph_does_and_the_blank_comes_first(
    speech: list[FloatArray], tmp_path: Path
) -> None:
    model = foreign.write_nemo(tmp_path / "model.onnx")
    tokens = foreign.write_tokens(tmp_path / "tokens.txt", last=True)
    import_model(ImportConfig(model, tokens, tmp_path / "bundle", quiet=True))
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.tokens == ("<blk>", *foreign.SYMBOLS)
    got = stream_of(tmp_path / "bundle", speech[0]).log_probs()
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    m, online = foreign.Nemo(), OnlineFrontend(LogMelConfig.nemo())
    online.accept_waveform(speech[0], 16000)
    online.input_finished()
    features = online.read()
    caches: list[Any] = [np.zeros((1, *m.CHANNEL), "f4"), np.zeros((1, *m.TIME), "f4"), np.zeros(1, "i8")]
    names, rows = [value.name for value in session.get_inputs()], []
    for start in range(0, len(features) - m.WINDOW, m.SHIFT):
        window = features[None, start : start + m.WINDOW].transpose(0, 2, 1)
        values = [window, np.array([m.WINDOW]), *caches]
        log_probs, _, *caches = session.run(None, dict(zip(names, values, strict=True)))
        rows.append(log_probs[0])
    want = np.concatenate(rows)[:, [foreign.VOCAB - 1, *range(foreign.VOCAB - 1)]]
    np.testing.assert_allclose(got[: len(want)], want, atol=1e-4)
    assert len(want) > 50


def test_a_bundle_is_optimised_like_a_checkpoint(audio: Path, digits: Path, tmp_path: Path) -> None:
    model, tokens = foreign.write_zipformer2(tmp_path / "m.onnx"), foreign.write_tokens(tmp_path / "t.txt")
    import_model(ImportConfig(model, tokens, tmp_path / "bundle", quiet=True))
    config = OptimizeConfig(
        tmp_path / "bundle",
        "linux-x86_64",
        tmp_path / "smaller",
        precision="int8-dynamic",
        eval_manifest=digits / "clips.jsonl",
        accuracy_budget=1000.0,
        quiet=True,
    )
    report = optimize(config).report
    assert {a["precision"]: a["parity"]["text_identical"] for a in report["artifacts"]}["fp32"] == 1
    assert report["model"]["architecture"] == "onnx"
    assert "prediction" not in report
    assert report["model"]["parameters"] > 1_000
    assert [a.precision for a in verify_bundle(tmp_path / "smaller").manifest.artifacts] == ["int8-dynamic"]
    config = dataclasses.replace(config, force=True)
    with pytest.raises(InputError, match=r"layers.*give its model\.pt"):
        optimize(
            dataclasses.replace(config, precision="int8-static", calibration_manifest=config.eval_manifest)
        )
    manifest = config.eval_manifest
    for changes in ({"pruning_ratio": 0.4, "calibration_manifest": manifest}, {"search": SearchOptions(3)}):
        with pytest.raises(InputError, match=r"layers.*give its model\.pt"):
            optimize(dataclasses.replace(config, **changes))
    with pytest.raises(InputError, match="nothing is left to make for target android-arm64"):
        optimize(dataclasses.replace(config, target="android-arm64", precision="auto"))
    with pytest.raises(InputError, match="no onnxruntime/fp32"):
        load_any(tmp_path / "smaller")


# -- PyTorch's own formats -----------------------------------------------------------------------------------

SPEC = """
[encoder]
chunk_frames = 16
right_context_frames = 4
subsampling_factor = 4
padding_value = -15.0
[[encoder.state]]
name = "conv_cache"
shape = [1, 32, 2]
[[encoder.state]]
name = "keys"
shape = [1, 8, 32]
[[encoder.state]]
name = "values"
shape = [1, 8, 32]
[[encoder.state]]
name = "frames_seen"
shape = [1]
dtype = "int64"
[frontend]
type = "fbank"
"""


class BlankOnSilence(StreamingDouble):
    """The double with a blank that wins where nothing is heard."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("blank", torch.eye(self.vocab)[0], persistent=False)

    def forward(self, features: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        log_probs, *following = super().forward((features + 15) * 0.3, *state)
        quiet = (features.mean(dim=(1, 2), keepdim=True) < -12).to(features.dtype)
        return torch.log_softmax(log_probs + self.blank * quiet * 100, dim=-1), *following


@pytest.fixture(scope="module")
def double() -> StreamingDouble:
    model = BlankOnSilence().eval()
    model.load_state_dict(streaming_double().state_dict())
    return model


def example(model: StreamingDouble) -> tuple[torch.Tensor, ...]:
    return (torch.randn(1, 20, 80), *model.initial_state(1))


def save_torchscript(model: StreamingDouble, path: Path) -> Path:
    torch.jit.save(torch.jit.trace(model, example(model)), str(path))  # type: ignore[no-untyped-call]
    return path


def save_exported(model: StreamingDouble, path: Path) -> Path:
    torch.export.save(torch.export.export(model, example(model)), path)
    return path


@pytest.fixture(scope="module")
def pt2(double: StreamingDouble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_exported(double, tmp_path_factory.mktemp("exported") / "model.pt2")


@pytest.fixture
def described(tmp_path: Path) -> tuple[Path, Path]:
    """tokens.txt and spec.toml of the double."""
    (tmp_path / "tokens.txt").write_text(
        "".join(f"{s} {i}\n" for i, s in enumerate(["<blk>", *"abcdefghijk"]))
    )
    (tmp_path / "spec.toml").write_text(SPEC)
    return tmp_path / "tokens.txt", tmp_path / "spec.toml"


@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_pytorch_models_stream_as_the_module_does(
    kind: str,
    double: StreamingDouble,
    pt2: Path,
    described: tuple[Path, Path],
    speech: list[FloatArray],
) -> None:
    tokens, spec = described
    tmp_path = tokens.parent
    path = pt2 if kind == "exported" else save_torchscript(double, tmp_path / "model.pt")
    import_model(ImportConfig(path, tokens, tmp_path / "bundle", spec, quiet=True))
    assert read_bundle(tmp_path / "bundle").manifest.encoder == double.spec
    recognizer = Recognizer.load(tmp_path / "bundle")
    wanted = Recognizer(TorchEncoder(double, double.spec), recognizer.frontend, recognizer.tokens)
    stream = wanted.create_stream(keep_log_probs=True)
    stream.accept_waveform(speech[0], 16000)
    stream.input_finished()
    got = stream_of(tmp_path / "bundle", speech[0])
    np.testing.assert_allclose(got.log_probs(), stream.log_probs(), atol=1e-3)
    assert got.result.text == stream.result.text != ""


class Payload:
    """What a pickle of a stranger may do when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def changed_archive(source: Path, path: Path, change: Callable[[str, bytes], bytes], extra: str = "") -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        if extra:
            new.writestr(f"{old.namelist()[0].split('/')[0]}/{extra}", b"x")
    return path


def hostile(kind: str, mark: Path) -> tuple[Callable[[str, bytes], bytes], str]:
    buffer = io.BytesIO()
    torch.save((Payload(mark),), buffer)
    pickled = pickle.dumps((Payload(mark),))
    in_json = {
        "pickled weights": (b'"use_pickle": false', b'"use_pickle": true', "asks for a pickle"),
        "foreign operator": (
            b"torch.ops.aten.linear.default",
            b"torch.ops.other.run.default",
            "calls 'torch.ops.o",
        ),
    }
    if kind == "sample inputs":
        return lambda n, c: buffer.getvalue() if "sample_inputs" in n else c, "more than tensors"
    if kind == "bare pickle":
        return lambda n, c: pickled if "sample_inputs" in n else c, "more than tensors"
    if kind == "expression":
        expression = b'"range_constraints": {"s0": {"expr_str": "__import__(1)"}}'
        return lambda n, c: c.replace(b'"range_constraints": {}', expression), "dynamic shapes"
    old, new, said = in_json[kind]
    return lambda n, c: c.replace(old, new), said


@pytest.mark.parametrize(
    "kind", ["sample inputs", "bare pickle", "expression", "pickled weights", "foreign operator"]
)
def test_a_strangers_export_runs_no_code(
    kind: str, pt2: Path, described: tuple[Path, Path], tmp_path: Path
) -> None:
    tokens, spec = described
    change, said = hostile(kind, tmp_path / "mark")
    path = changed_archive(pt2, tmp_path / "hostile.pt2", change)
    assert path.read_bytes() != pt2.read_bytes()
    with pytest.raises(InputError, match=said):
        import_model(ImportConfig(path, tokens, tmp_path / "bundle", spec, quiet=True))
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "bundle").exists()


def test_other_files_in_an_export_are_refused(
    pt2: Path, described: tuple[Path, Path], tmp_path: Path
) -> None:
    path = changed_archive(pt2, tmp_path / "m.pt2", lambda _, c: c, "data/aotinductor/model/run.so")
    with pytest.raises(InputError, match=r"run\.so"):
        import_model(ImportConfig(path, described[0], tmp_path / "bundle", described[1], quiet=True))


@pytest.mark.parametrize("suffix", [".onnx", ".pt", ".pt2"])
def test_a_file_that_is_no_model_is_one_line(
    suffix: str, described: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / f"junk{suffix}"
    path.write_bytes(b"junk" * 100)
    with pytest.raises(InputError, match="junk") as error:
        import_model(ImportConfig(path, described[0], tmp_path / "bundle", described[1], quiet=True))
    assert "\n" not in str(error.value)


# -- what cannot be right -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zipformer2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.write_zipformer2(tmp_path_factory.mktemp("zipformer2") / "model.onnx")


def edited(source: Path, path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(source)
    change(model)
    onnx.save(model, path)
    return path


def relabel(**values: str) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        for entry in model.metadata_props:
            entry.value = values.get(entry.key, entry.value)

    return change


def unnormalised(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "LogSoftmax")
    node.op_type = "Identity"
    del node.attribute[:]


def forgets(model: onnx.ModelProto) -> None:
    """Every state comes back as it went in."""
    replaced = {o.name: i.name for i, o in zip(model.graph.input[1:], model.graph.output[1:], strict=True)}
    for node in model.graph.node:
        node.output[:] = [f"unused_{n}" if n in replaced else n for n in node.output]
    copies = [helper.make_node("Mul", [i, f"one_{i}"], [o]) for o, i in replaced.items()]
    for value in model.graph.input[1:]:
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        model.graph.initializer.append(numpy_helper.from_array(np.ones(1, dtype), f"one_{value.name}"))
    model.graph.node.extend(copies)


def regrows(model: onnx.ModelProto) -> None:
    """The first state comes back longer than it went in."""
    name = model.graph.output[1].name
    for node in model.graph.node:
        node.output[:] = [f"short_{n}" if n == name else n for n in node.output]
    model.graph.node.append(helper.make_node("Concat", [f"short_{name}"] * 2, [name], axis=0))
    del model.graph.output[1].type.tensor_type.shape.dim[:]
    model.graph.output[1].CopyFrom(helper.make_tensor_value_info(name, 1, [None, None, None]))


WRONG: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "stride": (relabel(decode_chunk_len="30"), "8 rows and moves on by 30 frames"),
    "window below the stride": (relabel(decode_chunk_len="48"), "reads 45 frames and moves on by 48"),
    "another window": (relabel(T="44"), "fails in onnxruntime"),
    "another model's metadata": (relabel(num_encoder_layers="2,2"), "another model's metadata"),
    "metadata that is no number": (relabel(T="many"), "'T' is 'many'"),
    "logits": (unnormalised, "no log-probabilities"),
    "states never change": (forgets, "never changes over speech"),
    "a state that grows": (regrows, "comes out as float32"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_cannot_be_right_is_found_before_the_first_decode(
    case: str, zipformer2: Path, audio: Path, tmp_path: Path
) -> None:
    change, said = WRONG[case]
    model = edited(zipformer2, tmp_path / "wrong.onnx", change)
    tokens = foreign.write_tokens(tmp_path / "tokens.txt")
    with pytest.raises((CheckFailed, InputError), match=said) as error:
        import_model(ImportConfig(model, tokens, tmp_path / "bundle", audio=audio, quiet=True))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("tokens", "spec", "said"),
    [
        ("<blk> 0\na 1\n", "", "9 log-probabilities, the tokens file has 2 symbols"),
        ("a 0\nb 1\n", "", "no blank"),
        ("<blk> 0\na 2\n", "", "1 is missing"),
        ("<blk> 0\na one\n", "", "expected `symbol id`"),
        ("<blk> 0\na 0\n", "", "id 0 is there twice"),
        ("", '[frontend]\ntype = "fbank"\nnum_mel_bins = 40\n', "reads 80 features, its front end gives 40"),
        ("", "[encoder]\nsubsampling_factor = 8\n", "subsampling factor of 8 they stand for 64 frames"),
        ("", "[decoder]\nblank = '▁two'\n", "on silence the blank is the best symbol of 0%"),
        ("", "[encoder]\nchunks = 8\n", "unknown key 'chunks'"),
        ("", "[encoder]\noutput = 'odds'\n", "'output' must be one of log_probs, logits"),
    ],
)
def test_tokens_front_end_blank_and_stride_are_checked(
    tokens: str, spec: str, said: str, zipformer2: Path, tmp_path: Path
) -> None:
    path = foreign.write_tokens(tmp_path / "tokens.txt")
    if tokens:
        path.write_text(tokens)
    (tmp_path / "spec.toml").write_text(spec)
    config = ImportConfig(zipformer2, path, tmp_path / "bundle", tmp_path / "spec.toml", quiet=True)
    with pytest.raises((CheckFailed, InputError), match=said):
        import_model(config)


def test_logits_and_states_of_other_names_are_described(
    zipformer2: Path, speech: list[FloatArray], tmp_path: Path
) -> None:
    """The same model without metadata, its output not normalised, as the spec file tells."""

    def change(model: onnx.ModelProto) -> None:
        unnormalised(model)
        del model.metadata_props[:]

    model, tokens = edited(zipformer2, tmp_path / "m.onnx", change), foreign.write_tokens(tmp_path / "t.txt")
    with pytest.raises(InputError, match=r"docs/importing\.md"):
        import_model(ImportConfig(model, tokens, tmp_path / "a", quiet=True))
    (tmp_path / "spec.toml").write_text(
        "[encoder]\nchunk_frames = 32\nright_context_frames = 13\noutput = 'logits'\n"
        "[frontend]\ntype = 'fbank'\nhigh_freq_hz = -400\n"
    )
    import_model(ImportConfig(model, tokens, tmp_path / "a", tmp_path / "spec.toml", quiet=True))
    import_model(ImportConfig(zipformer2, tokens, tmp_path / "b", quiet=True))
    rows = [stream_of(tmp_path / name, speech[0]).log_probs() for name in "ab"]
    assert rows[0].shape == rows[1].shape  # its features have another scale, which the metadata told


def test_a_model_normalised_over_the_recording_is_refused(tmp_path: Path) -> None:
    model = foreign.write_nemo(tmp_path / "m.onnx", normalize_type="per_feature")
    tokens = foreign.write_tokens(tmp_path / "t.txt", last=True)
    with pytest.raises(InputError, match="'per_feature', over the whole recording"):
        import_model(ImportConfig(model, tokens, tmp_path / "bundle", quiet=True))


def test_a_line_without_a_symbol_is_the_space(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("b 2\n 1\n<eps> 0\n")
    found = read_tokens(tmp_path / "t.txt")
    assert (found.symbols, found.ordered) == (("<eps>", "▁", "b"), ["<blk>", "▁", "b"])


def test_the_command_prints_what_it_hears(
    zipformer2: Path, audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = foreign.write_tokens(tmp_path / "t.txt")
    words = [
        "import",
        str(zipformer2),
        "--tokens",
        str(tokens),
        "-o",
        str(tmp_path / "b"),
        "--audio",
        str(audio),
    ]
    assert cli.main([*words, "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bundle"] == str(tmp_path / "b")
    assert document["text"]
    assert cli.main(words) == 2
    assert "--force" in capsys.readouterr().err
