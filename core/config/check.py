"""Rules between options: what a task requires, and which values exclude each other. Imports no Paddle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from ..adapters.settings import check_lora_path, check_merge
from ..engine.static.checks import check_export
from ..errors import Problem, RefusedError
from ..evaluation.checks import check_evaluation, check_generation_in_training, check_metric
from ..parallel.membership import parse_address
from ..quant.settings import check_quantization
from ..run import RunConfig
from .groups import LaunchOptions
from .option import ADAPTING, ASKING, DECODING, NOISY, QUANTIZING, RECORDS, TRAINING

SHARDING_STAGES = ("stage1", "stage2", "stage3")
GGUF_SUFFIX = ".gguf"
MODEL_IS_NEEDED = (*TRAINING, *ASKING)


def check_config(config: RunConfig) -> list[Problem]:
    """Return every problem that can be seen from the options alone, without the model."""
    problems = [*_required(config), *_model(config), *_written(config), *_launch(config)]
    problems += [*check_lora_path(config.adapter.lora_path), *check_export(config)]
    if config.task == "merge_lora":
        problems += check_merge(config.model.model_name_or_path)
    if config.task in TRAINING:
        problems += _training(config)
    if config.task in (*RECORDS, *QUANTIZING):
        problems += _lengths(config)
    if config.task in (*QUANTIZING, *ASKING, "export"):
        problems += check_quantization(config)
    if config.task in DECODING:
        problems += _decoding(config)
    if config.task == "serve":
        problems += _serving(config)
    if config.task in (*DECODING, "serve"):
        problems += _guessing(config)
    if config.task == "evaluate":
        problems += _evaluation(config)
    if config.task in NOISY:
        problems += check_generation_in_training(config)
    if config.task in ("pretrain", *NOISY):
        problems += check_metric(config)
    return problems


def _guessing(config: RunConfig) -> Iterator[Problem]:
    options = config.decoding
    if options.num_draft_tokens < 0:
        yield Problem("--num_draft_tokens", str(options.num_draft_tokens), "must be 0 or more")
    if options.num_draft_tokens > 0 and config.task == "generate" and options.decode_strategy == "beam_search":
        remedy = "Use sampling or greedy_search, or leave it out."
        yield Problem("--num_draft_tokens", str(options.num_draft_tokens), "cannot help beam_search", remedy)
    if options.cachekv_int8 and config.task == "generate" and options.decode_strategy == "beam_search":
        remedy = "Use sampling or greedy_search, or leave it out."
        yield Problem("--cachekv_int8", "true", "is not done in beam_search, whose cache is another one", remedy)
    if options.draft_model is not None and options.num_draft_tokens == 0:
        yield Problem("--draft_model", options.draft_model, "guesses nothing without --num_draft_tokens", "Give 4.")
    if options.draft_model is not None and not Path(options.draft_model).exists():
        yield Problem("--draft_model", options.draft_model, "does not exist", "Give a model on this machine.")


def _serving(config: RunConfig) -> list[Problem]:
    from ..serve.checks import check_serving

    return check_serving(config.serve)


def _required(config: RunConfig) -> Iterator[Problem]:
    """Yield the options that the task cannot do without."""
    model, data = config.model, config.data
    needs: dict[str, dict[str, object]] = {
        "pretrain": {"input_dir": data.input_dir},
        **{task: {"dataset_name_or_path": data.dataset_name_or_path} for task in RECORDS},
        **{
            task: {
                "model_name_or_path": model.model_name_or_path,
                "dataset_name_or_path": data.dataset_name_or_path,
                "output_dir": config.training.output_dir,
            }
            for task in QUANTIZING
        },
        "generate": {"data_file": config.decoding.data_file},
        "data": {
            "input_path": data.input_path,
            "output_prefix": data.output_prefix,
            "tokenizer_name_or_path": model.tokenizer_name_or_path,
        },
        "merge_lora": {
            "model_name_or_path": model.model_name_or_path,
            "lora_path": config.adapter.lora_path,
            "output_path": config.convert.output_path,
        },
        **{
            task: {"model_name_or_path": model.model_name_or_path, "output_path": config.convert.output_path}
            for task in ("convert", "merge_shards", "export")
        },
    }
    for name, value in needs.get(config.task, {}).items():
        if value is None or value == "":
            yield Problem(
                f"--{name}", "", f"is needed by --task {config.task}", f"See llm-run --task {config.task} --help."
            )


def _written(config: RunConfig) -> Iterator[Problem]:
    """Yield what is wrong with the dtype of the written weights."""
    dtype, path = config.convert.save_dtype, config.convert.output_path or ""
    if dtype.startswith("q") and not (config.task == "convert" and path.endswith(GGUF_SUFFIX)):
        reason = "is a type of GGUF files"
        yield Problem("--save_dtype", dtype, reason, f"Use --task convert with an --output_path in {GGUF_SUFFIX}.")
    if path.endswith(GGUF_SUFFIX) and config.task != "convert":
        reason = f"is a GGUF file, which {config.task} does not write"
        yield Problem("--output_path", path, reason, "Use --task convert afterwards.")


def _model(config: RunConfig) -> Iterator[Problem]:
    model = config.model
    given = model.model_name_or_path, model.model_size
    if config.task in MODEL_IS_NEEDED and given == (None, None):
        remedy = "Give --model_name_or_path, or --family and --model_size for a random model."
        yield Problem("--model_name_or_path", "", f"is needed by --task {config.task}", remedy)
    if None not in given:
        reason = "excludes model_name_or_path: one says that the model is random, the other where it is"
        yield Problem("--model_size", str(model.model_size), reason, "Leave one of them out.")
    if model.continue_training and model.model_name_or_path is None:
        yield Problem("--continue_training", "true", "has no weights to start from", "Give --model_name_or_path.")
    speaks = config.task in (*RECORDS, *DECODING, "serve")
    if speaks and model.model_size is not None and model.tokenizer_name_or_path is None:
        reason = "is needed: a model of --model_size has no tokenizer of its own"
        yield Problem("--tokenizer_name_or_path", "", reason, "Give a folder that holds one.")


def _training(config: RunConfig) -> list[Problem]:
    from ..trainer.checks import check_preference, check_training

    problems = check_training(config.training)
    if config.task in ADAPTING or (config.task == "dpo" and config.adapter.use_lora):
        problems += _adapter(config)
    if config.task == "dpo":
        problems += [*check_preference(config.training), *_idle_adapter(config)]
    if config.data.preview_data < 0:
        problems.append(Problem("--preview_data", str(config.data.preview_data), "must be 0 or more"))
    if config.data.packing != "in_order" and not config.data.zero_padding:
        reason = "has no effect, as records are not packed"
        problems.append(Problem("--packing", config.data.packing, reason, "Give --zero_padding true."))
    if config.data.max_length < 1:
        problems.append(Problem("--max_length", str(config.data.max_length), "must be 1 or more"))
    return problems


def _adapter(config: RunConfig) -> Iterator[Problem]:
    """Yield what is wrong with the options of an adapter that is trained."""
    from ..adapters.prefix_settings import check_prefix
    from ..adapters.settings import check_lora

    yield from (check_prefix if config.task == "prefix_tuning" else check_lora)(config.adapter)


def _idle_adapter(config: RunConfig) -> Iterator[Problem]:
    """Yield the flags of preference tuning that describe what is not trained: an adapter, or the model under one."""
    from .schema import options

    for name, value in dataclasses.asdict(config.adapter).items():
        if config.origins.get(name) == "flag" and not config.adapter.use_lora and options()[name].is_read_by("dpo"):
            yield Problem(f"--{name}", str(value), "has no effect without use_lora", "Add --use_lora, or leave it out.")
    for name in ("embedding_learning_rate", "head_learning_rate"):
        rate = getattr(config.training, name)
        if rate is not None and config.adapter.use_lora:
            reason = "has no effect with use_lora, which trains neither embedding nor head"
            yield Problem(f"--{name}", f"{rate:g}", reason, "Leave it out; the adapter has --loraplus_lr_ratio.")


def _evaluation(config: RunConfig) -> Iterator[Problem]:
    model, data = config.model, config.data
    yield from check_evaluation(config)
    if data.dataset_name_or_path or data.eval_dataset:
        yield from _lengths(config)
    reads_text = data.input_path or data.dataset_name_or_path or data.eval_dataset or config.evaluation.benchmark
    if reads_text and model.model_size is not None and model.tokenizer_name_or_path is None:
        reason = "is needed: a model of --model_size has no tokenizer of its own"
        yield Problem("--tokenizer_name_or_path", "", reason, "Give a folder that holds one.")


def _lengths(config: RunConfig) -> Iterator[Problem]:
    data = config.data
    if data.src_length < 1:
        yield Problem("--src_length", str(data.src_length), "must be 1 or more")
    if data.src_length >= data.max_length:
        reason = f"leaves no room for the answer in max_length ({data.max_length})"
        yield Problem("--src_length", str(data.src_length), reason, "Lower it, or raise --max_length.")


def _decoding(config: RunConfig) -> list[Problem]:
    from ..engine.settings import SamplingSettings

    problems = []
    if config.decoding.batch_size is not None and config.decoding.batch_size < 1:
        problems.append(Problem("--batch_size", str(config.decoding.batch_size), "must be 1 or more"))
    if config.data.src_length < 1:
        problems.append(Problem("--src_length", str(config.data.src_length), "must be 1 or more"))
    try:
        SamplingSettings.from_options(config.decoding, seed=config.training.seed, stop_ids=())
    except RefusedError as error:
        problems += error.problems
    return problems


def _launch(config: RunConfig) -> Iterator[Problem]:
    launch = config.launch
    for name in ("nproc_per_node", "nnodes", "threads"):
        value = getattr(launch, name)
        if value is not None and value < 1:
            yield Problem(f"--{name}", str(value), "must be 1 or more")
    for name in (
        "tensor_parallel_degree",
        "pipeline_parallel_degree",
        "sep_parallel_degree",
        "sharding_parallel_degree",
    ):
        value = getattr(launch, name)
        if value != -1 and value < 1:
            yield Problem(f"--{name}", str(value), "must be 1 or more", "-1 leaves it to llm-run.")
    stages = launch.sharding.replace(",", " ").split()
    if "offload" in stages:
        reason = "asks for offload, which would keep optimizer state in the memory of the host: that is not done here"
        remedy = f"Use one of {', '.join(SHARDING_STAGES)}; each rank of stage3 holds least."
        yield Problem("--sharding", f"'{launch.sharding}'", reason, remedy)
    elif stages and (len(stages) > 1 or stages[0] not in SHARDING_STAGES):
        yield Problem(
            "--sharding", f"'{launch.sharding}'", "is not one stage", f"Use one of {', '.join(SHARDING_STAGES)}."
        )
    if launch.node_rank not in range(launch.nnodes):
        yield Problem("--node_rank", str(launch.node_rank), f"is not below nnodes ({launch.nnodes})")
    yield from _machines(launch)
    if launch.devices is not None and launch.device == "cpu":
        yield Problem("--devices", launch.devices, "names GPUs, but device is cpu", "Use --nproc_per_node on a CPU.")


def _machines(launch: LaunchOptions) -> Iterator[Problem]:
    """Yield what is wrong with the numbers of processes and machines."""
    if launch.virtual_pp_degree < 1:
        yield Problem("--virtual_pp_degree", str(launch.virtual_pp_degree), "must be 1 or more")
    if launch.dist_timeout < 1:
        yield Problem("--dist_timeout", f"{launch.dist_timeout:g}", "must be 1 second or more")
    if launch.nnodes > 1 and not launch.master:
        yield Problem("--master", "", "is needed where nnodes is above 1", "Give host:port of the first machine.")
    if launch.master and launch.nnodes <= 1:
        yield Problem("--master", launch.master, "has no effect on one machine", "Give --nnodes, or leave it out.")
    elif launch.master and parse_address(launch.master) is None:
        yield Problem("--master", f"'{launch.master}'", "is not host:port", "Name a port of the first machine.")
    gpus = launch.devices.split(",") if launch.devices else []
    if launch.nproc_per_node > 1 and gpus and launch.nproc_per_node != len(gpus):
        reason = f"does not fit the {len(gpus)} GPUs of devices, which get one process each"
        yield Problem("--nproc_per_node", str(launch.nproc_per_node), reason, "Leave it out.")
