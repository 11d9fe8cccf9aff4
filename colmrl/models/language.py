"""A backbone with its language-model head: hidden states, and what of the vocabulary is asked for at some of them.

A prefix that many inputs share is read once (`read`); its keys and values are then what each of them goes on from
(`hidden(inputs, past)`). Positions are counted on from the prefix, with pictures in it or after it as if the whole had
been read at once: with Qwen-VL's 3-D positions (M-RoPE, arXiv:2409.12191) a picture takes up fewer of them than it has
tokens. BERT sees both ways and has no such head: it gives hidden states alone.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, DynamicCache

from colmrl.config import ModelConfig
from colmrl.errors import InputError
from colmrl.models.attention import AttentionKernel
from colmrl.models.backbone import (
    ATTENTION_BERT_LORA_TARGETS,
    ATTENTION_LORA_TARGETS,
    NEEDS_TOKEN_TYPES,
    Backbone,
)
from colmrl.models.families import sees_pictures
from colmrl.models.heads import pool
from colmrl.models.watching import Watched, watching
from colmrl.models.weights import names, weight_files

_DEFAULTS = ModelConfig()


@dataclass(frozen=True)
class Past:
    """What has been read, c rows of n tokens: each layer's keys and values."""

    keys_values: tuple[tuple[Float[Tensor, "c heads n d"], Float[Tensor, "c heads n d"]], ...]
    mask: Bool[Tensor, "c n"]
    next_position: Int[Tensor, " c"]
    hidden: Float[Tensor, "c h"]  # of each row's last token

    def __len__(self) -> int:
        return len(self.mask)

    def cache(self, times: int) -> DynamicCache:
        """A new one for `times` rows after each row, one after another."""
        if times == 1:
            return DynamicCache([(keys, values) for keys, values in self.keys_values])
        return DynamicCache([tuple(part.repeat_interleave(times, 0) for part in layer) for layer in self.keys_values])


