# make demo   set up, optimise the digits model, transcribe the shipped clips, time it
# make test   set up, run all tests
# make        lint and test
# make asan   C++ tests under the address and undefined-behaviour sanitizers
# make aarch64   C++ tests and a bundle's ONNX on 64-bit Arm, emulated (apt-get install g++-aarch64-linux-gnu qemu-user-static)

PYTHON ?= python3
BIN := .venv/bin
# pip would compile the packages' 24 000 files one after the other: `.built` does that on all cores.
INSTALL := $(BIN)/pip install --quiet --no-compile
DEMO_TARGET := linux-$(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64)
CPP := $(shell find cpp_runtime examples -name '*.cc' -o -name '*.h')
DIGITS := examples/digits

.PHONY: all demo test lint format asan aarch64 aarch64-build clean
all: lint test

# torch first and pinned: its CPU build must be there before anything else asks for torch. torchaudio must not
# bring a torch of its own.
.venv/.torch: pyproject.toml
	@echo "setting up .venv: about 2.9 GB installed, a few minutes"
	$(PYTHON) -m venv .venv
	$(INSTALL) --upgrade pip
	$(INSTALL) torch==2.13.0
	$(INSTALL) --no-deps torchaudio==2.11.0
	touch $@

# Everything else, and the extension; it is rebuilt when its sources change.
.venv/.built: .venv/.torch CMakeLists.txt $(CPP)
	$(INSTALL) --editable '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # some files are for other Pythons
	touch $@

# Oracles that have no wheel for every Python; the tests that need them skip, visibly, where they do not install.
.venv/.peers: .venv/.torch
	$(INSTALL) kenlm==0.3.0 || echo "kenlm does not install here: its tests will be skipped"
	$(INSTALL) flashlight-text==0.0.7 || echo "flashlight-text does not install here: its tests will be skipped"
	touch $@

# TensorRT's Python bindings without TensorRT: what our code calls is held against them. Those of 10.16 and 11.4
# are required, those of JetPack 6 (8.6, 10.3) where they install.
BINDINGS := .venv/bindings
.venv/.bindings: .venv/.torch
	$(INSTALL) --no-deps --target $(BINDINGS)/10.16.1.11 tensorrt-cu13-bindings==10.16.1.11
	$(INSTALL) --no-deps --target $(BINDINGS)/11.4.0.106 tensorrt-cu13-bindings==11.4.0.106
	$(INSTALL) --no-deps --target $(BINDINGS)/10.3.0 tensorrt-cu12-bindings==10.3.0 || echo "the bindings of TensorRT 10.3 do not install here: their tests will be skipped"
	$(INSTALL) --no-deps --target $(BINDINGS)/8.6.1 tensorrt-bindings==8.6.1 || echo "the bindings of TensorRT 8.6 do not install here: their tests will be skipped"
	touch $@

demo: .venv/.built
	$(BIN)/edge-speech optimize $(DIGITS)/model.pt --target $(DEMO_TARGET) --eval $(DIGITS)/clips.jsonl \
	    --calibration $(DIGITS)/calibration.jsonl --output build/demo --force
	$(BIN)/edge-speech eval build/demo $(DIGITS)/clips.jsonl --details
	$(BIN)/edge-speech bench build/demo

test: .venv/.built .venv/.peers .venv/.bindings
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --fail-on-skip --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: .venv/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP)

format: .venv/.built
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

asan: .venv/.built
	$(BIN)/cmake -S . -B build/asan -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	    -DEDGE_SPEECH_PYTHON=OFF -DEDGE_SPEECH_TESTS=ON -DEDGE_SPEECH_ASAN=ON
	$(BIN)/cmake --build build/asan
	$(BIN)/ctest --test-dir build/asan --output-on-failure

AARCH64 := build/aarch64
EMULATOR := $(if $(filter aarch64 arm64,$(shell uname -m)),,qemu-aarch64-static -cpu cortex-a76 -L $(AARCH64)/emulator_root)

aarch64: .venv/.built
	$(MAKE) aarch64-build
	$(BIN)/ctest --test-dir $(AARCH64) --output-on-failure --parallel $(shell nproc)
	$(BIN)/edge-speech optimize $(DIGITS)/model.pt --target linux-arm64 --eval $(DIGITS)/clips.jsonl \
	    --output $(AARCH64)/digits --force
	$(EMULATOR) $(AARCH64)/bundle_check $(AARCH64)/digits

# tests/test_aarch64.py builds with this too, and must not have the extension rebuilt beneath it.
aarch64-build: $(AARCH64)/onnxruntime/lib/libonnxruntime.so
	$(BIN)/cmake -S . -B $(AARCH64) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	    --toolchain cpp_runtime/cmake/aarch64-linux-gnu.cmake -DEDGE_SPEECH_PYTHON=OFF -DEDGE_SPEECH_TESTS=ON \
	    -DEDGE_SPEECH_ONNXRUNTIME=$(abspath $(AARCH64)/onnxruntime)
	$(BIN)/cmake --build $(AARCH64)

$(AARCH64)/onnxruntime/lib/libonnxruntime.so:
	$(BIN)/python cpp_runtime/cmake/fetch_onnxruntime.py $(AARCH64)/onnxruntime

clean:
	rm -rf build .venv
