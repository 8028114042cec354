"""The semantic head: names a picture and its parts with words of the codebook, for the pyramid's top layers.

Not in the paper, which learns meaning from a million pictures. A frozen classifier gives class probabilities of the
picture and of its regions, ConSE makes each a text vector, and this head maps text vectors to the codebook's space.
It learns from *words* alone: made-up mixtures of class texts in, the words nearest to the mixture out.

Letters: B batch, T text_dim, C embedding_dim, V codebook size, K classes, R cells of the top layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spae_core.configs import RankedWordsConfig
from spae_core.conse_encoder import ConseImageEncoder


class SemanticHead(nn.Sequential):
    """Text vectors (B, T) to unit vectors (B, C) of the lookup space."""

    def __init__(self, text_dim: int, hidden_dim: int, embedding_dim: int) -> None:
        super().__init__(
            nn.Linear(text_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, embedding_dim),
        )

    def forward(self, text_vectors: Tensor) -> Tensor:
        """Map (B, T) to (B, C), rows of norm 1."""
        hidden = text_vectors
        for layer in self:
            hidden = layer(hidden)
        return F.normalize(hidden, dim=1)


class RankedWords(nn.Module):
    """Picture to the words of the pyramid's top layers, each where its thing is."""

    def __init__(self, config: RankedWordsConfig, embedding_dim: int) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ConseImageEncoder(num_classes=config.num_classes, text_dim=config.text_dim)
        self.head = SemanticHead(config.text_dim, config.hidden_dim, embedding_dim)

    @torch.no_grad()
    def forward(self, images: Tensor, table: Tensor, grids: Sequence[tuple[int, int]]) -> Tensor:
        """Choose a word for each cell of the top layers, all different.

        Args:
            images: (B, 3, H, W) in [0, 1].
            table: (V, C) word vectors: the codebook's, before any scaling or projection.
            grids: (h, w) of each layer, coarse to fine; R cells in all, at most V.

        Returns:
            int64 (B, R), code indices layer by layer, raster inside a layer. With `local_weight` 0 every cell asks for
            the whole picture, and the words are its nearest in order of rank.
        """
        probabilities = self.image_encoder.local_probabilities(images, grids, local_weight=self.config.local_weight)
        batch, num_cells = probabilities.shape[:2]
        queries = self.head(self.image_encoder.mix_class_texts(probabilities.flatten(0, 1)))
        return choose_words(queries.view(batch, num_cells, -1), table)


def choose_words(queries: Tensor, table: Tensor) -> Tensor:
    """Give each query the nearest word that none before it took.

    Args:
        queries: (B, R, C).
        table: (V, C), V at least R.

    Returns:
        int64 (B, R); nearest by squared L2, equal distances to the lowest index.
    """
    order = torch.arange(len(table), device=table.device)
    squares = table.square().sum(dim=1)
    taken = torch.zeros(len(queries), len(table), dtype=torch.bool, device=table.device)
    chosen = []
    for query in queries.float().unbind(dim=1):
        scores = (squares - 2 * query @ table.t()).masked_fill(taken, torch.inf)
        nearest = torch.where(scores == scores.amin(dim=1, keepdim=True), order, len(table)).amin(dim=1)
        taken.scatter_(1, nearest[:, None], True)
        chosen.append(nearest)
    return torch.stack(chosen, dim=1)


def made_up_mixtures(
    class_vectors: Tensor, generator: torch.Generator, batch_size: int, num_neighbours: int = 9
) -> Iterator[Tensor]:
    """Endless batches of text vectors (B, T) such as a classifier in doubt would give.

    One main class and some of its neighbours by text similarity, weights from a Dirichlet distribution that favours
    the main class; the mixture is scaled to norm 1 as ConSE's is.
    """
    similarity = class_vectors @ class_vectors.t()
    while True:
        main = torch.randint(len(class_vectors), (batch_size,), generator=generator)
        noise = torch.rand(batch_size, len(class_vectors), generator=generator)
        # Neighbours are drawn by similarity with Gumbel noise: mostly near classes, now and then a far one.
        spread = 0.02 + 0.1 * torch.rand(batch_size, 1, generator=generator)
        keys = similarity[main] / spread - (-noise.clamp_min(1e-9).log()).log()
        keys[torch.arange(batch_size), main] = torch.inf
        chosen = keys.topk(num_neighbours + 1, dim=1).indices
        weights = torch.empty(batch_size, num_neighbours + 1).exponential_(generator=generator)
        # The main class leads by a factor from 1 (all alike) to 300 (a sure classifier), log-uniform.
        weights[:, 0] *= 300 ** torch.rand(batch_size, generator=generator)
        weights = weights / weights.sum(dim=1, keepdim=True)
        yield F.normalize((weights[..., None] * class_vectors[chosen]).sum(dim=1), dim=1)


def train_semantic_head(
    head: SemanticHead,
    *,
    class_vectors: Tensor,
    word_vectors: Tensor,
    table: Tensor,
    num_steps: int = 3000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    num_targets: int = 3,
    temperature: float = 0.05,
    seed: int = 0,
) -> list[float]:
    """Teach the head to rank the words nearest in meaning first.

    Args:
        head: Trained in place.
        class_vectors: (K, T) unit text vectors of the classifier's classes.
        word_vectors: (V, T) unit text vectors of the codebook's words.
        table: (V, C) lookup vectors, rows of norm 1.
        num_steps: Optimizer steps; 3,000 take about two minutes on one CPU core.
        batch_size: Mixtures a step.
        learning_rate: Adam's, decayed to 0 by a cosine.
        num_targets: Nearest words that share the probability.
        temperature: Of the softmax over all V words.
        seed: Of mixtures; the head's own start is the caller's.

    Returns:
        The loss of every step, nats.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    losses = []
    mixtures = made_up_mixtures(class_vectors, generator, batch_size)
    for _, texts in zip(range(num_steps), mixtures, strict=False):
        targets = (texts @ word_vectors.t()).topk(num_targets, dim=1).indices
        log_probabilities = F.log_softmax(head(texts) @ table.t() / temperature, dim=1)
        loss = -log_probabilities.gather(1, targets).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses
