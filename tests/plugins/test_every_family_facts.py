"""What every installed family states about itself is complete, and agrees with the network that it builds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from paddle import nn

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.weights import expand
from llm_run.core.errors import LlmRunError, RefusedError
from llm_run.core.registry.facts import Layout
from llm_run.core.registry.features import BY_NAME
from llm_run.core.registry.manager import find_family


def matches(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern with ``*`` for a layer number stands for."""
    expression = re.escape(pattern).replace(r"\*", r"\d+")
    return [name for name in names if re.fullmatch(expression, name)]


def linears(model: CausalLM) -> list[str]:
    return [name for name, layer in model.named_sublayers() if isinstance(layer, nn.Linear)]


def test_every_parameter_has_exactly_one_sharding_rule(variant: Any, model: CausalLM) -> None:
    rules = variant.family.sharding_map(variant.config)
    names = list(parameters(model))
    covered = [name for rule in rules for name in matches(rule.pattern, names)]
    assert sorted(covered) == sorted(names)
    assert not [rule.pattern for rule in rules if not matches(rule.pattern, names)]


def test_sharding_rules_split_axes_that_are_there(variant: Any, model: CausalLM) -> None:
    shapes = {name: parameter.shape for name, parameter in parameters(model).items()}
    for rule in variant.family.sharding_map(variant.config):
        for name in matches(rule.pattern, shapes):
            assert len(shapes[name]) == 2 or rule.kind in ("replicate", "column"), name


def test_every_parameter_belongs_to_exactly_one_pipeline_piece(variant: Any, model: CausalLM) -> None:
    pieces = variant.family.pipeline_split(variant.config)
    names = list(parameters(model))
    covered = [name for piece in pieces for prefix in piece.parameters for name in names if name.startswith(prefix)]
    assert sorted(covered) == sorted(names)


def test_pipeline_pieces_stand_in_forward_order(variant: Any, model: CausalLM) -> None:
    pieces = variant.family.pipeline_split(variant.config)
    blocks = [f"blocks.{index}" for index in range(variant.config.num_layers)]
    assert [piece.name for piece in pieces] == ["embed", *blocks, "finish", "head"]
    assert pieces[-1].shares == ("embed_tokens." if variant.config.tie_embeddings else "")
    assert len(model.blocks) == variant.config.num_layers


@pytest.mark.parametrize("layout", ["hf", "paddlenlp", "gguf"])
def test_every_parameter_has_exactly_one_weight_rule(variant: Any, model: CausalLM, layout: Layout) -> None:
    weight_map = variant.family.weight_map(variant.config, layout)
    if weight_map is None:
        declared = variant.family.capabilities(variant.config).get(layout)
        assert declared is None or declared.support == "no"
        return
    steps = expand(weight_map, variant.config.num_layers)
    assert sorted(name for step in steps for name in step.ours) == sorted(parameters(model))
    foreign = [name for step in steps for name in step.theirs]
    assert len(set(foreign)) == len(foreign)
    assert set(weight_map.tied.values()) <= set(foreign)
    assert not set(weight_map.tied) & set(foreign)


def test_every_linear_but_the_head_is_in_exactly_one_quantization_group(variant: Any, model: CausalLM) -> None:
    groups = variant.family.quantizable_layers(variant.config)
    head = variant.family.pipeline_split(variant.config)[-1].parameters
    names = [name for name in linears(model) if not f"{name}.".startswith(tuple(head) or "\0")]
    grouped = [name for group in groups for pattern in group.linears for name in matches(pattern, names)]
    assert sorted(grouped) == sorted(names)


def test_quantization_groups_read_one_input_behind_their_norm(variant: Any, model: CausalLM) -> None:
    layers = dict(model.named_sublayers())
    for group in variant.family.quantizable_layers(variant.config):
        members = [layers[name] for pattern in group.linears for name in matches(pattern, layers)]
        assert len({layer.weight.shape[0] for layer in members}) == 1
        if group.norm:
            norms = [layers[name] for name in matches(group.norm, layers)]
            assert len(norms) * len(group.linears) == len(members)
            assert {norm.weight.shape[0] for norm in norms} == {members[0].weight.shape[0]}


def test_lora_targets_are_linear_layers(variant: Any, model: CausalLM) -> None:
    last = {name.rsplit(".", 1)[-1] for name in linears(model)}
    assert set(variant.family.card.lora_targets) & last
    every_size = {
        name.rsplit(".", 1)[-1]
        for size, config in variant.family.card.sizes.items()
        if size.startswith("tiny")
        for name in linears(variant.family.build_model(config))
    }
    assert set(variant.family.card.lora_targets) <= every_size


def test_every_size_comes_back_from_its_config_json(family: Any) -> None:
    for name, config in family.card.sizes.items():
        fields = config.to_fields()
        assert type(config).from_fields(fields) == config, name
        assert fields["model_type"] in family.card.model_types, name
        assert set(fields["architectures"]) <= set(family.card.architectures), name
        assert find_family(fields).card.name == family.card.name, name


def test_an_empty_config_json_is_refused_by_name(family: Any) -> None:
    for model_type in family.card.model_types:
        with pytest.raises(RefusedError) as refusal:
            family.card.config_class.from_fields({"model_type": model_type})
        assert re.search(r"config\.json: vocab_size: is missing\. ", str(refusal.value))


def test_features_are_known_and_each_yes_names_a_test_that_exists(variant: Any, project: Path) -> None:
    for name, support in variant.family.capabilities(variant.config).items():
        assert name in BY_NAME
        if support.support != "yes":
            assert support.reason
            continue
        file, _, test = support.proof.partition("::")
        if variant.family.distribution != "llm-run" and not (project / file).exists():
            continue  # a test of the plugin's own, in its own project
        assert f"def {test.partition('[')[0]}(" in (project / file).read_text(), support.proof


def test_a_folder_without_tokenizer_is_refused_with_the_files_that_are_read(family: Any, tmp_path: Path) -> None:
    with pytest.raises(LlmRunError, match=re.escape(str(tmp_path))) as refusal:
        family.tokenizer(family.card.sizes["tiny"], tmp_path)
    assert fnmatchcase(str(refusal.value), "*read: *.")
