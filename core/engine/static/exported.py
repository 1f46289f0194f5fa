"""An exported model, run by Paddle's inference library.

Nothing that is loaded is run as Python: the program is JSON that names operators of Paddle's own, the weights are raw
tensors, and the hashes of both were compared with the report's before.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle

from ...errors import WeightError
from ...ops.native import num_threads
from ...ops.select import plain_operators
from ..decode import stream
from ..runner import inference
from .graph import DecodingGraph
from .manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from paddle import Tensor

    from ...causal_lm import CausalLM
    from ...data.tokenizer import Tokenizer
    from ...registry.facts import ModelConfig
    from ...run import Run
    from ..request import Request, TokenEvent
    from ..runner import Batch
    from .manifest import Manifest


class ExportedModel:
    """A graph with its weights (``BatchModel``)."""

    def __init__(self, manifest: Manifest, config: ModelConfig) -> None:
        """Load the graph onto the current device.

        Args:
            manifest: of the directory; its hashes have been checked.
            config: of the model; positions that a prefix takes are left out of it.

        Raises:
            WeightError: Paddle cannot load the graph.
        """
        self.config, self._manifest = config, manifest
        try:
            self._predictor = _load(manifest)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise WeightError(f"{manifest.graph_path()}: Paddle cannot load the graph: {reason}.") from error
        found = tuple(self._predictor.get_input_names())
        if found != manifest.inputs:
            raise WeightError(f"{manifest.graph_path()}: asks for {found}, and report.json says {manifest.inputs}.")

    def begin(self, num_rows: int) -> Batch:
        """Return an empty batch of so many rows."""
        return _GraphBatch(self, num_rows)

    def run(self, given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of the last token [B, V], and keys and values of all tokens [L, B, P, K, D].

        Args:
            given: by name, more than the graph asks for.
        """
        logits_BV, keys, values = self._predictor.run([given[name] for name in self._manifest.inputs])
        return logits_BV, keys, values


class UndrawnModel:
    """The operators of a graph, one by one, as they are before it is drawn (``BatchModel``)."""

    def __init__(self, model: CausalLM) -> None:
        """Take a model that is ready for inference."""
        self.config, self._graph = model.config, DecodingGraph(model)

    def begin(self, num_rows: int) -> Batch:
        """Return an empty batch of so many rows."""
        return _GraphBatch(self, num_rows)

    def run(self, given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what ``ExportedModel.run`` returns."""
        with inference(self._graph.model), plain_operators():
            return self._graph([given[name] for name in self._graph.names])  # type: ignore[no-any-return]


class _GraphBatch:
    """The keys and values of some rows (``Batch``)."""

    def __init__(self, model: ExportedModel | UndrawnModel, num_rows: int) -> None:
        config = model.config
        empty = paddle.zeros([config.num_layers, num_rows, 0, config.num_kv_heads, config.head_dim])
        self._model, self._keys, self._values = model, empty, empty

    def forward(
        self, ids_BS: np.ndarray, positions: np.ndarray, segments_BT: np.ndarray, prompt_BT: np.ndarray | None
    ) -> Tensor:
        given = {
            "input_ids": ids_BS,
            "positions": positions,
            "attention_mask": segments_BT.astype(np.int64),
        }
        if prompt_BT is not None:
            given["prompt_mask"] = np.ascontiguousarray(prompt_BT[:, -ids_BS.shape[1] :], dtype=np.int64)
        tensors = {name: paddle.to_tensor(np.ascontiguousarray(array)) for name, array in given.items()}
        tensors |= {"keys": self._keys, "values": self._values}
        logits_BV, self._keys, self._values = self._model.run(tensors)
        return logits_BV

    def reorder(self, rows: Sequence[int]) -> None:
        index = paddle.to_tensor(list(rows), dtype="int64")
        self._keys, self._values = (paddle.index_select(side, index, axis=1) for side in (self._keys, self._values))


def _load(manifest: Manifest) -> paddle.inference.Predictor:
    from paddle import inference

    config = inference.Config(str(manifest.graph_path()), str(manifest.weights_path()))
    device, _, number = paddle.device.get_device().partition(":")
    if device == "gpu":
        config.enable_use_gpu(GPU_POOL_MB, int(number or 0))
    else:
        config.disable_gpu()
        # Paddle's own kernels give the logits of the network to the bit; oneDNN's differ in the last digits, and it
        # prints a line for each reduction.
        config.disable_mkldnn()
        config.set_cpu_math_library_num_threads(num_threads())
    config.disable_glog_info()
    return inference.create_predictor(config)


GPU_POOL_MB = 256
"""Memory that Paddle reserves at first; it grows."""


def load_exported(run: Run) -> ExportedModel:
    """Load the exported directory of ``--model_name_or_path``, after comparing every file with its hash.

    Raises:
        RefusedError: it holds no exported graph.
        WeightError: a file is missing, changed or malformed.
    """
    path = run.config.model.model_name_or_path
    assert path is not None, "core/engine/static/checks.py asks for it"
    manifest = read_manifest(Path(path))
    manifest.verify()
    config = run.model_config
    return ExportedModel(manifest, replace(config, max_positions=config.max_positions - manifest.prefix_positions))


class ExportedAnswers:
    """Answers one request at a time, as an engine does for a conversation."""

    def __init__(self, model: ExportedModel, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer

    def submit(self, request: Request) -> ExportedAnswer:
        """Take a request in; it is computed while its events are read.

        Raises:
            RefusedError: it can never fit.
        """
        request.room(self._model.config)
        return ExportedAnswer(stream(self._model, [request], tokenizer=self._tokenizer))


class ExportedAnswer:
    """The events of one answer."""

    def __init__(self, events: Generator[TokenEvent]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[TokenEvent]:
        return self._events

    def cancel(self) -> None:
        """Compute no more of it."""
        self._events.close()
