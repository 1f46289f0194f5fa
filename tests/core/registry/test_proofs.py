"""The answer to llm_run_capabilities, made of proofs and reasons."""

from __future__ import annotations

from pathlib import Path

from llm_run.core.registry.facts import Support
from llm_run.core.registry.features import BY_NAME
from llm_run.core.registry.proofs import declare, proven_by_every_family


def test_a_proof_is_a_yes_a_reason_a_no_and_16_bits_are_untested() -> None:
    declared = declare({"hf": "tests/a.py::test_a", "chat": "tests/a.py::test_b"}, {"chat": "it has no chat format"})
    assert declared["hf"] == Support("yes", proof="tests/a.py::test_a")
    assert declared["chat"] == Support("no", "it has no chat format")
    assert declared["bfloat16"].support == declared["float16"].support == "untested"
    assert "GPU" in declared["bfloat16"].reason


def test_proofs_are_of_the_family_and_the_size_that_is_named() -> None:
    proofs = proven_by_every_family("nobody", "tiny-odd")
    assert set(proofs) <= set(BY_NAME)
    assert proofs["generate"].endswith("::test_cache_equals_no_cache[nobody-tiny-odd]")
    assert proofs["data"].endswith("::test_text_becomes_tokens_and_text_again[nobody]")


def test_every_proof_names_a_test_that_exists(project: Path) -> None:
    for proof in proven_by_every_family("nobody").values():
        file, _, test = proof.partition("::")
        assert f"def {test.partition('[')[0]}(" in (project / file).read_text(encoding="utf-8"), proof
