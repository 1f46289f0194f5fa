from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import paddle
import pytest

from llm_run.core.convert.fields import read_fields
from llm_run.core.convert.load import load_model
from llm_run.core.convert.tokenizer import load_tokenizer
from llm_run.core.ops.mask import AttentionMask
from llm_run.core.registry.manager import find_family


@pytest.fixture(scope="module")
def stories(project: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stories260K model as the example converts it."""
    directory = tmp_path_factory.mktemp("example") / "stories260K"
    files = [shared / "weights/stories260K" / name for name in ("stories260K.bin", "tok512.model")]
    subprocess.run([sys.executable, project / "examples/llama2c_to_hf.py", *files, directory], check=True)
    return directory


def test_the_greedy_story_is_that_of_llama2_c(stories: Path, shared: Path) -> None:
    expected = json.loads((shared / "weights/expected.json").read_text())["stories260K"]
    fields = read_fields(stories)
    family = find_family(fields)
    config = family.card.config_class.from_fields(fields)
    model = load_model(family, config, stories)
    ids = [1]
    with paddle.no_grad():
        while len(ids) < len(expected["greedy_ids_from_bos"]):
            positions = paddle.arange(len(ids)).unsqueeze(0)
            hidden = model(paddle.to_tensor([ids]), positions, AttentionMask())
            ids.append(model.head(hidden[:, -1]).argmax(-1).item())
    assert ids == expected["greedy_ids_from_bos"]
    assert load_tokenizer(family, config, stories).decode(ids)[:20] == "Once upon a time, th"


def test_transformers_tells_the_same_story(stories: Path, shared: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    expected = json.loads((shared / "weights/expected.json").read_text())["stories260K"]["greedy_ids_from_bos"]
    model = AutoModelForCausalLM.from_pretrained(stories)
    told = model.generate(torch.tensor([[1]]), do_sample=False, max_length=len(expected), eos_token_id=-1)
    assert told[0].tolist() == expected
