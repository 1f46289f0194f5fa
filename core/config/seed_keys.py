"""Keys of the seed's argument files that are not options here: what became of each, so that old files still work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ANY: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class SeedKey:
    """A key that is accepted and has no effect, as its note says."""

    note: str
    """Why it is not needed, or what replaces it; a sentence without a full stop."""
    harmless: tuple[Any, ...] = ANY
    """The values that change no number; any other one is refused. Empty: every value is harmless."""


OFF = (False, None, "", "false", 0)
_ONE_LOADER = "samples are made on the fly by one process, and never limit the speed"
_ALL_RANKS = "every process builds its own samples from the shared index"
_NO_AMP_LEVELS = "bf16 and fp16 always keep float32 master weights, as level O2 does"
_FUSED = "a kernel is chosen by machine, never by weight layout; weights stay unfused and files convert"
_HUB = "models are read from and written to folders; no model hub is contacted"
_COMM = "communication is scheduled by llm-run itself"

RETIRED: dict[str, SeedKey] = {
    "weight_double_quant_block_size": SeedKey("256 scales are rounded together", (256, None)),
    "skip_memory_metrics": SeedKey("memory is logged with every step"),
    "skip_profile_timer": SeedKey("step times are logged with every step"),
    "dataloader_num_workers": SeedKey(_ONE_LOADER),
    "lazy_data_processing": SeedKey(_ONE_LOADER),
    "distributed_dataloader": SeedKey(_ALL_RANKS),
    "share_folder": SeedKey(_ALL_RANKS),
    "data_impl": SeedKey("token files are always mapped into memory"),
    "skip_warmup": SeedKey("token files are always mapped into memory"),
    "dataloader_drop_last": SeedKey("training runs on over epochs, so no batch is short"),
    "eval_accumulation_steps": SeedKey("evaluation keeps sums, not logits"),
    "prediction_loss_only": SeedKey("evaluation keeps sums, not logits"),
    "past_index": SeedKey("no model here has it"),
    "label_names": SeedKey("labels have one name"),
    "remove_unused_columns": SeedKey("records hold only what the model takes"),
    "local_rank": SeedKey("the launcher gives each process its rank"),
    "no_cuda": SeedKey("use --device cpu", OFF),
    "fp16_opt_level": SeedKey(_NO_AMP_LEVELS),
    "amp_master_grad": SeedKey(_NO_AMP_LEVELS),
    "amp_custom_black_list": SeedKey(_NO_AMP_LEVELS),
    "amp_custom_white_list": SeedKey(_NO_AMP_LEVELS),
    "fp16_full_eval": SeedKey("evaluation uses the precision of training"),
    "bf16_full_eval": SeedKey("evaluation uses the precision of training"),
    "logging_strategy": SeedKey("use --logging_steps", ("steps",)),
    "logging_dir": SeedKey("logs are written to output_dir"),
    "log_on_each_node": SeedKey("the first process logs"),
    "run_name": SeedKey("a run is named by its output_dir"),
    "save_on_each_node": SeedKey("a checkpoint is written once, to a folder that all machines see"),
    "save_sharded_model": SeedKey("checkpoints are always sharded, and any plan can load them"),
    "load_sharded_model": SeedKey("checkpoints are always sharded, and any plan can load them"),
    "unified_checkpoint": SeedKey("checkpoints are always sharded, and any plan can load them"),
    "force_reshard_pp": SeedKey("checkpoints are always sharded, and any plan can load them"),
    "minimum_eval_times": SeedKey("use --eval_steps", OFF),
    "do_predict": SeedKey("use --task generate on the trained model"),
    "do_export": SeedKey("use --task export on the trained model"),
    "save_generation_output": SeedKey("answers of eval_with_do_generation are always kept, in predictions*.jsonl"),
    "ignore_data_skip": SeedKey("a resumed run goes on at the next sample, at no cost", OFF),
    "ignore_load_lr_and_optim": SeedKey("use --model_name_or_path with the checkpoint's model, as a new run", OFF),
    "optim": SeedKey("the optimizer is AdamW", ("adamw",)),
    "flatten_param_grads": SeedKey("the optimizer updates all parameters in one call"),
    "to_static": SeedKey("models run eagerly", OFF),
    "recompute_use_reentrant": SeedKey("there is one way of recomputing"),
    "no_recompute_layers": SeedKey("recompute is for all layers; it changes memory and time, not the result"),
    "pp_recompute_interval": SeedKey("recompute is for all layers; it changes memory and time, not the result"),
    "hidden_dropout_prob": SeedKey("dropout is part of the model's config.json"),
    "attention_probs_dropout_prob": SeedKey("dropout is part of the model's config.json"),
    "fuse_attention_qkv": SeedKey(_FUSED),
    "fuse_attention_ffn": SeedKey(_FUSED),
    "fuse_sequence_parallel_allreduce": SeedKey(_COMM),
    "enable_linear_fused_grad_add": SeedKey(_COMM),
    "tensor_parallel_config": SeedKey(_COMM),
    "pipeline_parallel_config": SeedKey(_COMM),
    "sharding_parallel_config": SeedKey(_COMM),
    "model_type": SeedKey("the family is read from the model directory, or given with --family"),
    "config_name": SeedKey("the configuration is read from model_name_or_path, or given with --model_size", OFF),
    "task_name": SeedKey("records are read from dataset_name_or_path", OFF),
    "task_name_or_path": SeedKey("records are read from dataset_name_or_path", OFF),
    "from_aistudio": SeedKey(_HUB, OFF),
    "save_to_aistudio": SeedKey(_HUB, OFF),
    "aistudio_repo_id": SeedKey(_HUB),
    "aistudio_repo_private": SeedKey(_HUB),
    "aistudio_repo_license": SeedKey(_HUB),
    "aistudio_token": SeedKey(_HUB),
    "inference_model": SeedKey("fused operators are chosen by machine"),
    "dtype": SeedKey("files of 16 bits are computed in float32 on CPU"),
    "export_precache": SeedKey("a prefix is read as it was saved"),
    "enable_memory_optim": SeedKey("memory is reused always"),
    "init_fleet_worker": SeedKey("processes are set up where they are needed"),
}

MODES = {
    "lora": "lora",
    "prefix_tuning": "prefix_tuning",
    "do_ptq": "ptq",
    "do_gptq": "gptq",
    "do_qat": "qat",
}
"""Switches of the seed that became tasks."""
