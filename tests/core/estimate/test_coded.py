"""What a plan says of a frozen model that is kept as codes, against real matrices and real runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.cli import main
from llm_run.core.estimate.coded import Codes
from llm_run.core.ops.nf4 import round_to_nf4
from llm_run.core.quant.grid import GridSpec, round_to_nearest
from llm_run.core.quant.layer import pack_weight

RUN = """
import sys
from llm_run.core.cli import main
status = main(sys.argv[1:])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1])
sys.exit(status)
"""
KEPT = {
    "MALLOC_MMAP_THRESHOLD_": "20000000000", "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
}  # fmt: skip
"""The environment of a training run, so that it need not start itself anew."""
LAYERS, MATRICES = 6, 2 * 512 * 512 + 2 * 512 * 256 + 3 * 512 * 1408


@pytest.mark.parametrize(("block", "double"), [(64, False), (64, True), (32, True)])
def test_a_matrix_of_nf4_is_as_large_as_a_real_one(block: int, double: bool) -> None:
    weight_OI = np.random.default_rng(0).standard_normal((96, 120), dtype=np.float32)
    real = round_to_nf4(weight_OI, block, double=double)
    assert Codes(4, block, is_nf4=True, rounds_scales=double).size(120, 96) == real.num_bytes


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "block"), [(8, -1), (4, 32), (4, 128)])
def test_a_matrix_of_integers_is_as_large_as_a_real_one(bits: int, block: int, symmetric: bool) -> None:
    weight_OI = np.random.default_rng(0).standard_normal((96, 128), dtype=np.float32)
    real = pack_weight(*round_to_nearest(weight_OI, GridSpec(bits, block, symmetric)))
    assert Codes(bits, block, has_zeros=not symmetric).size(128, 96) == real.num_bytes


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of random weights, the same in 4-bit integers, and records."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("workshop")
    shape = {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_key_value_heads": 4}
    config = LlamaConfig(
        vocab_size=1024, num_hidden_layers=LAYERS, max_position_embeddings=512, bos_token_id=0, eos_token_id=1, **shape
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "model" / "tokenizer.json"))
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    records = [{"src": "count", "tgt": " ".join(map(str, range(start, start + 60)))} for start in range(8)]
    (folder / "records.json").write_text(json.dumps(records))
    paths = ["--model_name_or_path", str(folder / "model"), "--output_dir", str(folder / "int4")]
    words = ["--task", "ptq", "--quant_type", "WINT4", *paths, "--dataset_name_or_path", str(folder / "records.json")]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(words) == 0
    return folder


def tuning(workshop: Path, model: str, *more: str) -> list[str]:
    return [
        "--task", "lora", "--model_name_or_path", str(workshop / model), "--output_dir", str(workshop / "adapter"),
        "--dataset_name_or_path", str(workshop / "records.json"), "--overwrite_output_dir", "--max_steps", "2",
        "--per_device_train_batch_size", "1", "--max_length", "128", "--src_length", "64", "--disable_tqdm",
        "--threads", "1", *more,
    ]  # fmt: skip


def launch(*program: str) -> str:
    """Run Python in a process of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *program], env=os.environ | KEPT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def plan(words: list[str]) -> dict[str, Any]:
    """Plan in this process, whose memory does not matter for what is asked."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["plan", *words, "--format", "json"]) == 0
    found: dict[str, Any] = json.loads(said.getvalue())
    return found


@pytest.mark.parametrize(
    ("model", "more"), [("model", ("--weight_quantize_algo", "nf4")), ("int4", ())], ids=["nf4", "directory"]
)
def test_the_predicted_peak_is_that_of_a_real_run(workshop: Path, model: str, more: tuple[str, ...]) -> None:
    words = tuning(workshop, model, *more)
    predicted = json.loads(launch("-m", "llm_run.core", "plan", *words, "--format", "json"))
    measured = int(launch("-c", RUN, *words).splitlines()[-1]) * 1024
    # With numbers in the place of codes it would be 1.2.
    assert 0.85 < predicted["peak_memory_bytes"] / measured < 1.15


@pytest.mark.parametrize(
    ("model", "more", "bits"),
    [
        ("model", ("--weight_quantize_algo", "nf4"), 4 + 32 / 64),
        ("model", ("--weight_quantize_algo", "nf4", "--weight_double_quant"), 4 + 8 / 64 + 32 / 64 / 256),
        ("model", ("--weight_quantize_algo", "weight_only_int4"), 4 + 32 / 128),
        ("int4", (), 4 + 32 / 128),
    ],
)
def test_matrices_take_their_bits_and_their_scales(
    workshop: Path, model: str, more: tuple[str, ...], bits: float
) -> None:
    plain, coded = plan(tuning(workshop, "model")), plan(tuning(workshop, model, *more))
    saved = LAYERS * MATRICES * (32 - bits) / 8
    assert plain["memory_parts"]["weights"] - coded["memory_parts"]["weights"] == pytest.approx(saved, rel=1e-3)
    assert plain["ranks"][0]["parameter_bytes"] - coded["ranks"][0]["parameter_bytes"] == pytest.approx(saved, rel=1e-3)


def test_where_a_rank_codes_its_part_after_reading_it_the_numbers_may_be_its_peak(workshop: Path) -> None:
    split = ("--pipeline_parallel_degree", "2", "--nproc_per_node", "2", "--max_length", "16", "--src_length", "8")
    found = plan(tuning(workshop, "model", "--weight_quantize_algo", "nf4", *split))
    assert found["peak_phase"] == "the building of the model"
    assert found["memory_parts"]["weights"] > 2 * LAYERS * MATRICES > 3 * found["ranks"][0]["parameter_bytes"]


def test_integers_of_a_directory_are_widened_where_ranks_share_layers(workshop: Path) -> None:
    split = ("--tensor_parallel_degree", "2", "--nproc_per_node", "2")
    assert plan(tuning(workshop, "int4", *split))["ranks"][0]["parameter_bytes"] > 2 * LAYERS * MATRICES
