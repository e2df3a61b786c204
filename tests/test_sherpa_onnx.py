"""sherpa-onnx runs what the converter makes and says what our own stream says; what it cannot is refused."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edge_speech.bundle import TOKENS, read_bundle, write_tokens
from edge_speech.encoder import TensorSpec
from edge_speech.errors import CheckFailed, InputError
from edge_speech.features import FbankConfig, FrontendConfig, LogMelConfig, MfccConfig, features_of
from edge_speech.recognizer import Recognizer
from edge_speech.target import load_target
from edge_speech.training import models
from edge_speech.training.checkpoint import LoadedModel, load_model
from edge_speech_tools import report, sherpa_text
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.convert import sherpa_onnx
from edge_speech_tools.decoding import Line, decode
from edge_speech_tools.evaluation import Measured
from edge_speech_tools.importing.command import ImportConfig, import_model
from edge_speech_tools.passes import Source, load_passes
from edge_speech_tools.plan import OptimizeConfig, Plan, make_plan
from edge_speech_tools.recordings import at_rate, from_manifest
from edge_speech_tools.reference import TorchEncoder, single_thread
from edge_speech_tools.sherpa_classes import class_for, loading
from edge_speech_tools.sherpa_text import TextCheck
from edge_speech_tools.state_packing import Packing, packed_size

WENET_8K = FbankConfig(sample_rate=8000, num_mel_bins=40, high_freq_hz=-400.0)
NEMO_8K = dataclasses.replace(LogMelConfig.nemo(40), sample_rate=8000, fft_size=256)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(scope="module")
def loaded(digits: Path) -> LoadedModel:
    """The shipped model; its weights recognise digits also by front ends near its own."""
    return load_model(digits / "model.pt")


@pytest.fixture(scope="module")
def exported(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    streaming_onnx.run(Source(loaded.model, loaded.model.spec, folder))
    return folder


def converted(
    exported: Path, folder: Path, loaded: LoadedModel, frontend: FrontendConfig
) -> tuple[Path, Line, TorchEncoder]:
    shutil.copyfile(exported / streaming_onnx.FILE_NAME, folder / streaming_onnx.FILE_NAME)
    source = Source(loaded.model, loaded.model.spec, folder, frontend=frontend, tokens=loaded.tokens)
    result = sherpa_onnx.run(source)
    assert (result.backend, result.status, result.check_backend) == ("sherpa-onnx", "built", None)
    assert class_for(frontend).loader in str(result.command)
    return result.path, Line(frontend, loaded.tokens), TorchEncoder(loaded.model, loaded.model.spec)


def test_wenet_class_says_what_our_stream_says(
    exported: Path, loaded: LoadedModel, digits: Path, tmp_path: Path
) -> None:
    path, line, reference = converted(exported, tmp_path, loaded, WENET_8K)
    recordings = from_manifest(digits / "clips.jsonl").recordings
    found = sherpa_text.check(path, line, reference, recordings)
    assert found.holds
    assert found.recordings == len(recordings)
    assert found.words == sum(len(r.text.split()) for r in recordings)


@pytest.fixture(scope="module")
def for_nemo(
    exported: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, LoadedModel]:
    """The same graph and model with the statistics of NeMo's features: its weights recognise them too."""
    loaded, graph = load_model(digits / "model.pt"), onnx.load(exported / streaming_onnx.FILE_NAME)
    heard = from_manifest(digits / "calibration.jsonl").recordings
    features = np.concatenate([features_of(at_rate(r, 8000), NEMO_8K) for r in heard])
    statistics = {"feature_mean": features.mean(axis=0), "feature_std": features.std(axis=0)}
    loaded.model.normalise(*(array.tolist() for array in statistics.values()))
    for tensor in graph.graph.initializer:
        if tensor.name in statistics:
            tensor.CopyFrom(numpy_helper.from_array(statistics.pop(tensor.name), tensor.name))
    assert not statistics
    folder = tmp_path_factory.mktemp("for_nemo")
    onnx.save(graph, folder / streaming_onnx.FILE_NAME)
    return folder, loaded


