"""The token pyramid's geometry: which latent cell carries a token in which layer.

Source: arXiv 2306.17842, section on the dilation subsampler.

Letters: B batch, C channels, H×W latent grid, D number of layers, h_l×w_l grid of layer l (from 1), P(l) its cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spae_core.configs import PyramidConfig


def dilated_positions(size: int, count: int) -> list[int]:
    """Place `count` cells evenly on an axis of `size` cells, centred in their intervals.

    Args:
        size: Cells on the axis; a multiple of `count`.
        count: Cells to place.

    Returns:
        0-indexed positions s·i − ceil(s/2), i = 1..count, with s = size / count.

    Source: P(l) = {(h'·i − ceil(h'/2) + 1, w'·j − ceil(w'/2) + 1)}, which counts cells from 1.
    """
    stride = size // count
    return [stride * i - (stride + 1) // 2 for i in range(1, count + 1)]


class DilationSubsampler(nn.Module):
    """Reads and writes the cells that each layer owns on the H×W grid.

    Attributes:
        masks: bool (D, H, W), true where layer l owns the cell.
        first_owner: int64 (H, W), 0-indexed first layer that owns each cell.
        fill_sources: int64 (D, H·W). Entry [d, c] is the cell whose value stands in for cell c when d + 1 layers are
            used: c itself when it owns a token, else the nearest cell that does (ties to the lowest index).
    """

    masks: Tensor
    first_owner: Tensor
    fill_sources: Tensor

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        self.config = config
        height, width = config.grid
        masks = torch.zeros(config.num_layers, height, width, dtype=torch.bool)
        self.rows: list[list[int]] = []
        self.columns: list[list[int]] = []
        for layer, (layer_height, layer_width) in enumerate(config.layer_grids):
            self.rows.append(dilated_positions(height, layer_height))
            self.columns.append(dilated_positions(width, layer_width))
            masks[layer, torch.tensor(self.rows[layer])[:, None], torch.tensor(self.columns[layer])] = True
        self.register_buffer("masks", masks, persistent=False)
        self.register_buffer("first_owner", masks.int().argmax(dim=0), persistent=False)
        self.register_buffer("fill_sources", self._nearest_owners(masks), persistent=False)

    @staticmethod
    def _nearest_owners(masks: Tensor) -> Tensor:
        num_layers, height, width = masks.shape
        cells = torch.cartesian_prod(torch.arange(height), torch.arange(width)).float()
        distances = torch.cdist(cells, cells, compute_mode="donot_use_mm_for_euclid_dist")
        sources = []
        for layer in range(num_layers):
            owned = masks[: layer + 1].any(dim=0).flatten()
            sources.append(distances.masked_fill(~owned, torch.inf).argmin(dim=1))
        return torch.stack(sources)

    def gather(self, cells: Tensor, layer: int) -> Tensor:
        """Take layer's cells (B, h, w) out of a grid (B, H, W); `layer` counts from 0."""
        device = cells.device
        rows = torch.tensor(self.rows[layer], device=device)
        return cells[:, rows[:, None], torch.tensor(self.columns[layer], device=device)]

    def scatter(self, values: Tensor, layer: int, fill: int = -1) -> Tensor:
        """Put layer's values (B, h, w) on a grid (B, H, W) that is `fill` elsewhere; `layer` counts from 0."""
        height, width = self.config.grid
        cells = values.new_full((values.shape[0], height, width), fill)
        rows = torch.tensor(self.rows[layer], device=values.device)
        cells[:, rows[:, None], torch.tensor(self.columns[layer], device=values.device)] = values
        return cells

    def fill(self, grid: Tensor, num_layers: int) -> Tensor:
        """Give every cell of (B, C, H, W) the value of the nearest cell that owns a token in `num_layers` layers.

        Source: the paper decodes from layer 5 on only; coarser prefixes are ours.
        """
        source = self.fill_sources[num_layers - 1]
        return grid.flatten(2)[:, :, source].view_as(grid)
