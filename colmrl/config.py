"""The whole configuration, one frozen dataclass a section; `configure.load_config` fills it.

Values are checked and converted by pydantic (`1e-4`, text to YAML, is a number where one is due). `${output}` in any
text stands for the run folder.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from colmrl.config_judging import STRICT as _STRICT
from colmrl.config_judging import EvalConfig, FrontierConfig, IndexType, Positive
from colmrl.config_model import DenseConfig as DenseConfig
from colmrl.config_model import ExpansionConfig as ExpansionConfig
from colmrl.config_model import LoraConfig, ModelConfig, MultiConfig, SingleConfig
from colmrl.view import Precision as StoredPrecision

Weight = Annotated[float, Field(ge=0)]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, config=_STRICT)
class LossConfig:
    """Symmetric InfoNCE at every trained view of both heads, and what is added to it (0: is not)."""

    false_negative_margin: float | None = None  # mask what scores above the positive by this; null: mask nothing
    learn_temperature: bool = False  # from single.temperature and multi.temperature on
    view_weights: dict[str, Weight] = Field(default_factory=dict)  # of views, e.g. {single@64: 0.5}; not named: 1
    single_weight: Weight = 1.0
    multi_weight: Weight = 1.0
    balance: Literal["fixed", "uncertainty", "gradnorm"] = "fixed"  # of the views: as weighted, or learnt
    pairwise: Weight = 0.0  # softplus of each hard negative's margin to the positive (ColPali)
    self_distillation: Weight = 0.0  # KL(single‖multi), the multi head as teacher (jina-embeddings-v4)
    teacher_kl: Weight = 0.0  # KL from the triples' scores
    teacher_margin_mse: Weight = 0.0  # squared error of margins to the triples' scores
    teacher_temperature: Annotated[float, Field(gt=0)] = 1.0  # of the triples' scores in teacher_kl
    query_query: bool = False  # other queries count as negatives of a query (GTE)
    document_document: bool = False  # other positives count as negatives of a positive


Format = Literal[
    "beir", "mteb", "video-pairs", "sequences", "qilin", "qilin-recommendation",
    "query-image", "sentence-transformers", "colpali", "tevatron", "flagembedding", "ms-swift", "triples",
]  # fmt: skip
SampleKind = Literal["shapes", "video-pairs", "qilin", "sequences", "query-image", "triples"]  # data that is generated
TinyFamily = Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "qwen3", "bert"]  # of random weights
ItemForm = Literal["text", "raw_image", "caption", "semantic_summary", "semantic_summary_small"]


@dataclass(frozen=True, config=_STRICT)
class SourceConfig:
    """One of several data sets that are trained on together; as in section `data`."""

    path: str = ""
    format: Format | None = None
    split: str = "train"
    triples: str | None = None
    root: str | None = None
    weight: Annotated[float, Field(gt=0)] | None = None  # share of the batches; null for all: as they have examples


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Where records are, and how they are read (docs/data.md)."""

    path: str = ""  # a folder, a file, a data set of the hub, or sample:KIND, which is written first
    eval_path: str | None = None  # null: path
    format: Format | None = None  # null: recognised from files and columns
    train_split: str = "train"
    eval_split: str = "test"
    triples: str | None = None  # JSONL with hard negatives; null: pairs from the qrels
    root: str | None = None  # where relative picture paths start; null: the data's own folder
    strict: bool = True  # a bad line is an error; false: skipped, counted and reported
    sources: tuple[SourceConfig, ...] = ()  # trained on in place of path and triples, every batch from one of them


@dataclass(frozen=True, config=_STRICT)
class ShowConfig:
    """How videos and items are shown; kept in the checkpoint, so that later stages show them as training did."""

    video_template: str = "{title}\n{caption}\n{ocr}\n{asr}"  # a line all of whose fields are empty is left out
    frames: Positive = 8  # of a video file, spread evenly over it
    item_form: ItemForm = "text"
    history: Positive = 20  # items of a user's past that a query shows


