"""What a listwise model is taught beside its answer: to know which candidate fits, which one each token is of, and to
look at the right one when it answers. An answer by identifier needs all three, and a small model finds none of them by
the answer alone.

The last is BlockRank's (arXiv:2510.05396): a contrastive loss on the attention that the answer's tokens pay to each
candidate. Letters: b lists, n tokens, c candidates, r tokens of answers, h width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from colmrl.models.language import LanguageModel
from colmrl.models.watching import Watched


def reading_layer(language: LanguageModel) -> int:
    """After how many layers candidates are read: two thirds, so that an answer can make use of it in what follows."""
    return max(1, round(language.layers * 2 / 3))


class Relevance(nn.Module):
    """A linear read-out of how well each candidate fits, from the mean of its own tokens' hidden states after two
    thirds of the layers: an answer can look for it in those that follow.
    """

    def __init__(self, language: LanguageModel):
        super().__init__()
        self.read = nn.Linear(language.hidden_size, 1, bias=False)

    def forward(self, hidden: Float[Tensor, "b n h"], candidate: Int[Tensor, "b n"]) -> Float[Tensor, "b c"]:
        """`candidate`: which one each token is of, from 1; 0: of none. -inf where a list has no such candidate."""
        of = F.one_hot(candidate)[:, :, 1:].to(hidden)
        count = of.sum(1)
        scores = (of * self.read(hidden)).sum(1) / count.clamp(min=1)
        return scores.masked_fill(count == 0, -torch.inf)


class Naming(nn.Module):
    """A linear read-out of which candidate each candidate's token is of, in the same place: what is copied from a
    token that fits is then its candidate's identifier.
    """

    def __init__(self, language: LanguageModel, candidates: int):
        super().__init__()
        self.read = nn.Linear(language.hidden_size, candidates)

    def forward(self, hidden: Float[Tensor, "b n h"], candidate: Int[Tensor, "b n"]) -> Float[Tensor, ""]:
        """Cross-entropy, a mean over candidates' tokens."""
        of_one = candidate > 0
        return F.cross_entropy(self.read(hidden[of_one]), candidate[of_one] - 1)


def looks_elsewhere(
    watched: Watched,
    rows: Int[Tensor, " r"],
    places: Int[Tensor, " r"],
    candidate: Int[Tensor, "b n"],
    target: Int[Tensor, " b"],
) -> Float[Tensor, ""]:
    """How little the tokens in these places, from which answers are read, look at what the right candidate is made of:
    the negative logarithm of their attention to it, of all that they pay, a mean over heads; then over lists.
    """
    weights = watched.weights(rows, places).mean(1)
    right = candidate[rows] == target[rows][:, None] + 1
    costs = -(weights * right).sum(1).clamp(min=torch.finfo(weights.dtype).tiny).log()
    count = torch.bincount(rows, minlength=len(target)).to(costs)
    return (costs / count[rows]).sum() / len(target)
