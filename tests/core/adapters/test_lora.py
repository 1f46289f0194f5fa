"""LoRA, rsLoRA, DoRA and PiSSA against Hugging Face PEFT on the same weights."""

from __future__ import annotations

import json

import numpy as np
import paddle
import peft
import pytest
import torch

from llm_run.core.adapters.files import collect, new_adapter, open_adapter, put_adapter, save_adapter
from llm_run.core.adapters.frozen import PlainMatrix
from llm_run.core.adapters.lora import apply_lora, find_targets, lora_layers, merge_in_place
from llm_run.core.adapters.low_rank import linear_with_product
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.config.training import TrainingOptions
from llm_run.core.convert.load import load_model
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.errors import LlmRunError, RefusedError
from llm_run.core.ops import AttentionMask
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.ownership import share_out
from llm_run.core.parallel.sharding import hold
from llm_run.core.trainer.agreement import Agreement
from llm_run.core.trainer.objective import NextToken
from llm_run.core.trainer.optimizer import AdamW
from llm_run.core.trainer.precision import Precision
from llm_run.core.trainer.step import MicroBatch, TrainStep

KINDS = [{}, {"use_rslora": True}, {"use_dora": True}]


def logits_of(model, ids):
    positions = paddle.to_tensor(np.broadcast_to(np.arange(ids.shape[1]), ids.shape).astype(np.int64))
    return model.head(model(paddle.to_tensor(ids), positions, AttentionMask()))


