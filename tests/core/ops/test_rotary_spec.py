from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llm_run.core.errors import RefusedError
from llm_run.core.ops import RotaryScaling, RotarySpec

SCALINGS = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.5},
    "llama3": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 1024},
    "yarn with all": {
        "factor": 16.0, "original_max_position_embeddings": 256, "beta_fast": 20.0, "beta_slow": 2.0,
        "mscale": 0.7, "mscale_all_dim": 1.3, "truncate": False,
    },
    "yarn with its factor": {"factor": 2.0, "original_max_position_embeddings": 64, "attention_factor": 0.9},
}  # fmt: skip


def config_with(name: str) -> LlamaConfig:
    parameters = {"rope_type": name.split()[0], "rope_theta": 50000.0, **SCALINGS[name]}
    return LlamaConfig(hidden_size=256, num_attention_heads=4, max_position_embeddings=2048, rope_parameters=parameters)


@pytest.mark.parametrize("num_tokens", [1, 2048, 5000])
@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_equal_those_of_transformers(name, num_tokens):
    config = config_with(name)
    angles, factor = RotarySpec.from_fields(config.to_dict(), 64).inverse_wavelengths(num_tokens)
    expected, expected_factor = ROPE_INIT_FUNCTIONS[name.split()[0]](config, torch.device("cpu"), num_tokens)
    np.testing.assert_allclose(angles, expected.numpy(), rtol=2e-6)
    assert factor == pytest.approx(expected_factor)


@pytest.mark.parametrize("name", SCALINGS)
def test_what_is_written_reads_back_here_and_in_transformers(name):
    spec = RotarySpec.from_fields(config_with(name).to_dict(), 64)
    written = spec.to_fields() | {"max_position_embeddings": 2048}
    assert RotarySpec.from_fields(written, 64) == spec
    config = LlamaConfig(hidden_size=256, num_attention_heads=4, **written)
    expected, expected_factor = ROPE_INIT_FUNCTIONS[name.split()[0]](config, torch.device("cpu"), 3000)
    angles, factor = spec.inverse_wavelengths(3000)
    np.testing.assert_allclose(angles, expected.numpy(), rtol=2e-6)
    assert factor == pytest.approx(expected_factor)


def test_both_spellings_of_transformers_and_a_missing_one_are_read():
    assert RotarySpec.from_fields({"rope_theta": 5e5}, 64) == RotarySpec(64, 5e5)
    assert RotarySpec.from_fields({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, 64).base == 5e5
    assert RotarySpec.from_fields({"rope_theta": None, "rope_scaling": None}, 64) == RotarySpec(64)
    old = {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2}}
    assert RotarySpec.from_fields(old, 64).scaling == RotaryScaling(kind="linear", factor=2.0)


def test_a_partial_factor_shortens_the_rotated_part():
    assert RotarySpec.from_fields({"partial_rotary_factor": 0.5}, 64).dim == 32
    assert RotarySpec.from_fields({"rope_parameters": {"partial_rotary_factor": 0.25}}, 64).dim == 16


def test_the_seeds_spelling_is_read():
    fields = {"rope_scaling_type": "dynamic_ntk", "rope_scaling_factor": 2.0, "max_position_embeddings": 2048}
    expected = RotaryScaling(kind="dynamic", factor=2.0, original_max_positions=2048)
    assert RotarySpec.from_fields(fields, 64).scaling == expected
    assert RotarySpec.from_fields({"rope_scaling_type": None, "rope_scaling_factor": 1.0}, 64).scaling is None


def test_ntk_is_a_larger_base_and_is_written_as_one():
    spec = RotarySpec.from_fields({"rope_scaling_type": "ntk", "rope_scaling_factor": 8.0}, 64)
    base = 10000 * 8 ** (64 / 62)
    np.testing.assert_allclose(spec.inverse_wavelengths(1)[0], base ** (-np.arange(0, 64, 2) / 64))
    assert spec.to_fields() == {"rope_theta": pytest.approx(base), "rope_scaling": None}


@pytest.mark.parametrize(("tokens", "alpha"), [(100, 1), (2048, 1), (2049, 3), (4096, 3), (4097, 7), (16000, 15)])
def test_growth_in_powers_of_two(tokens, alpha):
    spec = RotarySpec(128, scaling=RotaryScaling(kind="dynamic_pow2", original_max_positions=2048))
    base = 10000 * alpha ** (128 / 126)
    np.testing.assert_allclose(spec.inverse_wavelengths(tokens)[0], base ** (-np.arange(0, 128, 2) / 128))


def test_growth_in_powers_of_two_is_not_written_as_something_else():
    with pytest.raises(ValueError, match="dynamic_pow2 cannot be written as rope_scaling"):
        RotarySpec(64, scaling=RotaryScaling(kind="dynamic_pow2", original_max_positions=9)).to_fields()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}},
            "config.json: rope_scaling: 'longrope' is a rotary scaling that llm-run does not have. "
            "Known kinds: linear, ntk, dynamic, llama3, yarn.",
        ),
        (
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}},
            "config.json: rope_parameters.factor: is missing, and linear needs it.",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0, "mrope_section": [1]}},
            "config.json: rope_scaling.mrope_section: [1] is not a parameter of linear.",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": "2"}},
            "config.json: rope_scaling.factor: '2' is not a number above 0.",
        ),
        ({"rope_theta": -1}, "config.json: rope_theta: -1 is not a number above 0."),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "config.json: max_position_embeddings: is missing, and dynamic needs it.",
        ),
        (
            {"rope_scaling": "linear"},
            "config.json: rope_scaling: 'linear' is not one set of rotary parameters.",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(fields, said):
    with pytest.raises(RefusedError) as refusal:
        RotarySpec.from_fields(fields, 64)
    assert str(refusal.value) == said


def test_the_spec_is_read_without_paddle():
    code = "import sys; from llm_run.core.ops import RotarySpec; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
