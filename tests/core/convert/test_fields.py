from __future__ import annotations

from pathlib import Path

import pytest

from llm_run.core.convert.fields import read_fields
from llm_run.core.errors import RefusedError


@pytest.mark.parametrize("name", ["config.json", "model_config.json"])
def test_the_configuration_of_a_directory_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"model_type": "some"}')
    assert read_fields(tmp_path) == {"model_type": "some"}


def test_a_weight_file_is_described_by_the_configuration_beside_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "some"}')
    (tmp_path / "model.safetensors").touch()
    assert read_fields(tmp_path / "model.safetensors") == {"model_type": "some"}


def test_a_configuration_of_class_arguments_is_read_as_a_flat_one(tmp_path: Path) -> None:
    # As PaddleNLP wrote model_config.json until 2022.
    inner = '{"vocab_size": 7, "init_class": "SomeModel"}'
    (tmp_path / "model_config.json").write_text(f'{{"init_args": [{inner}], "init_class": "SomeForPretraining"}}')
    fields = read_fields(tmp_path)
    assert (fields["vocab_size"], fields["architectures"]) == (7, ["SomeForPretraining"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not a JSON object"),
        ("[" * 100000, "is not valid JSON"),
        ('"\xff', "is not valid JSON"),
    ],
)
def test_a_malformed_configuration_is_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RefusedError, match=f"config.json: {message}"):
        read_fields(tmp_path)


def test_a_directory_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"has no config\.json\. Give a model directory or a GGUF file\."):
        read_fields(tmp_path)


def test_several_gguf_files_leave_a_choice_to_the_user(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(RefusedError, match=r"has no config\.json\. Name one of its 2 GGUF files\."):
        read_fields(tmp_path)


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="nowhere: does not exist"):
        read_fields(tmp_path / "nowhere")


def test_code_that_a_model_directory_brings_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "some", "auto_map": {"AutoConfig": "evil.Config"}}')
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    read_fields(tmp_path)
    assert not (tmp_path / "canary").exists()