def test_nemo_class_says_what_our_stream_says(
    for_nemo: tuple[Path, LoadedModel], digits: Path, tmp_path: Path
) -> None:
    path, line, reference = converted(for_nemo[0], tmp_path, for_nemo[1], NEMO_8K)
    found = sherpa_text.check(path, line, reference, from_manifest(digits / "clips.jsonl").recordings)
    assert found.holds
    assert found.words > 20


@pytest.mark.parametrize("frontend", [WENET_8K, NEMO_8K], ids=["wenet", "nemo"])
def test_what_was_converted_is_imported_again(
    frontend: FrontendConfig, request: pytest.FixtureRequest, digits: Path, tmp_path: Path
) -> None:
    if frontend is NEMO_8K:
        folder, loaded = request.getfixturevalue("for_nemo")
    else:
        folder, loaded = request.getfixturevalue("exported"), request.getfixturevalue("loaded")
    path, line, reference = converted(folder, tmp_path, loaded, frontend)
    write_tokens(tmp_path, loaded.tokens)
    recordings = from_manifest(digits / "clips.jsonl").recordings
    config = ImportConfig(path, tmp_path / TOKENS, tmp_path / "bundle", audio=recordings[0].path, quiet=True)
    document = import_model(config)
    assert document["doubts"] == []
    imported = Recognizer.load(tmp_path / "bundle")
    assert imported.frontend == frontend
    wanted = list(decode(line, reference, recordings, keep_log_probs=True))
    found = list(decode(Line(imported.frontend, list(imported.tokens)), imported.encoder, recordings, True))
    assert [one.text for one in found] == [one.text for one in wanted]
    assert any(one.text for one in found)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got.log_probs, want.log_probs, atol=2e-3)


def test_features_of_another_scale_are_noticed(
    exported: Path, loaded: LoadedModel, digits: Path, tmp_path: Path
) -> None:
    """NeMo's features lie 21 nats below those that the digits model was trained on."""
    path, _, _ = converted(exported, tmp_path, loaded, NEMO_8K)
    write_tokens(tmp_path, loaded.tokens)
    audio = from_manifest(digits / "clips.jsonl").recordings[0].path
    config = ImportConfig(path, tmp_path / TOKENS, tmp_path / "bundle", audio=audio, quiet=True)
    assert [doubt["check"] for doubt in import_model(config)["doubts"]] == ["deaf"]


def test_our_own_graph_is_imported_by_what_it_notes(
    exported: Path, loaded: LoadedModel, tmp_path: Path
) -> None:
    write_tokens(tmp_path, loaded.tokens)
    spec = tmp_path / "spec.toml"
    spec.write_text('[frontend]\ntype = "fbank"\nsample_rate = 8000\nnum_mel_bins = 40\n')
    graph = exported / streaming_onnx.FILE_NAME
    config = ImportConfig(graph, tmp_path / TOKENS, tmp_path / "bundle", spec, quiet=True)
    assert import_model(config)["family"] == "edge-speech"
    assert read_bundle(tmp_path / "bundle").manifest.encoder == loaded.model.spec
    with pytest.raises(InputError, match=r"front end; give it as \[frontend\]"):
        import_model(dataclasses.replace(config, spec=None, force=True))


def test_a_model_that_sherpa_onnx_exits_on_is_one_line(exported: Path, loaded: LoadedModel) -> None:
    path, spec = exported / streaming_onnx.FILE_NAME, loaded.model.spec
    with pytest.raises(CheckFailed, match=r"sherpa-onnx cannot run encoder\.fp32\.onnx") as error:
        sherpa_text.texts(path, path, [np.zeros(8000, np.float32)], *loading(spec, WENET_8K))
    assert "\n" not in str(error.value)