@dataclass(frozen=True, config=_STRICT)
class TrainConfig:
    """One training run. Sizes are of one process: a step sees `batch_size` × processes × `accumulation` queries."""

    init_from: str | None = None  # a checkpoint to go on from, ours or another library's; null: model.backbone
    epochs: Annotated[float, Field(ge=0)] = 1
    max_steps: Annotated[int, Field(ge=-1)] = -1  # wins over epochs when ≥ 0
    batch_size: Positive = 32  # queries whose documents are each other's negatives, with those of all processes
    mini_batch_size: Positive | None = None  # records the model sees at a time, by GradCache; null: the whole batch
    mini_batch_tokens: Positive | None = None  # the same by tokens, padding counted; records of like length together
    accumulation: Positive = 1  # batches whose gradients are added up; it does not make more negatives
    negatives: Annotated[int, Field(ge=0)] | None = None  # a query, from triples; null: 1 where they have any
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"  # 8-bit: bitsandbytes
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    max_grad_norm: Weight = 1.0  # gradients are clipped to it; 0: never
    warmup_steps: Weight = 0  # below 1: of all steps
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # decay of the average that is judged and kept
    precision: Precision = "fp32"
    gradient_checkpointing: bool = False
    compile_heads: bool = False  # torch.compile
    tower_cache: str | None = None  # a folder for what frozen parts give, computed once; null: computed each step
    auto_batch: Annotated[float, Field(gt=0, le=1)] | None = None  # of device memory, to find mini_batch_size by
    workers: Annotated[int, Field(ge=0)] = 0  # processes that read and prepare pictures ahead of the model
    eval_steps: Positive | None = None  # judge on data.eval_path's eval_split; null: never
    best_metric: str | None = None  # e.g. single@128/ndcg_at_10: the best checkpoint is kept; null: the last
    patience: Positive | None = None  # evaluations without a better best_metric before training stops
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    profile: Annotated[int, Field(ge=0)] = 0  # steps to profile
    save_steps: Positive = 500
    log_steps: Positive = 10


@dataclass(frozen=True, config=_STRICT)
class RerankConfig:
    """A reranker, `task: pointwise | listwise`: what it is asked, what it answers with, and how it is used."""

    instruction: str = "Given a search query, retrieve relevant candidates that answer the query."
    score: Literal["classifier", "yes_no"] = "classifier"  # pointwise: a head, or yes/no logits
    pooling: Literal["last", "document", "query"] = "last"  # what the head reads: last token, or that part's mean
    loss: Literal["bce", "pairwise", "softmax"] = "bce"  # pointwise, over a query's positive and train.negatives
    identifiers: Literal["letters", "numbers"] = "letters"  # listwise: how candidates are named
    candidates: Annotated[int, Field(ge=2, le=26)] = 20  # listwise: in one prompt, in training and in a window
    stride: Positive = 10  # of windows, from the back, over more candidates than fit
    permutations: Positive = 1  # shuffles that a listwise answer is averaged over
    relevance: Weight = 0.0  # listwise: a loss on what is read off each candidate's own tokens
    naming: Weight = 0.0  # listwise: a loss on reading off a candidate's tokens which one they are of
    attention: Weight = 0.0  # listwise: a loss on how little the answer looks at the right candidate
    answer: Literal["identifier", "relevance"] | None = None  # listwise: what ranks; null: identifier, or as trained
    short_lists: bool = False  # listwise: train on lists of 2, 3, 5 and 10 candidates as well
    ranknet: Weight = 0.0  # listwise: weighted RankNet beside cross-entropy, where a teacher's scores give an order
    batch_size: Positive = 16  # prompts a forward pass, when used
    mode: Literal["ground_truth", "retrieval", "shown"] | None = None  # candidates; null: shown where the data has them
    run: str | None = None  # retrieval: a TREC run file
    store: str | None = None  # retrieval: a store, searched at `view`
    view: str | None = None
    top_k: Positive = 20  # retrieval: how many go to the reranker
    sampled: Annotated[int, Field(ge=1)] = 19  # ground_truth: random negatives beside the target
    queries: Positive | None = None  # judge so many, drawn; null: all


@dataclass(frozen=True, config=_STRICT)
class EncodeConfig:
    """Records → store."""

    views: tuple[str, ...] = ()  # what to keep, each as precisely as it says; none: every head in full
    precision: StoredPrecision = "fp32"  # of what is kept where no views are named
    pooling: Literal["ward", "mean", "random"] = "ward"  # how a document's vectors become as few as a view asks for
    batch_size: Positive = 32
    shard_size: Positive = 1024  # records a shard: what a kill can cost
    workers: Annotated[int, Field(ge=0)] = 0  # processes that read and prepare pictures ahead of the model
    ray: str | None = None  # have Ray's workers encode: local, auto (the cluster of this machine) or HOST:PORT
    ray_workers: Positive | None = None  # at most; null: as many as fit
    ray_gpus: Weight | None = None  # a worker, 0.5: two share one; null: one where the cluster has any, else none


