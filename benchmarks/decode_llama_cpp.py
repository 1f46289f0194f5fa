"""The side of llama.cpp in decode.py, through the C interface that llama-cpp-python hands out. Needs nothing else."""

from __future__ import annotations

import os
import sys

import llama_cpp
from decode_work import BATCH, MOST_TOKENS, PROMPT, measure
from turns import serve


class LlamaCpp:
    """A GGUF file with llama.cpp's own defaults, but for the number of threads: cores."""

    def __init__(self, path: str) -> None:
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = MOST_TOKENS + 256, max(PROMPT, 1024), PROMPT
        params.n_seq_max, params.kv_unified = BATCH, True
        params.n_threads = params.n_threads_batch = int(os.environ["OMP_NUM_THREADS"])
        self._context = llama_cpp.llama_init_from_model(model, params)
        self._batch = llama_cpp.llama_batch_init(params.n_batch, 0, 1)
        self._lengths: list[int] = []

    def reset(self, num_sequences: int) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        self._lengths = [0] * num_sequences

    def feed(self, tokens: list[list[int]]) -> None:
        batch, place = self._batch, 0
        for sequence, new in enumerate(tokens):
            for offset, token in enumerate(new):
                batch.token[place], batch.pos[place] = token, self._lengths[sequence] + offset
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
                batch.logits[place] = offset == len(new) - 1
                place += 1
            self._lengths[sequence] += len(new)
        batch.n_tokens = place
        if llama_cpp.llama_decode(self._context, batch) != 0:
            sys.exit("llama_decode failed")
        llama_cpp.llama_get_logits(self._context)[0]  # waits for the result


model = LlamaCpp(sys.argv[1])
serve(lambda: measure(model))
