"""Make token_files/: one corpus in the three layouts that PaddleNLP writes, and the order in which it reads it.

Run in an environment with paddlenlp==3.0.0b4: python tests/golden/make_token_files.py
"""

from __future__ import annotations

import json
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
from paddlenlp.data import causal_dataset, indexed_dataset

OUT = Path(__file__).parent / "token_files"
SEQUENCE, SEED, SPLIT = 16, 7, "8,2,0"


def documents() -> list[np.ndarray]:
    random = np.random.RandomState(0)
    return [random.randint(0, 60000, size=random.randint(1, 60)) for _ in range(40)]


def build(prefix: str, impl: str, dtype: type, docs: list[np.ndarray]) -> None:
    builder = indexed_dataset.make_builder(str(OUT / f"{prefix}.bin"), impl, dtype)
    for doc in docs:
        builder.add_item(doc)
        builder.end_document()
    builder.finalize(str(OUT / f"{prefix}.idx"))


def main() -> None:
    OUT.mkdir(exist_ok=True)
    docs = documents()
    build("mmap", "mmap", np.uint16, docs)
    build("lazy", "lazy", np.int32, docs)
    np.save(OUT / "legacy_ids.npy", np.concatenate(docs).astype(np.uint16))
    lengths = np.array([len(doc) for doc in docs], dtype=np.int32)
    np.savez(OUT / "legacy_idx.npz", lens=lengths, docs=np.arange(len(docs) + 1, dtype=np.int64))

    # Its C++ index builder is not on PyPI; the Python twin in the same file stands in.
    helpers = types.SimpleNamespace(build_sample_idx=causal_dataset._build_sample_idx)
    sys.modules["fast_dataindex"] = types.SimpleNamespace(helpers=helpers)
    data = indexed_dataset.make_dataset(str(OUT / "mmap"), "mmap", True)
    bounds = causal_dataset.get_train_valid_test_split_(SPLIT, len(docs))
    samples = {}
    for name, first, last in (("train", bounds[0], bounds[1]), ("valid", bounds[1], bounds[2])):
        ids = np.arange(first, last, dtype=np.int32)
        per_epoch = (int(lengths[ids].sum()) - 1) // SEQUENCE
        with tempfile.TemporaryDirectory() as cache:
            dataset = causal_dataset.GPTDataset(
                name, str(OUT / "mmap"), ids, data, SPLIT, per_epoch, SEQUENCE, SEED, data_cache_path=cache
            )
            samples[name] = [dataset[place]["text"].tolist() for place in range(per_epoch)]
    splits = {
        f"{split} of {size}": [int(bound) for bound in causal_dataset.get_train_valid_test_split_(split, size)]
        for split in ("949,50,1", "8/1/1", "1", "0.98,0.02", "1,1,1", "0,1,0")
        for size in (1, 3, 7, 10, 1000, 12345)
    }
    text = json.dumps({"sequence": SEQUENCE, "seed": SEED, "split": SPLIT, "samples": samples, "splits": splits})
    (OUT / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