@dataclass(frozen=True, config=_STRICT)
class IndexConfig:
    """A FAISS index of one view of a store, and how it is searched."""

    type: IndexType = "flat"
    lists: Positive | None = None  # of ivf, ivfpq and rabitq; null: as many as suit the number of vectors
    probes: Positive | None = None  # lists that a query (or token) looks into, hnsw: neighbours that it keeps; null: 32
    training_vectors: Positive = 262_144  # at most, to train lists and codes on
    candidates: Positive | None = None  # documents whose exact scores decide; null: 100, or as the index was built
    queries: Positive = 100  # drawn, to measure recall by
    gpu: bool = True  # where there is one


@dataclass(frozen=True, config=_STRICT)
class TeacherConfig:
    """Another judge of candidates: a store of the same data by another model, a reranker's checkpoint, or scores in a
    TREC run file. A candidate that it scores too close to the positive is left out; its scores are the ones that
    triples carry.
    """

    store: str | None = None
    view: str | None = None  # of that store; null: its first
    reranker: str | None = None
    scores: str | None = None
    absolute_margin: Weight | None = None
    relative_margin: Annotated[float, Field(ge=0, lt=1)] | None = None
    max_score: float | None = None


@dataclass(frozen=True, config=_STRICT)
class FilterConfig:
    """One step between search and triples: exactly one of these (names and meaning of sentence-transformers)."""

    duplicates: Literal[True] | None = None  # of the positive, or of a better candidate, by content
    range_min: Annotated[int, Field(ge=0)] | None = None  # ranks to skip
    range_max: Positive | None = None  # ranks to look at
    max_score: float | None = None
    min_score: float | None = None
    absolute_margin: Weight | None = None  # keep at ≤ the positive's score - margin
    relative_margin: Annotated[float, Field(ge=0, lt=1)] | None = None  # keep at ≤ (1 - margin) × the positive's score
    teacher: TeacherConfig | None = None


@dataclass(frozen=True, config=_STRICT)
class MineConfig:
    """Search with the model itself, keep what is hard and not true. Known answers are never negatives."""

    view: str | None = None  # or a funnel; null: the store's first: the single head's largest, where there is one
    index: str | None = None  # the folder that colmrl index wrote; null: exact search
    k: Positive = 50  # how deep to search
    filters: tuple[FilterConfig, ...] = (FilterConfig(duplicates=True), FilterConfig(relative_margin=0.05))  # in order
    negatives: Positive = 4  # at most, a pair
    sampling: Literal["top", "random"] = "top"
    gpu: bool = True  # where there is one


@dataclass(frozen=True, config=_STRICT)
class LoopConfig:
    """Rounds of train → encode → mine."""

    rounds: Positive = 2
    index: bool = False  # build an index of mine.view (section index) each round, and mine with it
    frontier: bool = False  # after the last round, sweep section `frontier`


@dataclass(frozen=True, config=_STRICT)
class Config:
    task: Literal["retriever", "pointwise", "listwise"] = "retriever"  # what train.py trains
    seed: Annotated[int, Field(ge=0)] = 0
    output: str = "outputs/run"
    device: Literal["cpu", "cuda"] | None = None  # null: cuda where there is one, else cpu
    threads: Positive | None = None  # of a CPU; null: one a core. Another number, another rounding of sums
    attention_kernel: Literal["sdpa", "flash_attention_2"] = "sdpa"  # flash-attention 2 needs its package and a GPU
    model: ModelConfig = ModelConfig()
    lora: LoraConfig = LoraConfig()
    single: SingleConfig = SingleConfig()
    multi: MultiConfig = MultiConfig()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    show: ShowConfig = ShowConfig()
    train: TrainConfig = TrainConfig()
    rerank: RerankConfig = RerankConfig()
    encode: EncodeConfig = EncodeConfig()
    index: IndexConfig = IndexConfig()
    mine: MineConfig = MineConfig()
    eval: EvalConfig = EvalConfig()
    frontier: FrontierConfig = FrontierConfig()
    mteb: dict[str, Any] = Field(default_factory=dict)  # what its maker says of a model: mteb's ModelMeta has the names
    loop: LoopConfig = LoopConfig()