class LanguageModel(Backbone):
    unquantized = ("lm_head",)
    lora_targets, bert_lora_targets = ATTENTION_LORA_TARGETS, ATTENTION_BERT_LORA_TARGETS

    @classmethod
    def load(
        cls,
        source: str,
        config: ModelConfig = _DEFAULTS,
        kernel: AttentionKernel = "sdpa",
        more: Mapping[str, Any] | None = None,
        writes: bool = True,
    ) -> "LanguageModel":
        """As a backbone; InputError where it `writes`, is to give logits, and has no weights for them."""
        loaded = super().load(source, config, kernel, more)
        assert isinstance(loaded, LanguageModel)
        if writes and not loaded._has_head(source):
            raise InputError(
                f"model.backbone: {source!r}: has no weights of a language-model head, and so no answers: give "
                "a model that writes, or (pointwise) rerank.score=classifier"
            )
        return loaded

    @staticmethod
    def loader(family: str) -> Any:
        if family == "bert":
            return AutoModel
        return AutoModelForImageTextToText if sees_pictures(family) else AutoModelForCausalLM

    def _has_head(self, source: str) -> bool:
        if self.family == "bert":
            return False
        whole = self._whole
        if whole.get_output_embeddings().weight is whole.get_input_embeddings().weight:
            return True
        return any(name.endswith("lm_head.weight") for path in weight_files(source) for name in names(path))

    @property
    def _whole(self) -> Any:
        """The library's model, adapters in it but none around it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def causal(self) -> bool:
        """Whether no token sees a later one, so that what a prefix gives does not depend on what follows."""
        return self.family != "bert" and getattr(self.model.config.get_text_config(), "is_causal", True)

    def forward(
        self, inputs: Mapping[str, Tensor], past: Past | None = None
    ) -> tuple[Float[Tensor, "b n hidden"], Bool[Tensor, "b n"]]:
        return self.hidden(inputs, past)

    def hidden(
        self, inputs: Mapping[str, Tensor], past: Past | None = None
    ) -> tuple[Float[Tensor, "b n hidden"], Bool[Tensor, "b n"]]:
        """Last hidden states, and which positions hold a token. After a `past` of c rows, inputs may have a multiple of
        c rows: the first b/c go on from its first row, and so on. The past stays as it is.
        """
        output, mask = self._run(inputs, past, keep=False)
        return output.last_hidden_state, mask

    def hidden_within(
        self, inputs: Mapping[str, Tensor], layer: int, past: Past | None = None
    ) -> tuple[Float[Tensor, "b n hidden"], Float[Tensor, "b n hidden"]]:
        """Last hidden states, and those after so many layers, each of these scaled to length √hidden."""
        output, _ = self._run(inputs, past, keep=False, output_hidden_states=True)
        within = output.hidden_states[layer].float()
        return output.last_hidden_state, F.rms_norm(within, within.shape[-1:])

    def watching(self, layer: int) -> AbstractContextManager[Watched]:
        """What goes into the attention of this layer, from 0, while the model runs."""
        return watching(self.model.config.get_text_config(), layer)

    @property
    def layers(self) -> int:
        return self.model.config.get_text_config().num_hidden_layers

    def read(self, inputs: Mapping[str, Tensor], past: Past | None = None) -> Past:
        """What later inputs can go on from, as `hidden` would after all that was read so far."""
        assert self.causal, "keys and values of a model that sees both ways depend on what follows"
        output, mask = self._run(inputs, past, keep=True)
        before = past.mask.repeat_interleave(len(mask) // len(past), 0) if past else mask[:, :0]
        return Past(
            tuple((layer.keys, layer.values) for layer in output.past_key_values.layers),
            torch.cat([before, mask], 1),
            self._positions(inputs, past).reshape(-1, *mask.shape).amax((0, 2)) + 1,
            pool(output.last_hidden_state, mask, "last"),
        )

    def branches(
        self, tokens: Int[Tensor, " t"], depths: Int[Tensor, " t"], sees: Bool[Tensor, "t t"], past: Past
    ) -> Float[Tensor, "c t h"]:
        """Hidden states of tokens that go on from each row of a past in several ways at once (tree attention): each
        sees the past and what `sees` says of the others, and stands `depths` tokens after the past's last.
        """
        rows, device = len(past), past.mask.device
        others = sees.to(device).expand(rows, *sees.shape)
        seen = torch.cat([past.mask[:, None].expand(-1, len(tokens), -1), others], 2)
        return self._whole.base_model(
            input_ids=tokens.to(device).expand(rows, -1),
            attention_mask=seen[:, None],
            position_ids=past.next_position[:, None] + depths.to(device) - 1,
            past_key_values=past.cache(1),
            use_cache=True,
        ).last_hidden_state

    def logits(
        self, hidden: Float[Tensor, "*n h"], tokens: Sequence[int] | None = None
    ) -> Float[Tensor, "*n vocabulary"]:
        """The language-model head at these hidden states: of the whole vocabulary, or of `tokens` alone, in order."""
        head = self._whole.get_output_embeddings()
        hidden = hidden.to(head.weight.dtype)
        if tokens is None:
            return head(hidden).float()
        rows = torch.tensor(list(tokens), device=head.weight.device)
        return F.linear(hidden, head.weight[rows], None if head.bias is None else head.bias[rows]).float()

    def _run(
        self, inputs: Mapping[str, Tensor], past: Past | None, keep: bool, **asked: bool
    ) -> tuple[Any, Bool[Tensor, "b n"]]:
        mask, given = inputs["attention_mask"].bool(), self.given(inputs)
        if past is None and not keep:
            return self._whole.base_model(**given, use_cache=False, **asked), mask
        given["position_ids"] = self._positions(inputs, past)
        if past is not None:
            times = len(mask) // len(past)
            given["past_key_values"] = past.cache(times)
            given["attention_mask"] = torch.cat([past.mask.repeat_interleave(times, 0), mask], 1).long()
        return self._whole.base_model(**given, use_cache=True, **asked), mask

    def _positions(self, inputs: Mapping[str, Tensor], past: Past | None) -> Int[Tensor, "*axes b n"]:
        """Of each token in the whole sequence: a text's are its tokens counted, a picture's in Qwen-VL have 3 axes."""
        mask = inputs["attention_mask"]
        if self.family in NEEDS_TOKEN_TYPES and "image_grid_thw" in inputs:
            wanted = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
            positions, _ = self._whole.base_model.get_rope_index(**{name: inputs[name] for name in wanted})
        else:
            positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        if past is not None:
            positions = positions + past.next_position.repeat_interleave(len(mask) // len(past))[:, None]
        return positions