def peft_model(theirs, **kind):
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM", **kind
    )
    model = peft.get_peft_model(theirs, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            with torch.no_grad():
                parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("kind", KINDS, ids=["lora", "rslora", "dora"])
def test_an_adapter_of_peft_gives_its_logits_and_gradients_here(kind, ours, theirs, ids, tmp_path):
    adapted = peft_model(theirs, **kind)
    adapted.save_pretrained(tmp_path)
    family, config, model = ours
    put_adapter(model, open_adapter(family, config, tmp_path))
    model.train()
    logits, expected = logits_of(model, ids), adapted(torch.tensor(ids)).logits
    np.testing.assert_allclose(logits.numpy(), expected.detach().numpy(), atol=1e-5, rtol=1e-5)

    logits.square().mean().backward()
    expected.square().mean().backward()
    layer = lora_layers(model)["blocks.1.attention.v_proj"]
    other = adapted.base_model.model.model.layers[1].self_attn.v_proj
    assert layer.weight.grad is None and layer.weight.stop_gradient
    pairs = [(layer.lora_A, other.lora_A.default.weight), (layer.lora_B, other.lora_B.default.weight)]
    for mine, their in pairs:
        np.testing.assert_allclose(mine.grad.numpy(), their.grad.numpy().T, atol=1e-5, rtol=1e-4)
    if kind.get("use_dora"):
        magnitude = other.lora_magnitude_vector.default.weight
        np.testing.assert_allclose(layer.lora_magnitude.grad.numpy(), magnitude.grad.numpy(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS, ids=["lora", "rslora", "dora"])
def test_a_clipped_training_step_makes_of_an_adapter_what_torch_and_peft_make_of_it(kind, ours, theirs, ids, tmp_path):
    adapted = peft_model(theirs, **kind)
    adapted.save_pretrained(tmp_path)
    family, config, model = ours
    put_adapter(model, open_adapter(family, config, tmp_path))
    options = TrainingOptions(weight_decay=0.1, max_grad_norm=0.5)
    result = training_step(model, options).run([MicroBatch(collate(rows(ids), config, 0), 0)], 1e-2)

    loss = adapted(torch.tensor(ids), labels=torch.tensor(ids)).loss
    loss.backward()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trained, 0.5)
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.grad_norm == pytest.approx(norm.item(), rel=1e-5) and norm > 1
    # Ours decays matrices alone, and DoRA's lengths are none.
    matrices, lengths = ([p for p in trained if (p.ndim > 1) == is_matrix] for is_matrix in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": lengths, "weight_decay": 0.0}]
    torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.999), eps=1e-8).step()
    for name, layer in lora_layers(model).items():
        module = adapted.get_submodule(f"base_model.model.model.{foreign(name)}")
        pairs = [(layer.lora_A, module.lora_A.default.weight.T), (layer.lora_B, module.lora_B.default.weight.T)]
        if layer.lora_magnitude is not None:
            pairs.append((layer.lora_magnitude, module.lora_magnitude_vector.default.weight))
        for mine, their in pairs:
            np.testing.assert_allclose(mine.numpy(), their.detach().numpy(), atol=1e-6, rtol=1e-5)
    model.eval()
    expected = adapted(torch.tensor(ids)).logits.detach().numpy()
    assert np.abs(logits_of(model, ids).numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def rows(ids):
    """Each row of ids as one text."""
    ones = np.ones(ids.shape[1], dtype=np.int32)
    return [Sample(row, np.append(row[1:], IGNORED), ones, ones < 1) for row in ids]


def training_step(model, options):
    """A step as the training loop makes it, of one process."""
    mesh = Mesh()
    model.train()
    holding = hold(model, mesh)
    agreement = Agreement(mesh, holding.parts, share_out(holding.parts, mesh).owned)
    return TrainStep(model, AdamW(holding, options), Precision(options), agreement, NextToken(), seed=1)


def foreign(name):
    """The name that transformers has for a layer of a llama."""
    return name.replace("blocks", "layers").replace("attention", "self_attn").replace("feed_forward", "mlp")


@pytest.mark.parametrize("kind", KINDS, ids=["lora", "rslora", "dora"])
def test_an_adapter_saved_here_gives_equal_logits_in_peft(kind, ours, theirs, ids, tmp_path):
    family, config, model = ours
    settings = LoraSettings(
        rank=4, alpha=6, rslora=kind.get("use_rslora", False), dora=kind.get("use_dora", False),
        targets=("q_proj", "v_proj", "down_proj"),
    )  # fmt: skip
    new_adapter(model, family, settings)
    _disturb(model)
    save_adapter(collect(model), family, config, settings, tmp_path, base="llama")
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path)
    expected = adapted(torch.tensor(ids)).logits.detach().numpy()
    np.testing.assert_allclose(logits_of(model, ids).numpy(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [{}, {"dora": True}, {"pissa": True}], ids=["lora", "dora", "pissa"])
def test_a_merged_model_gives_the_logits_of_the_adapted_one(kind, ours, ids):
    family, _, model = ours
    new_adapter(model, family, LoraSettings(rank=3, alpha=5, **kind))
    _disturb(model)
    expected = logits_of(model, ids).numpy()
    merge_in_place(model)
    np.testing.assert_allclose(logits_of(model, ids).numpy(), expected, atol=2e-5, rtol=1e-5)
    assert not any("lora_" in name for name, _ in model.named_parameters())


def test_a_new_adapter_changes_nothing(ours, ids):
    family, _, model = ours
    before = logits_of(model, ids).numpy()
    for settings in (LoraSettings(rank=2, alpha=4), LoraSettings(rank=2, alpha=4, dora=True)):
        new_adapter(model, family, settings)
        np.testing.assert_allclose(logits_of(model, ids).numpy(), before, atol=1e-5)
        merge_in_place(model)


def test_pissa_begins_with_singular_values_and_is_saved_as_lora_of_twice_the_rank(ours, ids, tmp_path, llama_dir):
    family, config, model = ours
    before = logits_of(model, ids).numpy()
    settings = LoraSettings(rank=2, alpha=4, pissa=True, targets=("o_proj",))
    new_adapter(model, family, settings)
    np.testing.assert_allclose(logits_of(model, ids).numpy(), before, atol=1e-5)
    layer = lora_layers(model)["blocks.0.attention.o_proj"]
    weight = layer.weight.numpy()
    left, values, right = np.linalg.svd(weight)
    begun = settings.scaling * layer.lora_A.numpy() @ layer.lora_B.numpy()
    np.testing.assert_allclose(begun, (left[:, :2] * values[:2]) @ right[:2], atol=1e-5)
    _disturb(model)
    save_adapter(collect(model), family, config, settings, tmp_path, base="llama")
    saved = open_adapter(family, config, tmp_path)
    assert {tensors.rank for tensors in saved.layers.values()} == {4}
    plain = put_adapter(load_model(family, config, llama_dir), saved)
    np.testing.assert_allclose(logits_of(plain, ids).numpy(), logits_of(model, ids).numpy(), atol=2e-5, rtol=1e-5)


def test_targets_are_last_components_patterns_or_all(ours):
    family, _, model = ours

    def found(*targets):
        return find_targets(model, family, LoraSettings(rank=1, alpha=1, targets=targets))

    assert found("q_proj") == ["blocks.0.attention.q_proj", "blocks.1.attention.q_proj"]
    assert found(r"blocks\.1\.feed_forward\..*") == [f"blocks.1.feed_forward.{n}_proj" for n in ("gate", "up", "down")]
    assert len(found("all")) == 14 and "lm_head" not in found("all")
    assert "lm_head" in found("all", "lm_head")
    assert len(find_targets(model, family, LoraSettings(rank=1, alpha=1))) == 14


def test_a_target_that_is_no_layer_is_refused_with_those_there_are(ours):
    family, _, model = ours
    with pytest.raises(RefusedError, match=r"'query_key_value' is no linear layer of llama.*q_proj"):
        find_targets(model, family, LoraSettings(rank=1, alpha=1, targets=("query_key_value",)))


def test_only_the_adapter_is_trained(ours):
    model = ours[2]
    apply_lora(model, ["blocks.0.attention.q_proj"], LoraSettings(rank=2, alpha=4))
    trained = [name for name, parameter in model.named_parameters() if not parameter.stop_gradient]
    assert trained == ["blocks.0.attention.q_proj.lora_A", "blocks.0.attention.q_proj.lora_B"]


def _disturb(model):
    generator = np.random.default_rng(2)
    for layer in lora_layers(model).values():
        for tensor in (layer.lora_A, layer.lora_B, layer.lora_magnitude):
            if tensor is not None:
                noise = generator.standard_normal(tensor.shape).astype(np.float32)
                tensor.set_value(tensor.numpy() + 0.1 * noise)


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_of_paddlenlp_gives_the_formula_of_its_layers(rslora, ours, ids, tmp_path):
    family, config, model = ours
    generator = np.random.default_rng(7)
    sizes = {"q_proj": (32, 32), "v_proj": (32, 16)}
    pairs, state = {}, {}
    for name, (in_size, out_size) in sizes.items():
        a, b = (generator.standard_normal(shape).astype("float32") for shape in ((in_size, 3), (3, out_size)))
        pairs[name] = 0.1 * a, b
        state |= {f"llama.layers.1.self_attn.{name}.lora_A": 0.1 * a, f"llama.layers.1.self_attn.{name}.lora_B": b}
    paddle.save(state, str(tmp_path / "lora_model_state.pdparams"))
    fields = {"r": 3, "lora_alpha": 6, "target_modules": [".*q_proj.*", ".*v_proj.*"], "rslora": rslora}
    (tmp_path / "lora_config.json").write_text(json.dumps(fields))
    adapter = open_adapter(family, config, tmp_path)
    assert adapter.settings.scaling == pytest.approx(6 / (3**0.5 if rslora else 3))

    expected = {}
    for name, (a, b) in pairs.items():
        weight = model.get_sublayer(f"blocks.1.attention.{name}").weight
        expected[name] = weight.numpy() + adapter.settings.scaling * a @ b
    merge_in_place(put_adapter(model, adapter))
    for name, values in expected.items():
        merged = model.get_sublayer(f"blocks.1.attention.{name}").weight.numpy()
        np.testing.assert_allclose(merged, values, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"peft_type": "LOHA"}, "'LOHA' is not LORA"), ({"bias": "all"}, "bias: all is not supported"),
     ({"r": "four"}, "r is 'four', not a number above 0"), ({"use_dora": True}, "say different things")],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_field(fields, said, ours, theirs, tmp_path):
    family, config, _ = ours
    peft_model(theirs).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(LlmRunError, match=said):
        open_adapter(family, config, tmp_path)