REFUSED: dict[str, tuple[FrontendConfig, str]] = {
    "up to the Nyquist frequency": (FbankConfig(), "high_freq_hz is 0.0, it has -400.0"),
    "hann window": (FbankConfig(high_freq_hz=-400.0, window="hann"), "window is 'hann', it has 'povey'"),
    "pre-emphasis": (FbankConfig(high_freq_hz=-400.0, preemphasis=0.0), "preemphasis is 0.0, it has 0.97"),
    "range": (FbankConfig(high_freq_hz=-400.0, low_freq_hz=0.0), "low_freq_hz is 0.0, it has 20.0"),
    "cepstra": (MfccConfig(), "MfccConfig"),
    "whisper": (LogMelConfig.whisper(), "log is 'log10', it has 'natural'"),
    "another FFT": (dataclasses.replace(LogMelConfig.nemo(), fft_size=1024), "fft_size is 1024, it has 512"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_front_end_that_no_class_computes_is_refused_with_the_reason(case: str) -> None:
    frontend, reason = REFUSED[case]
    with pytest.raises(InputError, match=reason) as error:
        class_for(frontend)
    assert "\n" not in str(error.value)


def test_sherpas_own_floor_of_the_logarithm_is_taken() -> None:
    own = dataclasses.replace(LogMelConfig.nemo(), log_floor=1.1920929e-07, log_guard=0.0)
    assert class_for(own).loader == "from_nemo_ctc"


def test_tokens_with_white_space_are_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    source = Source(
        loaded.model, loaded.model.spec, tmp_path, frontend=WENET_8K, tokens=["<blk>", "new york"]
    )
    with pytest.raises(InputError, match="white space"):
        sherpa_onnx.run(source)


TINY: dict[str, dict[str, Any]] = {
    "conformer": {"d_model": 16, "num_layers": 1, "num_heads": 2, "feed_forward_dim": 16, "conv_kernel": 3},
    "transformer": {"d_model": 16, "num_layers": 1, "num_heads": 2, "feed_forward_dim": 16},
    "emformer": {
        "d_model": 16, "num_layers": 1, "num_heads": 2, "feed_forward_dim": 16, "memory_size": 2,
        "right_context_frames": 8,
    },
    "tcn": {"d_model": 16, "num_layers": 1},
    "crnn": {"channels": 2, "hidden_dim": 8, "num_layers": 1, "cell": "lstm", "right_context_frames": 2},
    "dnn": {"hidden_dim": 16, "num_layers": 1, "right_context_frames": 5},
}  # fmt: skip


@pytest.mark.parametrize("architecture", models.available())
def test_the_state_of_every_architecture_is_carried(architecture: str, tmp_path: Path) -> None:
    """The converter compares three steps; here that both classes also keep the metadata's promises."""
    settings = {"num_features": 20, "vocab_size": 7, **TINY.get(architecture, {})}
    torch.manual_seed(0)
    model = models.build(architecture, settings).eval()
    spec = model.spec  # type: ignore[attr-defined]
    source = Source(model, spec, tmp_path, tokens=["<blk>", *"abcdef"])  # type: ignore[arg-type]
    streaming_onnx.run(source)
    for frontend in (
        dataclasses.replace(WENET_8K, num_mel_bins=20),
        dataclasses.replace(NEMO_8K, num_mel_bins=20),
    ):
        path = sherpa_onnx.run(dataclasses.replace(source, frontend=frontend)).path
        known = {p.key: p.value for p in onnx.load(path).metadata_props}
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        shapes = {v.name: v.shape for v in session.get_inputs()}
        if frontend.__class__ is FbankConfig:
            chunk, factor, width = (
                int(known[k]) for k in ("chunk_size", "subsampling_factor", "output_size")
            )
            assert shapes["x"][1] == (chunk - 1) * factor + int(known["right_context"]) + 1
            assert shapes["attn_cache"] == [1, 1, chunk * int(known["left_chunks"]), 2 * width]
            assert shapes["conv_cache"] == [1, 1, width, 1]
        else:
            assert shapes["audio_signal"] == [1, 20, int(known["window_size"])]
            dims = [int(known[f"cache_last_channel_dim{i}"]) for i in (1, 2, 3)]
            assert shapes["cache_last_channel"] == [1, *dims]


def test_counters_stay_exact_where_float32_does_not() -> None:
    state = (TensorSpec("seen", (2,), "int64"), TensorSpec("keys", (1, 3, 2), "float32"))
    size = packed_size(state) + 5
    packing = Packing(state, "test")
    packing.unpack("cache", ["seen", "keys"])
    packing.pack(["next_seen", "next_keys"], "next_cache", (1, size))
    nodes = [
        helper.make_node("Add", ["seen", "added"], ["next_seen"]),
        helper.make_node("Identity", ["keys"], ["next_keys"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        _in_order(packing.nodes, nodes),
        "packing",
        [value("cache", TensorProto.FLOAT, (1, size)), value("added", TensorProto.INT64, (2,))],
        [value("next_cache", TensorProto.FLOAT, (1, size)), value("next_seen", TensorProto.INT64, (2,))],
        packing.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    cache, total = np.zeros((1, size), np.float32), np.zeros(2, np.int64)
    cache[0, 4:10] = np.arange(6)
    for added in ((1 << 24) + 1, 3, (1 << 30) + 7, -5):
        cache, seen = session.run(None, {"cache": cache, "added": np.array([added, -added])})
        total += np.array([added, -added])
        np.testing.assert_array_equal(seen, total)
    np.testing.assert_array_equal(cache[0, 4:], [*range(6), 0, 0, 0, 0, 0])


def _in_order(packing: list[onnx.NodeProto], own: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes that read what `own` writes come after it."""
    written = {name for node in own for name in node.output}
    late = next(i for i, node in enumerate(packing) if written & set(node.input))
    return [*packing[:late], *own, *packing[late:]]


def test_other_state_types_are_refused() -> None:
    with pytest.raises(InputError, match="float16"):
        packed_size((TensorSpec("half", (2,), "float16"),))


def test_a_graph_that_differs_is_caught(exported: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    path, _, _ = converted(exported, tmp_path, loaded, WENET_8K)
    other = onnx.load(exported / streaming_onnx.FILE_NAME)
    mean = next(t for t in other.graph.initializer if t.name == "feature_mean")
    mean.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(mean) + 1, "feature_mean"))
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(CheckFailed, match="differs from other"):
        sherpa_onnx.compare_graphs(tmp_path / "other.onnx", path, loaded.model.spec, 1e-4)


def plan(**changes: Any) -> Plan:
    config = OptimizeConfig(Path("m.pt"), "linux-x86_64", Path("b"), precision="fp32", **changes)
    return make_plan(config, load_target("linux-x86_64"), load_passes())


def test_it_is_made_where_it_is_asked_for_and_comes_last() -> None:
    assert "sherpa_onnx" not in plan().candidates
    assert plan(backends=("sherpa-onnx", "onnxruntime")).candidates == ("onnx", "sherpa_onnx")
    with pytest.raises(InputError, match="--backends onnxruntime,sherpa-onnx"):
        plan(backends=("sherpa-onnx",))
    config = OptimizeConfig(Path("m.pt"), "linux-x86_64", Path("b"), backends=("onnxruntime", "sherpa-onnx"))
    automatic = make_plan(config, load_target("linux-x86_64"), load_passes())
    assert "sherpa_onnx" in automatic.candidates
    int8 = dataclasses.replace(config, precision="int8-dynamic")
    assert make_plan(int8, load_target("linux-x86_64"), load_passes()).left_out == (
        "sherpa-onnx: it is not made in int8-dynamic",
    )


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (TextCheck("s", 5, 5, 9), "verified"),
        (TextCheck("s", 5, 4, 9), "built"),
        (TextCheck("s", 5, 5, 0), "built"),
        (None, "built"),
    ],
)
def test_only_equal_texts_make_it_verified(found: TextCheck | None, status: str) -> None:
    result = SimpleNamespace(status="built", key="sherpa-onnx/fp32")
    texts = {} if found is None else {result.key: found}
    measured = Measured((), {}, {}, {}, "clips", texts=texts)
    assert report.status(result, measured) == status  # type: ignore[arg-type]
