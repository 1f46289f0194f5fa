"""Options of every task: model, data, launch, decoding, conversion. Those of training have a file of their own."""

from __future__ import annotations

from dataclasses import dataclass

from .option import ANSWERING, ASKING, DECODING, NOISY, QUANTIZING, RECORDS, SHARING, TRAINING, option

MERGING = ("convert", "merge_lora", "merge_shards")
"""Tasks that read weights and write them as a model directory."""
MODEL_TASKS = (*TRAINING, *ASKING, *QUANTIZING, *MERGING, "export")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model."""

    model_name_or_path: str | None = option(
        None, "model directory (Hugging Face or PaddleNLP layout), or a GGUF file", tasks=MODEL_TASKS
    )
    model_size: str | None = option(
        None,
        "build a random model of this variant of the family (`llm-run families` lists them)",
        tasks=(*TRAINING, *ASKING),
    )
    tokenizer_name_or_path: str | None = option(
        None, "directory of the tokenizer, where it is not the model's", tasks=(*MODEL_TASKS, "data")
    )
    chat_template: str | None = option(
        None,
        "file or directory of a chat template; `none` turns it off; default: the model directory's, then the family's",
        tasks=(*RECORDS, *ASKING, *QUANTIZING, "export"),
    )
    continue_training: bool = option(
        False,
        "start pretraining from the weights of model_name_or_path instead of from random ones",
        tasks=("pretrain",),
    )
    use_flash_attention: bool | None = option(
        None, "fused attention: true asks for it, false turns it off; default: where this machine has it",
        tasks=(*TRAINING, *ASKING),
    )  # fmt: skip
    use_fused_rms_norm: bool | None = option(
        None, "fused RMSNorm and LayerNorm: as use_flash_attention", tasks=(*TRAINING, *ASKING)
    )
    use_fused_rope: bool | None = option(
        None, "fused rotary embedding: as use_flash_attention", tasks=(*TRAINING, *ASKING)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """Which data, and how it becomes samples."""

    input_dir: str | None = option(
        None,
        "folder of token files, one prefix, or `weight prefix weight prefix ...` for a blend; in a folder, files named "
        "dev, valid or eval (`en.dev.bin`) are the evaluation data and split is not used",
        tasks=("pretrain", "evaluate"),
    )
    split: str = option(
        "949,50,1",
        "shares of documents for training, evaluation and test, in the order of the file",
        tasks=("pretrain", "evaluate"),
    )
    data_cache: str | None = option(
        None,
        "folder for the sample indexes of large corpora and of lazy records; default: index-cache beside the data",
        tasks=(*TRAINING, "evaluate"),
    )
    dataset_name_or_path: str | None = option(
        None, "folder with train.json and dev.json (or .jsonl), or a file with training records; ptq and gptq learn "
        "from its quant.json, where there is one, and take plain text ({\"text\": ...}) as well",
        tasks=(*RECORDS, "evaluate", *QUANTIZING),
    )  # fmt: skip
    eval_dataset: str | None = option(
        None, "file with evaluation records, where dataset_name_or_path has no dev file",
        tasks=(*RECORDS, "evaluate", *QUANTIZING),
    )  # fmt: skip
    src_length: int = option(
        1024, "longest prompt in tokens; a longer one loses its left end", tasks=(*RECORDS, *ANSWERING, *QUANTIZING)
    )
    max_length: int = option(
        2048,
        "longest training sample in tokens, prompt and answer together; in dpo, with either answer",
        tasks=(*TRAINING, "evaluate", *QUANTIZING),
        aliases=("max_seq_length",),
    )
    zero_padding: bool = option(
        False, "pack several records into one row, without one seeing the other",
        tasks=(*RECORDS, "evaluate"), aliases=("intokens",),
    )  # fmt: skip
    packing: str = option(
        "in_order",
        "which records share a row with zero_padding: neighbours, or of 8192 records those that fill it best",
        tasks=(*RECORDS, "evaluate"), choices=("in_order", "best_fit"),
    )  # fmt: skip
    lazy: bool = option(
        False,
        "leave the records in their JSONL files, which may be larger than memory, and encode each when its turn comes; "
        "with zero_padding, or to skip bad records, all are encoded once before",
        tasks=(*RECORDS, "evaluate"),
    )
    preview_data: int = option(
        0, "print this many samples as they are trained on, what is learnt marked, and end without training",
        tasks=TRAINING,
    )  # fmt: skip
    on_bad_record: str = option(
        "error", "what a malformed record does: stop, or be counted and left out",
        tasks=(*RECORDS, "data", "generate", "evaluate", *QUANTIZING), choices=("error", "skip"),
    )  # fmt: skip
    input_path: str | None = option(
        None,
        "text or JSONL file, or a folder of them, to turn into tokens; in text, an empty line ends a document; "
        "evaluate measures the perplexity of it, each text file as one document",
        tasks=("data", "evaluate"),
    )
    output_prefix: str | None = option(None, "write <prefix>.bin and <prefix>.idx", tasks=("data",))
    json_key: str = option("text", "key of the text in a JSONL record", tasks=("data", "evaluate"))
    append_eos: bool = option(True, "end every document with the end-of-text token", tasks=("data",))
    max_doc_num: int | None = option(None, "stop after this many documents", tasks=("data",))
    workers: int | None = option(None, "processes that tokenize; default: one a core", tasks=("data",))


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """Processes and devices."""

    device: str = option(
        "auto", "what computes: auto takes a GPU where there is one", tasks=MODEL_TASKS, choices=("auto", "cpu", "gpu")
    )
    threads: int | None = option(
        None, "CPU threads; default: the cores of this machine divided by its processes", tasks=MODEL_TASKS
    )
    nproc_per_node: int = option(1, "processes on this machine", tasks=SHARING)
    devices: str | None = option(
        None, "GPUs to use, as 0,1,2,3: one process each", tasks=MODEL_TASKS, aliases=("gpus",)
    )
    nnodes: int = option(1, "machines", tasks=SHARING)
    master: str | None = option(
        None, "host:port of the first machine, the same for all; the next port is used as well", tasks=SHARING
    )
    node_rank: int = option(0, "number of this machine, from 0", tasks=SHARING)
    tensor_parallel_degree: int = option(-1, "ranks that share each matrix; -1 is 1", tasks=SHARING)
    pipeline_parallel_degree: int = option(-1, "stages the layers are cut into; -1 is 1", tasks=TRAINING)
    sep_parallel_degree: int = option(-1, "ranks that share each sequence; -1 is 1", tasks=TRAINING)
    sharding_parallel_degree: int = option(
        -1, "ranks that share optimizer state; -1 takes all that are left", tasks=TRAINING, aliases=("sharding_degree",)
    )
    sharding: str = option("", "what is sharded: stage1, stage2 or stage3; empty for nothing", tasks=TRAINING)
    sequence_parallel: bool = option(
        False, "split activations along the sequence between tensor-parallel ranks", tasks=TRAINING
    )
    virtual_pp_degree: int = option(
        1, "pieces of the model that each pipeline stage holds, interleaved", tasks=TRAINING
    )
    hybrid_parallel_topo_order: str | None = option(
        None, "which axis of ranks is slower, pp or sharding (dp is slower, sep and mp are faster); default: pp_first",
        tasks=TRAINING, choices=("pp_first", "sharding_first"),
    )  # fmt: skip
    dist_timeout: float = option(
        600.0, "seconds that a process waits for another one, before the run ends and names it", tasks=SHARING
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingOptions:
    """How text is generated."""

    data_file: str | None = option(
        None, "JSONL with src (and tgt), or messages, to answer; for a benchmark its questions",
        tasks=("generate", "evaluate"),
    )  # fmt: skip
    output_file: str = option(
        "output.jsonl", "JSONL with src, tgt and output, in the order of data_file", tasks=("generate",)
    )
    mode: str = option(
        "dynamic", "what computes: the model, or (static) the graph that --task export has made of it",
        tasks=DECODING, choices=("dynamic", "static"),
    )  # fmt: skip
    batch_size: int | None = option(
        None, "prompts that are answered at once; default: as many as fit, one in beam_search and in static mode",
        tasks=("generate",),
    )  # fmt: skip
    num_draft_tokens: int = option(
        0, "tokens guessed ahead and checked in one step, which changes no answer; 0 for none",
        tasks=("generate", "chat", "serve"),
    )  # fmt: skip
    draft_model: str | None = option(
        None, "smaller model of the same vocabulary that guesses; default: guess that earlier text repeats",
        tasks=("generate", "chat", "serve"),
    )  # fmt: skip
    cachekv_int8: bool = option(
        False, "keep keys and values in 8 bits, in little more than a quarter of the memory; answers change a little, "
        "and each step is slower on a CPU", tasks=("generate", "chat", "serve"),
    )  # fmt: skip
    max_new_tokens: int = option(256, "longest answer in tokens", tasks=(*ANSWERING, *NOISY))
    min_new_tokens: int = option(0, "shortest answer in tokens: no stop token before", tasks=DECODING)
    decode_strategy: str = option(
        "sampling", "how the next token is chosen", tasks=DECODING,
        choices=("sampling", "greedy_search", "beam_search"),
    )  # fmt: skip
    temperature: float = option(0.95, "divides the logits; 0 is greedy_search", tasks=DECODING)
    top_k: int = option(0, "sample from the k likeliest tokens; 0 for all", tasks=DECODING)
    top_p: float = option(0.7, "sample from the likeliest tokens that hold this probability", tasks=DECODING)
    min_p: float = option(0.0, "leave out tokens below this share of the likeliest one's probability", tasks=DECODING)
    repetition_penalty: float = option(
        1.0, "divides the logits of tokens already seen (CTRL); 1 for none", tasks=DECODING
    )
    num_beams: int = option(4, "beams of beam_search", tasks=("generate",))
    length_penalty: float = option(1.0, "exponent on the length in the score of a beam", tasks=("generate",))
    stop: tuple[str, ...] = option((), "strings that end an answer and are not part of it", tasks=ANSWERING)
    system: str | None = option(None, "system message that opens the conversation", tasks=("chat",))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """Model files in, model files out."""

    output_path: str | None = option(
        None, "folder for the directory that is made; convert writes a GGUF file where it ends so",
        tasks=(*MERGING, "export"), aliases=("merge_model_path",),
    )  # fmt: skip
    save_dtype: str = option(
        "keep",
        "dtype of the written weights; in ptq and gptq, of those that stay as they are; q8_0 and q4_0 are for GGUF",
        tasks=(*MERGING, *QUANTIZING),
        choices=("keep", "float32", "bfloat16", "float16", "q8_0", "q4_0"),
    )
    max_shard_size: float = option(5.0, "largest weight file in GB", tasks=(*MERGING, *TRAINING, *QUANTIZING))
    model_prefix: str = option("model", "name of the exported graph's two files, without suffix", tasks=("export",))