def test_a_layer_with_a_rank_and_an_alpha_of_its_own_keeps_its_scale(ours, theirs, ids, tmp_path):
    adapted = peft_model(theirs, rank_pattern={"v_proj": 2}, alpha_pattern={"v_proj": 10})
    adapted.save_pretrained(tmp_path)
    family, config, model = ours
    put_adapter(model, open_adapter(family, config, tmp_path))
    expected = adapted(torch.tensor(ids)).logits.detach().numpy()
    np.testing.assert_allclose(logits_of(model, ids).numpy(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_product_in_one_operator_has_the_gradients_of_its_formula(dropout):
    generator = np.random.default_rng(4)
    shapes = {"x": (2, 5, 8), "weight": (8, 6), "a": (8, 3), "b": (3, 6)}
    arrays = {name: generator.standard_normal(shape).astype("float32") for name, shape in shapes.items()}
    kept = paddle.to_tensor((generator.random((2, 5, 8)) > dropout).astype("float32"))
    found = []
    for is_fused in (True, False):
        x, weight, a, b = (paddle.to_tensor(array) for array in arrays.values())
        for tensor in (x, a, b):
            tensor.stop_gradient = False
        dropped = x * kept if dropout else x
        if is_fused:
            out = linear_with_product(x, dropped, PlainMatrix(weight), a, b, 1.5)
        else:
            out = paddle.matmul(x, weight) + 1.5 * paddle.matmul(paddle.matmul(dropped, a), b)
        out.square().sum().backward()
        found.append([out.numpy(), x.grad.numpy(), a.grad.numpy(), b.grad.numpy()])
        assert weight.grad is None
    for mine, plain in zip(*found, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=2e-5, atol=2e-5)
