"""How the outputs of a network's layers are laid out: tokens, windows of attention, and maps of stages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class TokenLayout:
    """The tokens of a transformer family: prefix tokens, then the patches row by row.

    Attributes:
        names: Names of the prefix tokens: "class", "distillation", "register 1", ...
        grid: Rows and columns of patches.
        classifier_tokens: Indices of the tokens that the classifier reads; empty if it reads all patches.
    """

    names: tuple[str, ...]
    grid: Size
    classifier_tokens: tuple[int, ...]

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the first patch in the layout of the family."""
        return len(self.names)

    @property
    def num_tokens(self) -> int:
        """Number of all tokens in the layout of the family."""
        return self.num_prefix_tokens + self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class WindowLayout:
    """How an attention layer divides its grid of positions into windows.

    Attributes:
        grid: Rows and columns of the grid.
        window: Rows and columns of a window.
        shift: Rows and columns by which the grid is rolled up and to the left before it is divided.
        pads_first: Whether the grid is padded to whole windows before it is rolled, or after it.
    """

    grid: Size
    window: Size
    shift: Size
    pads_first: bool

    @cached_property
    def positions(self) -> Int[Tensor, "windows positions"]:
        """For each position of each window its index in the grid, row by row, or -1 for padding.

        References:
            Liu et al.: Swin Transformer, ICCV 2021, section 3.2, arXiv:2103.14030.
        """
        (rows, columns), (height, width) = self.grid, self.window
        indices = torch.arange(rows * columns).view(rows, columns)
        shifts = tuple(-shift for shift in self.shift)
        padding = (0, -columns % width, 0, -rows % height)
        if self.pads_first:
            indices = F.pad(indices, padding, value=-1).roll(shifts, (0, 1))
        else:
            indices = F.pad(indices.roll(shifts, (0, 1)), padding, value=-1)
        return indices.unflatten(1, (-1, width)).unflatten(0, (-1, height)).transpose(1, 2).flatten(2).flatten(0, 1)


@dataclass(frozen=True)
class StageLayout:
    """The axes of the outputs of a network's stages, where they are not those of one grid of tokens.

    Attributes:
        axes: `"channels first"`, `"channels last"`, or `"tokens"`: positions row by row, then channels.
        grids: Rows and columns of each stage.
        prefix_counts: Numbers of tokens before the first position that occur; read only if the axes are `"tokens"`.
    """

    axes: str
    grids: tuple[Size, ...]
    prefix_counts: tuple[int, ...] = (0,)


def to_spatial_map(
    activation: Tensor, tokens: TokenLayout | None, stages: StageLayout | None = None
) -> Float[Tensor, "channels rows columns"] | None:
    """Return a layer's output, laid out as in its model's family, as one map per channel; patches return to their grid.

    Args:
        activation: Output of one photo, with a batch axis of 1.
        tokens: Layout of the tokens of a transformer.
        stages: Layout of the stages of a network that has no such tokens.

    Returns:
        The maps, or `None` for an output without spatial positions (pooled features, logits) or one cut into windows.
    """
    if activation.ndim == 4 and len(activation) == 1:
        if stages is not None:  # other sizes are attention scores or windows; a small stage has a single window
            if find_channel_axis(activation, stages) == -1:
                return activation[0].movedim(-1, 0)
            return activation[0] if tuple(activation.shape[2:]) in stages.grids else None
        # Queries and keys have four axes too; a map has the same whole number of positions per patch on both axes.
        grid = tokens.grid if tokens else (1, 1)
        (rows, row_rest), (columns, column_rest) = map(divmod, activation.shape[-2:], grid)
        divides = not row_rest and not column_rest
        return activation[0] if divides and (tokens is None or rows == columns > 0) else None
    if activation.ndim == 3 and tokens is not None:
        rows, columns = tokens.grid
        num_prefix = activation.shape[1] - rows * columns
        if num_prefix in (0, tokens.num_prefix_tokens):  # the patch embedding's output has no prefix tokens
            return activation[0, num_prefix:].T.unflatten(1, (rows, columns))  # (tokens, c) -> (c, rows, columns)
    if activation.ndim == 3 and len(activation) == 1 and stages is not None and stages.axes == "tokens":
        counts = {(grid, activation.shape[1] - grid[0] * grid[1]) for grid in stages.grids}
        fitting = [(grid, count) for grid, count in counts if count in stages.prefix_counts]
        if len(fitting) == 1:  # else the number of tokens does not tell which grid they fill
            ((grid, count),) = fitting
            return activation[0, count:].T.unflatten(1, grid)
    return None


def find_channel_axis(activation: Tensor, stages: StageLayout | None = None) -> int:
    """Return the axis that holds the channels of a layer's output, by the layout of the model's family.

    Args:
        activation: Output with a batch axis.
        stages: Layout of the stages; its grids decide ambiguous shapes such as 8 × 8 × 8.
    """
    if activation.ndim != 4:
        return -1
    is_last = stages is not None and stages.axes == "channels last" and tuple(activation.shape[1:3]) in stages.grids
    return -1 if is_last else 1
