"""Keyword spotting: cross-entropy where a recording's keyword is heard best, and where most else is heard.

Max-pooling loss: Sun et al. 2017, https://arxiv.org/abs/1705.02411; no one says when the keyword is spoken,
so the row at which the model hears it best is taught it. Here other rows are taught it too, as far as they
hear it: of a model that has learnt nothing the best row would be one at random, and it would stay with that.
Mining: Hou et al. 2020, https://arxiv.org/abs/2011.01460; of the rows that should be blank only the hardest
are taught, since nearly all of the others are blank already.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge_speech.errors import InputError
from edge_speech.training.data import Batch
from edge_speech.training.models import Model
from edge_speech.training.objectives import Objective, output_lengths
from edge_speech.training.recipe import Recipe
from edge_speech.training.tokens import Tokens

# So many rows about the best one may hear the keyword too. With more the posterior may fall and rise again,
# and the decoder of the runtime would write the keyword twice.
NEAR_ROWS = 4
# No keyword has been said so early: without it, how a recording begins is learnt in place of a rare keyword.
EARLIEST_ROW = 5
# So many rows of a recording, the worst, are taught that nothing else is said.
HARDEST_ROWS = 10


def build(recipe: Recipe, tokens: Tokens, model: Model) -> Objective:
    """Max-pooling cross-entropy over the recipe's keywords."""
    return CrossEntropy(tokens)


class CrossEntropy(Objective):
    """Recordings hold one keyword, a unit of the tokens, or none: then the blank is right throughout."""

    error = "error"

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, model: Model, batch: Batch) -> Tensor:
        """See Objective. Raises InputError on a recording with several units."""
        keywords = keywords_of(batch)
        return max_pooling_loss(model.parallel(batch.features), output_lengths(model, batch), keywords)

    def decode(self, model: Model, features: Tensor) -> str:
        """The keyword heard best in any row, if that row hears it more likely than not."""
        heard, keyword = model.parallel(features)[0, :, 1:].amax(dim=0).max(dim=0)
        return self.tokens.decode([1 + int(keyword)]) if heard.exp() > 0.5 else ""

    def error_rate(self, said: list[str], heard: list[str]) -> float:
        """Recordings of which something else was heard than said, in percent."""
        wrong = sum(truth != found for truth, found in zip(said, heard, strict=True))
        return round(100 * wrong / len(said), 2)


def keywords_of(batch: Batch) -> Tensor:
    """Number of the keyword (B,) of each recording, 0 where there is none. Raises InputError."""
    if (most := int(batch.target_lengths.max())) > 1:
        raise InputError(
            f"objective 'cross_entropy' takes recordings of one keyword or none, one has {most} units; "
            'set data.units = "phrases" where a keyword has several words, and compose none'
        )
    keywords = torch.zeros_like(batch.target_lengths, device=batch.targets.device)
    keywords[batch.target_lengths == 1] = batch.targets.to(keywords.dtype)  # that of no targets is float
    return keywords


def max_pooling_loss(log_probs: Tensor, lengths: Tensor, keywords: Tensor) -> Tensor:
    """log_probs (B, T, V), rows of each (B,), keywords (B,) with 0 for none → mean loss per recording.

    Of a keyword: the mean of -ln p over the rows, weighted by p², so mostly that of the best row. Of all
    recordings: the mean of -ln p of what may be heard over the hardest rows; that is the blank, and near the
    best row the keyword too.
    """
    log_probs = log_probs.float()
    row = torch.arange(log_probs.shape[1], device=log_probs.device)
    outside = row >= lengths.to(row.device)[:, None]
    blank = log_probs[:, :, 0]
    keyword = log_probs.gather(2, keywords[:, None, None].expand(-1, len(row), 1)).squeeze(2)
    early = row < (lengths.to(row.device)[:, None] - 1).clamp(max=EARLIEST_ROW)
    where = keyword.detach().masked_fill(outside | early, -torch.inf)
    place = where.argmax(dim=1)
    heard = ((2 * where).softmax(dim=1) * keyword).sum(dim=1)
    said = keywords > 0
    near = said[:, None] & ((row - place[:, None]).abs() <= NEAR_ROWS)
    wrong = -torch.where(near, torch.logaddexp(blank, keyword), blank)
    hardest = wrong.masked_fill(outside, 0.0).topk(min(HARDEST_ROWS, len(row)), dim=1).values
    return (hardest.mean(dim=1) - torch.where(said, heard, torch.zeros_like(heard))).mean()
