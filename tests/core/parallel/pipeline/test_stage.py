from __future__ import annotations

from pathlib import Path
from typing import Any

import paddle
import pytest

from llm_run.core.convert.logical import parameters
from llm_run.core.convert.save import save_model_directory
from llm_run.core.errors import PluginError
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.pipeline.stage import cut_family, forget
from llm_run.core.parallel.tensor.build import build_random, load_part
from llm_run.core.registry.manager import installed, load_family

VARIANTS = [(name, size) for name in installed().families for size in load_family(name).card.sizes if "tiny" in size]


@pytest.mark.parametrize(("name", "size"), VARIANTS)
def test_every_parameter_of_every_family_is_on_one_stage_or_shared_by_first_and_last(name: str, size: str) -> None:
    family = load_family(name)
    config = family.card.sizes[size]
    names = list(parameters(family.build_model(config)))
    cut = cut_family(family, config, stages=3)
    for parameter in names:
        holders = [stage for stage in range(3) if cut.holds(stage, parameter)]
        assert len(holders) == 1 or (holders == [0, 2] and config.tie_embeddings and cut.is_shared(parameter))
    assert any(cut.is_shared(parameter) for parameter in names) == config.tie_embeddings


def test_a_family_that_cannot_be_cut_is_named() -> None:
    family = load_family("llama")

    class Uncut:
        source = family.source

        def pipeline_split(self, config: Any) -> None:
            return None

    with pytest.raises(PluginError, match=r"llama .* lacks llm_run_pipeline_split, without which it cannot be cut"):
        cut_family(Uncut(), family.card.sizes["tiny"], stages=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", [0, 1])
def test_a_stage_is_drawn_like_the_whole_model_and_holds_nothing_else(stage: int) -> None:
    family = load_family("llama")
    config = family.card.sizes["tiny-tied"]
    cut = cut_family(family, config, stages=2)
    paddle.seed(3)
    whole = parameters(family.build_model(config))
    paddle.seed(3)
    drawn = parameters(build_random(family, config, Mesh(), wanted=lambda name: cut.holds(stage, name)))
    assert list(drawn) == [name for name in whole if cut.holds(stage, name)]
    assert all(parameter._is_initialized() and (parameter == whole[name]).all() for name, parameter in drawn.items())


def test_a_stage_is_loaded_from_a_model_directory_of_which_it_reads_its_own_tensors(tmp_path: Path) -> None:
    family = load_family("opt")
    config = family.card.sizes["tiny"]
    cut = cut_family(family, config, stages=2)
    model = family.build_model(config)
    save_model_directory(model, family, config, None, tmp_path / "model")
    read: list[str] = []
    loaded = parameters(
        load_part(
            family, config, tmp_path / "model", Mesh(), wanted=lambda name: cut.holds(1, name), on_tensor=read.append
        )
    )
    whole = parameters(model)
    assert sorted(read) == sorted(loaded) == sorted(name for name in whole if cut.holds(1, name))
    assert "embed_tokens.weight" in loaded and "embed_positions.weight" not in loaded  # the head is tied
    assert all((parameter == whole[name]).all() for name, parameter in loaded.items())


def test_a_forgotten_parameter_is_gone_and_the_others_keep_their_names() -> None:
    family = load_family("llama")
    model = family.build_model(family.card.sizes["tiny"])
    before = list(parameters(model))
    for name in ("blocks.1.attention.q_proj.weight", "embed_tokens.weight"):
        forget(model, name)
        before.remove(name)
    assert list(parameters(model)) == before
