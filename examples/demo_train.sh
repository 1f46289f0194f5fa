#!/usr/bin/env bash
# Train a tiny model on the Python manual that every Python carries: corpus, tokenizer, tokens, training, a sample.
set -euo pipefail
bin=${BIN:-.venv/bin}
out=${OUT:-demo-output}
export COLUMNS=${COLUMNS:-100}
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

mkdir -p "$out"
say "$bin/python" examples/pydoc_corpus.py "$out/corpus.jsonl"
say "$bin/python" examples/train_tokenizer.py "$out/corpus.jsonl" "$out/tokenizer" --vocab_size 2048
say "$bin/llm-run" --family llama --task data --tokenizer_name_or_path "$out/tokenizer" \
  --input_path "$out/corpus.jsonl" --output_prefix "$out/tokens/pydoc"
say "$bin/llm-run" --family llama --task pretrain --config examples/demo.yaml \
  --tokenizer_name_or_path "$out/tokenizer" --input_dir "$out/tokens" --output_dir "$out/model" --overwrite_output_dir
rm -f "$out/sample.jsonl"
say "$bin/llm-run" --task generate --model_name_or_path "$out/model" --data_file examples/demo_prompts.jsonl \
  --output_file "$out/sample.jsonl" --max_new_tokens 60 --temperature 0.7
"$bin/python" - "$out/sample.jsonl" <<'PY'
import json, sys
for line in open(sys.argv[1], encoding="utf-8"):
    record = json.loads(line)
    print(f"\n{record['src']}\033[36m{record['output']}\033[0m")
PY
printf '\nThe loss curve: %s/model/loss.png\n' "$out"
