"""The frozen model under an adapter, built so that its matrices are codes where that is asked for (QLoRA)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..convert.dtypes import to_float32
from ..convert.load import build_empty, fill
from ..convert.logical import open_logical, parameters
from ..convert.quantized_source import QuantizedSource
from ..convert.source import open_tensors
from ..errors import Problem, RefusedError
from ..ops.nf4 import round_to_nf4
from ..parallel.model_part import ModelPart, build_part
from ..quant.formats.int8 import Int8Format
from ..quant.grid import GridSpec, round_to_nearest
from ..quant.groups import groups_of_block
from ..quant.layer import pack_weight, put_layers, quantized_layers
from ..quant.load import load_integers
from ..quant.plan import choose_group_size
from .coded_linear import CodedLinear, encode_layers
from .settings import NF4, QUANTIZED_BITS, trained_lora

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..causal_lm import CausalLM
    from ..parallel.mesh import Mesh
    from ..registry.facts import ModelConfig
    from ..registry.family import Family
    from ..run import Run
    from .coded_linear import Coder

NF4_BLOCK = 64
"""Weights that share a scale by default. Source: Dettmers et al. 2023, arXiv:2305.14314, section 3."""


def build_base(run: Run, mesh: Mesh, weights: Path | None, *, shares_rows: bool = True) -> ModelPart:
    """Build what this rank has of the model that an adapter is trained on.

    With ``weight_quantize_algo`` each matrix becomes codes as soon as it is read, so that the model is never in
    memory as floats (a pipeline stage reads all of its part first). A directory of weight-only integers (``ptq``,
    ``gptq``, AWQ) stays integers; where ranks share its layers it is widened, which computes the same.

    Args:
        run: trains or evaluates an adapter.
        mesh: of the run.
        weights: model directory or weight file; ``None`` draws random ones.
        shares_rows: in sharding stage 3 each rank gets its rows only (see ``build_part``), unless an adapter or codes
            begin as something computed from whole matrices.

    Raises:
        RefusedError: the model is quantized already, or its family states no quantizable layers.
        WeightError: the file is damaged, unsafe, or does not fit the model.
    """
    algorithm = run.config.adapter.weight_quantize_algo
    source = None if weights is None else open_tensors(weights)
    if algorithm is None:
        rounds_inputs = isinstance(source, QuantizedSource) and isinstance(source.format, Int8Format)
        if isinstance(source, QuantizedSource) and not rounds_inputs and _is_whole(mesh):
            return ModelPart(_as_coded(load_integers(run.family, run.model_config, source)))
        lora = trained_lora(run)
        shares_rows = shares_rows and not (lora is not None and lora.reads_matrices)
        return build_part(run.family, run.model_config, mesh, weights, shares_rows=shares_rows)
    names = coded_names(run.family, run.model_config)
    if names is None or isinstance(source, QuantizedSource):
        found = "states no quantizable layers" if names is None else "is quantized already"
        what = run.config.family if names is None else str(weights)
        raise RefusedError(Problem("--weight_quantize_algo", algorithm, f"cannot be done: {what} {found}"))
    if weights is not None and _is_whole(mesh):
        return ModelPart(_load_coded(run, weights, names))
    part = build_part(run.family, run.model_config, mesh, weights, shares_rows=False)
    encode_layers(part.model, names, _coder(run, names, build_empty(run.family, run.model_config)))
    return part


def _is_whole(mesh: Mesh) -> bool:
    """Whether this rank has all of the model."""
    return mesh.plan.mp == mesh.plan.pp == mesh.plan.sep == 1


def coded_names(family: Family, config: ModelConfig) -> list[str] | None:
    """Return the layers whose matrices may be codes, ``None`` where the family does not say."""
    groups = family.quantizable_layers(config)
    if groups is None:
        return None
    blocks = range(config.num_layers)
    return [name for block in blocks for group in groups_of_block(groups, block) for name in group.linears]


def _coder(run: Run, names: Sequence[str], shapes: CausalLM) -> Coder:
    """Return what rounds a matrix; ``shapes`` has those of all layers.

    Raises:
        RefusedError: the block size does not divide a layer.
    """
    options = run.config.adapter
    algorithm, size = options.weight_quantize_algo, options.weight_blocksize
    if algorithm == NF4:
        return lambda weight_OI: round_to_nf4(weight_OI, size or NF4_BLOCK, double=options.weight_double_quant)
    assert algorithm is not None
    bits = QUANTIZED_BITS[algorithm]
    in_sizes = [int(shapes.get_sublayer(name).weight.shape[0]) for name in names]
    spec = GridSpec(bits, choose_group_size(size, bits, in_sizes))
    return lambda weight_OI: pack_weight(*round_to_nearest(weight_OI, spec))


def _load_coded(run: Run, path: Path, names: Sequence[str]) -> CausalLM:
    """Read a model tensor by tensor, and keep some matrices as codes."""
    source = open_tensors(path)
    model = build_empty(run.family, run.model_config)
    targets, coder, wanted = parameters(model), _coder(run, names, model), set(names)
    shapes = {name: tuple(parameter.shape) for name, parameter in targets.items()}
    tensors = open_logical(run.family, run.model_config, source, shapes)
    for name in tensors.shapes:
        values, layer = to_float32(tensors.read(name), tensors.dtype(name)), name.removesuffix(".weight")
        if layer in wanted:
            put_layers(model, {layer: CodedLinear(coder(values.T.copy()), model.get_sublayer(layer).bias)})
        else:
            fill(targets[name], values)
    return model


def _as_coded(model: CausalLM) -> CausalLM:
    """Let gradients through the integer layers of a model that was read."""
    put_layers(
        model, {name: CodedLinear(layer.quantized, layer.bias) for name, layer in quantized_layers(model).items()}
    )
    return model
