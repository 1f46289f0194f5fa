"""Turn a plain model into one rank's part of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import paddle
from paddle import nn

from ...convert.load import fill
from ...errors import PluginError
from .arrays import cut
from .crossing import Entrance, Exit
from .gradients import sum_gradient, sum_gradient_of_copies
from .layers import ColumnLinear, RowLinear, VocabularyEmbedding
from .loss import VocabularyLoss
from .model import Split, SplitCausalLM
from .parts import even_span, find_parts, find_rules, in_block, kv_copies, splits_head
from .stream import RankStream

if TYPE_CHECKING:
    from ...causal_lm import CausalLM
    from ...registry.facts import ShardingRule
    from ..groups import Group
    from ..mesh import Mesh
    from ..slices import Part

SLOPES = "slopes_N"
"""Attribute of a layer that holds a constant for each query head; see ``CausalLM``."""


def parallelize(model: CausalLM, rules: Sequence[ShardingRule], mesh: Mesh) -> CausalLM:
    """Replace the layers of a model by this rank's parts of them, and return the model.

    Parameters keep their names. What has values is cut; what has none (a model built under ``LazyGuard``) gets the
    rank's shape and still no memory. A mesh without tensor parallelism changes nothing.

    Args:
        model: as the family built it; changed in place.
        rules: the family's sharding map.
        mesh: whose plan says whether activations are split along the sequence as well.

    Raises:
        PluginError: the map does not cover the parameters, or asks for a layer that cannot be split.
    """
    group = mesh.group("mp")
    if group.is_alone:
        return model
    return _Transformation(model, rules, group, sequence_parallel=mesh.plan.sequence_parallel).apply()


class _Transformation:
    """The work of ``parallelize`` on one model."""

    def __init__(
        self, model: CausalLM, rules: Sequence[ShardingRule], group: Group, *, sequence_parallel: bool
    ) -> None:
        self.model, self.rules, self.group = model, rules, group
        self.sequence_parallel = sequence_parallel
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self.rule_of = find_rules(shapes, rules)
        self.peers = [
            find_parts(shapes, model.config, rules, degree=group.size, index=index) for index in range(group.size)
        ]
        self.parts = self.peers[group.index]
        self.stream = RankStream(group.index) if model.config.drops_activations else None
        self.entrances: dict[str, Entrance] = {}

    def apply(self) -> CausalLM:
        for name, layer in list(self.model.named_sublayers()):
            self._replace(name, layer)
            if hasattr(layer, SLOPES) and getattr(layer, SLOPES) is not None:
                first, last = even_span(self.model.config.num_heads, self.group.size, self.group.index)
                setattr(layer, SLOPES, getattr(layer, SLOPES)[first:last])
        if self.sequence_parallel and self.stream is not None:
            for block in self.model.blocks:
                self.stream.around(block)
        self._sum_partial_gradients()
        return self._change_class()

    def _replace(self, name: str, layer: nn.Layer) -> None:
        """Put the rank's part in the place of a layer that is split."""
        rule = self.rule_of.get(f"{name}.weight")
        if rule is None or rule.kind == "replicate":
            return
        self._check_type(name, layer, nn.Embedding if rule.kind == "vocab" else nn.Linear)
        owner, _, last = name.rpartition(".")
        weight = _cut(layer.weight, self.parts[f"{name}.weight"])
        bias = getattr(layer, "bias", None)
        if bias is not None:
            bias = _cut(bias, self.parts[f"{name}.bias"])
        new: nn.Layer
        if rule.kind == "vocab":
            new = VocabularyEmbedding(weight, self.parts[f"{name}.weight"].slices[0].start[0], self.group)
        elif rule.kind == "column":
            new = ColumnLinear(weight, bias, self._entrance(owner) if in_block(name) else None)
        else:
            leave = Exit(self.group, self._local_stream, sequence_parallel=self.sequence_parallel)
            new = RowLinear(weight, bias, leave)
        setattr(self.model.get_sublayer(owner) if owner else self.model, last, new)

    @property
    def _local_stream(self) -> RankStream | None:
        """The stream to switch to between entrance and exit; in sequence parallelism whole blocks are inside it."""
        return None if self.sequence_parallel else self.stream

    def _entrance(self, owner: str) -> Entrance:
        if owner not in self.entrances:
            self.entrances[owner] = Entrance(self.group, self._local_stream, sequence_parallel=self.sequence_parallel)
        return self.entrances[owner]

    def _check_type(self, name: str, layer: nn.Layer, wanted: type) -> None:
        if type(layer) is not wanted:
            found, able = type(layer).__name__, wanted.__name__
            raise PluginError(f"the family's sharding map splits layer {name}, which is {found}, not {able}.")

    def _sum_partial_gradients(self) -> None:
        for name, parameter in self.model.named_parameters():
            rule = self.rule_of[name]
            if rule.kind == "replicate" and (rule.partial or (self.sequence_parallel and in_block(name))):
                sum_gradient(parameter, self.group)
            elif rule.layout == "kv_groups":
                sum_gradient_of_copies(parameter, self.group, copies=kv_copies(self.model.config, self.group.size))

    def _change_class(self) -> CausalLM:
        model, family = self.model, type(self.model)
        model.__class__ = type(f"Split{family.__name__}", (SplitCausalLM, family), {})
        assert isinstance(model, SplitCausalLM)
        head = splits_head(model.config, self.rules)
        model.split = Split(
            group=self.group, peers=self.peers, sequence_parallel=self.sequence_parallel, splits_head=head
        )
        if head:
            model.split_loss = VocabularyLoss(model.config.vocab_size, self.group)
        return model


def _cut(whole: Any, part: Part) -> Any:
    """Return a parameter of the rank's shape, with its part of the values where there are any."""
    with paddle.LazyGuard():
        local = nn.Layer().create_parameter(list(part.local_shape), dtype=whole.dtype)
    local.stop_gradient = whole.stop_gradient
    if whole._is_initialized():
        fill(local, cut(whole.numpy(), part))
    return local
