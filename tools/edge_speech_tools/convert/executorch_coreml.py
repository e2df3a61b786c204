"""ExecuTorch program for Core ML (`.pte`): one step in fp16, for the Neural Engine of Apple's chips."""

from __future__ import annotations

from dataclasses import dataclass

from edge_speech.errors import InputError
from edge_speech_tools.convert import executorch
from edge_speech_tools.onnx_graph import quiet
from edge_speech_tools.passes import PassResult, Source

BACKEND = "executorch-coreml"
REQUIRES = "executorch"
PRECISION = "fp16"
NEEDS: tuple[str, ...] = ()
NEEDS_CALIBRATION = False
NEEDS_LAYERS = True
# An app loads it, with ExecuTorch's Core ML backend, which exists on Apple's systems alone.
ON_REQUEST = True
FILE_NAME = "encoder.fp16.coreml.pte"


@dataclass(frozen=True)
class Config:
    """`deployment_target`: the oldest iOS that shall run it, as coremltools names it."""

    deployment_target: str = "iOS17"


def run(source: Source, config: Config = Config()) -> PassResult:
    """Export, lower and write the model. Raises InputError where this ExecuTorch cannot write it."""
    path = source.directory / FILE_NAME
    try:
        with quiet():
            import coremltools
            from executorch.backends.apple.coreml.compiler import CoreMLBackend
            from executorch.backends.apple.coreml.partition import CoreMLPartitioner
    except ImportError as error:
        raise InputError(
            f"{BACKEND}: this build of ExecuTorch writes no Core ML programs ({error}); those for macOS and "
            "x86-64 Linux do"
        ) from error
    specs = CoreMLBackend.generate_compile_specs(
        compute_unit=coremltools.ComputeUnit.ALL,
        minimum_deployment_target=getattr(coremltools.target, config.deployment_target),
        compute_precision=coremltools.precision.FLOAT16,
    )
    partitioner = CoreMLPartitioner(compile_specs=specs)
    path.write_bytes(executorch.lower(source.model, source, partitioner).to_executorch().buffer)
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=None)
