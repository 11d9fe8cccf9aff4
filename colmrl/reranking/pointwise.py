"""The pointwise reranker: how well one document answers one query, 0–1, from both in one prompt (a cross-encoder).

Two forms. `classifier`: a linear head on the last token's hidden state (BERT's, of `[CLS] query [SEP] document
[SEP]`, on the first token's), or on the mean over the document or the query, where `rerank.pooling` names one: it
then stands last and has seen the other (a tiny model learnt fastest from the query's: docs/pointwise.md). `yes_no`:
sigmoid(logit of "yes" - logit of "no") as the answer to Qwen3-VL-Reranker's prompt (arXiv:2601.04720), word for
word, so that its weights and scores fit; a classifier needs not be told what to say, and is asked the same without
that system message (and without `<Instruct>:`, where rerank.instruction is empty).

At scoring, instruction and query, which all documents of a query share, are read once (their keys and values) if they
stand first; a document is tokenised once, and those of like length share a batch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from colmrl.config import Config, ModelConfig, RerankConfig
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.attention import AttentionKernel
from colmrl.models.batching import batches
from colmrl.models.heads import pool
from colmrl.models.inputs import ModelInput, tokens
from colmrl.models.language import LanguageModel, Past
from colmrl.models.weights import read_tensors
from colmrl.reranking.checkpoint import (
    RerankerDescription,
    create_language_model,
    describe,
    load_language_model,
    save_checkpoint,
)
from colmrl.reranking.prompt import Prompts, join

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
_SHARED_FROM = 2  # documents from which on reading what they share by itself is less work


class PointwisePrompt:
    """query | document (rerank.pooling=query: document | query): the two parts of a prompt, which `joined` makes one.
    BERT reads them as its pair of texts."""

    def __init__(self, processor: Any, model: ModelConfig, rerank: RerankConfig):
        answers = rerank.score == "yes_no"
        self.prompts = Prompts(processor, model, SYSTEM if answers else "")
        self.inputs = self.prompts.inputs
        self.is_pair = not self.prompts.sees_pictures and self.prompts.tokenizer.cls_token_id is not None
        told = f"<Instruct>: {rerank.instruction}" if answers or rerank.instruction else ""
        self._head, self._pools = f"{self.prompts.head}{told}", rerank.pooling != "last"
        self.query_first = rerank.pooling != "query"
        if self._pools and (answers or self.is_pair):
            form = "rerank.score=yes_no" if answers else "BERT"
            raise InputError(f"rerank.pooling: {rerank.pooling}: is not of {form}: leave it out")

    def query(self, query: Query) -> ModelInput:
        if self.is_pair:
            made = self.prompts.tokens(self.prompts.query(query))
            return self._text_of_pair(made, [self.prompts.tokenizer.cls_token_id], 0)
        before, after = (self._head, "\n") if self.query_first else ("", self.prompts.tail)
        return self.prompts.tokens(self.prompts.query(query, f"{before}<Query>:", after))

    def whole(self, query: Query, documents: Sequence[Document]) -> list[ModelInput]:
        """A prompt for each document."""
        asked = self.query(query)
        return [self.joined(asked, self.document(document)) for document in documents]

    def joined(self, query: ModelInput, document: ModelInput) -> ModelInput:
        """`pooled`: of each token, whether it is of the second part, where its mean is wanted."""
        parts = [query, document] if self.query_first else [document, query]
        whole, (first, second) = join(parts), (part["attention_mask"] for part in parts)
        return whole | {"pooled": torch.cat([torch.zeros_like(first), second], 1)} if self._pools else whole

    def document(self, document: Document) -> ModelInput:
        if self.is_pair:
            return self._text_of_pair(self.prompts.document(document), [], 1)
        before, after = ("", self.prompts.tail) if self.query_first else (self._head, "\n")
        return self.prompts.document(document, f"{before}<Document>:", after)

    def _text_of_pair(self, made: ModelInput, first: list[int], kind: int) -> ModelInput:
        last = torch.tensor([[self.prompts.tokenizer.sep_token_id]])
        ids = torch.cat([torch.tensor([first], dtype=torch.long), made["input_ids"], last], 1)
        types = torch.full_like(ids, kind)
        return {"input_ids": ids, "token_type_ids": types, "attention_mask": torch.ones_like(ids)}


class PointwiseModel(nn.Module):
    """Prompts → logits of "it is relevant", whose sigmoid is the score."""

    def __init__(self, description: RerankerDescription, language: LanguageModel, processor: Any):
        super().__init__()
        self.description, self.processor = description, processor
        self.language = language
        self.prompt = PointwisePrompt(processor, description.model, description.rerank)
        self._pooling = "cls" if self.prompt.is_pair else "last" if description.rerank.pooling == "last" else "mean"
        self.classifier: nn.Linear | None = None
        self.answers: list[int] = []  # the tokens of yes and no
        match description.rerank.score:
            case "classifier":
                self.classifier = nn.Linear(language.hidden_size, 1)
            case "yes_no":
                self.answers = answer_tokens(self.prompt.prompts.tokenizer)
        if self.prompt.is_pair:
            _check_positions(language, description.model)

    @classmethod
    def create(cls, config: Config) -> "PointwiseModel":
        """A new model of `model.backbone`; the classifier is drawn with `seed`."""
        description = describe(config)
        language, processor = create_language_model(config, description)
        return cls(description, language, processor)

    @classmethod
    def load(
        cls, folder: str | Path, description: RerankerDescription, kernel: AttentionKernel = "sdpa"
    ) -> "PointwiseModel":
        """A checkpoint, bit-equal to what was saved."""
        folder = Path(folder)
        model = cls(description, *load_language_model(folder, description, kernel))
        if model.classifier is not None:
            model.classifier.load_state_dict(read_tensors(folder / "classifier.safetensors"))
        return model

    def save(self, folder: str | Path) -> None:
        save_checkpoint(Path(folder), self.description, self.language, self.processor, self.classifier)

    def forward(self, inputs: Mapping[str, Tensor], past: Past | None = None) -> Float[Tensor, " b"]:
        given = {name: tensor for name, tensor in inputs.items() if name != "pooled"}
        hidden, mask = self.language.hidden(given, past)
        pooled = pool(hidden, inputs["pooled"].bool() if "pooled" in inputs else mask, self._pooling)
        if self.classifier is not None:
            return self.classifier(pooled.float())[:, 0].float()
        yes, no = self.language.logits(pooled, self.answers).unbind(1)
        return yes - no

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class PointwiseReranker:
    """A model in use: `score` is what a `Reranker` does."""

    def __init__(self, model: PointwiseModel, name: str = "pointwise"):
        self.model, self.name = model, name

    @classmethod
    def load(
        cls,
        folder: str | Path,
        description: RerankerDescription,
        kernel: AttentionKernel = "sdpa",
        device: str = "cpu",
    ) -> "PointwiseReranker":
        model = PointwiseModel.load(folder, description, kernel)
        if not description.model.quantization:  # which has put it where it is to be
            model = model.to(device)
        return cls(model.eval(), Path(folder).resolve().parent.name)

    @torch.inference_mode()
    def score(self, query: Query, documents: Sequence[Document]) -> Float[np.ndarray, " d"]:
        """0–1, of each document by itself: others beside it change nothing but rounding."""
        model, asked = self.model, self.model.prompt.query(query)
        parts = [model.prompt.document(document) for document in documents]
        past = None
        if model.language.causal and model.prompt.query_first and len(parts) >= _SHARED_FROM:
            past = model.language.read(self._moved(asked))
        else:
            parts = [model.prompt.joined(asked, part) for part in parts]
        scores = np.zeros(len(parts), dtype=np.float32)
        size = model.description.rerank.batch_size
        for places in batches([tokens(part) for part in parts], size, model.device):
            batch = model.prompt.inputs.join([parts[place] for place in places])
            scores[places] = model(self._moved(batch), past).sigmoid().float().cpu().numpy()
        return scores

    def _moved(self, inputs: ModelInput) -> ModelInput:
        return {name: tensor.to(self.model.device) for name, tensor in inputs.items()}


def answer_tokens(tokenizer: Any) -> list[int]:
    """Of "yes" and "no"; an InputError where one of them is not one token."""
    found = []
    for answer in ("yes", "no"):
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise InputError(
                f"rerank.score: yes_no: {answer!r} is {len(ids)} tokens to this backbone's tokenizer: use classifier"
            )
        found.append(ids[0])
    return found


def _check_positions(language: LanguageModel, model: ModelConfig) -> None:
    """BERT has a position for each of so many tokens and no more."""
    limit, longest = language.model.config.max_position_embeddings, model.max_query_tokens + model.max_document_tokens
    if longest + 3 > limit:  # [CLS], [SEP] twice
        raise InputError(
            f"model.max_query_tokens, model.max_document_tokens: {model.max_query_tokens} + "
            f"{model.max_document_tokens} + 3: the backbone reads {limit} tokens of a pair: lower them"
        )
