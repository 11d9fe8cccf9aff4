"""The sections of the configuration that say what a model is: they are kept in its checkpoint; `config` has the others.

What a query expansion, a skiplist, a dense layer or a bias is for: models that other libraries trained have them.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from colmrl.config_judging import STRICT, Dims, Positive

Weight = Annotated[float, Field(ge=0)]
Resize = Literal["torch", "pil"]
Activation = Literal["none", "tanh", "gelu", "relu", "silu", "sigmoid"]


@dataclass(frozen=True, config=STRICT)
class DenseConfig:
    """A layer of a head before its projection (sentence-transformers' and PyLate's Dense)."""

    width: Positive
    bias: bool = True
    activation: Activation = "none"
    residual: bool = False  # what goes in is added to what comes out, projected where their widths differ


@dataclass(frozen=True, config=STRICT)
class ExpansionConfig:
    """Query augmentation (ColBERT, arXiv:2004.12832): tokens that fill a short query up, with vectors of their own."""

    length: Positive = 32  # in tokens; a longer query gets none
    token: str | None = None  # null: the tokenizer's mask, or else its end of text
    attend: bool = False  # whether the backbone's attention sees them


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The backbone, how it is tuned, and how a record becomes its input."""

    backbone: str = ""  # a folder, a hub id, or tiny:FAMILY, a small random model that is written first
    tuning: Literal["full", "lora", "frozen"] = "full"
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the backbone's weights; heads and LoRA stay fp32
    attention: Literal["native", "bidirectional"] = "native"  # bidirectional: every token sees all, no causal mask
    quantization: Literal["4bit", "8bit"] | None = None  # of the frozen base weights (QLoRA); bitsandbytes
    padding_side: Literal["left", "right"] | None = None  # null: the tokenizer's own
    lower_case: bool = False  # every text, whatever the tokenizer does
    special_tokens: tuple[str, ...] = ()  # of prompts, that the tokenizer must not split, such as "[Q] "
    query_prompt: str = "{text}"
    document_prompt: str = "{text}"
    document_fields: tuple[Literal["text", "image"], ...] = ("text", "image")  # what of a document the model sees
    max_query_tokens: Positive = 512
    max_document_tokens: Positive = 512  # of text; pictures are bounded by max_pixels
    max_pixels: Positive | None = None  # null: the processor's own
    resize: Resize = "torch"  # of pictures: torch, as processors with torchvision do; pil, as those without
    positions: Literal["native", "text"] = "native"  # of visual tokens; text: counted like words', not rows and columns
    template: Literal["chat", "none"] = (
        "chat"  # of models that see; none: the prompt is all there is, pictures included
    )
    query_instruction: str | None = None  # a system turn before the prompt, where there is a chat template
    document_instruction: str | None = None
    generation_prompt: bool = False  # the template's opening of an answer, behind the prompt
    query_expansion: ExpansionConfig | None = None  # null: a query is its own tokens
    query_skiplist: tuple[str, ...] = ()  # tokens that get no vector of the multi head
    document_skiplist: tuple[str, ...] = ()
    document_vectors: Literal["all", "image"] = (
        "all"  # of the multi head; image: of visual tokens, where there are some
    )


@dataclass(frozen=True, config=STRICT)
class LoraConfig:
    """LoRA (arXiv:2106.09685) on the language model; `targets` is a regular expression, null for the family's."""

    r: Positive = 16
    alpha: Positive = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: str | None = None
    vision: bool = False  # the vision tower's linear layers too


@dataclass(frozen=True, config=STRICT)
class SingleConfig:
    """The single-vector head: pooled hidden states, an optional projection, nested dims (none: no such head)."""

    dims: Dims = (128, 64, 32, 16)
    pooling: Literal["mean", "last", "cls"] = "mean"
    dense: tuple[DenseConfig, ...] = ()  # layers before the projection
    projection: Positive | None = None  # null: the width there is, unprojected
    bias: bool = False  # of the projection
    temperature: Annotated[float, Field(gt=0)] = 0.05


@dataclass(frozen=True, config=STRICT)
class MultiConfig:
    """The multi-vector head: every token projected, nested in dims (none: no such head) and numbers of vectors."""

    dims: Dims = (128, 64, 32, 16)
    budgets: Dims = ()  # a document is also trained pooled to so many vectors, at every dim; all its vectors always
    dense: tuple[DenseConfig, ...] = ()  # layers before the projection
    projection: bool = True  # to the largest of dims; false: the first units of the width there is
    bias: bool = False  # of the projection
    position_weight: Weight = 0.5  # of a patch's place on its page beside its vector, when vectors are pooled
    temperature: Annotated[float, Field(gt=0)] = 0.05
