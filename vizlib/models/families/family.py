"""What a row of the table of model families states, and helpers of several rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vizlib.models.families.layouts import Size, StageLayout, TokenLayout, WindowLayout


@dataclass(frozen=True)
class Family:
    """One row of the table of model families: how to locate the parts of one kind of network.

    Attributes:
        name: Name of the family.
        matches: Whether a network belongs to the family.
        stages: Names of the layers whose output has spatial positions, shallow to deep.
        cam_layer: Name of the deepest layer whose positions all receive gradient.
        first_convolution: Name of the convolution whose input is the image; `None` if the network has none.
        normalised_cam_layer: Name of the layer normalisation that follows `cam_layer`, if there is one. Before it,
            activation times gradient sums to 0 over the channels of a position, because the normalisation removes the
            length of each token, and only rounding errors remain.
        tokens: Layout of the tokens for an input size (height, width).
        position_embedding: Learned position embedding of the patches "patches width" and its grid, if there is one.
        classify_tokens: Logits that the classifier gives each of the tokens "n width".
        stage_layout: Axes and grids of the stages for an input size, if they are not those of `tokens`, or of maps with
            channels first in a network without attention.
        windows: Name -> layout of each attention layer, for an input size, if attention is computed within windows.
    """

    name: str
    matches: Callable[[nn.Module], bool]
    stages: Callable[[nn.Module], tuple[str, ...]]
    cam_layer: Callable[[nn.Module], str]
    first_convolution: Callable[[nn.Module], str | None]
    normalised_cam_layer: Callable[[nn.Module], str] | None = None
    tokens: Callable[[nn.Module, Size], TokenLayout] | None = None
    position_embedding: Callable[[nn.Module], tuple[Tensor, Size] | None] = lambda module: None
    classify_tokens: Callable[[nn.Module, Tensor], Tensor] | None = None
    stage_layout: Callable[[nn.Module, Size], StageLayout] | None = None
    windows: Callable[[nn.Module, Size], Mapping[str, WindowLayout]] | None = None

    def within(self, prefix: str, *, is_output: bool, has_score: bool = False) -> Family:
        """Return the family of a network that holds a network of this family as a submodule.

        Args:
            prefix: Name of the submodule.
            is_output: Whether the outputs of the submodule are those of the network, so that its classifier is too.
            has_score: Whether the network has a method `score_backbone`, from the name of a submodule and what it
                returns to the outputs of the network.
        """

        def find_layer(find: Callable[[nn.Module], str]) -> Callable[[nn.Module], str]:
            return lambda module: f"{prefix}.{find(module.get_submodule(prefix))}"

        def find_first(module: nn.Module) -> str | None:
            name = self.first_convolution(module.get_submodule(prefix))
            return name and f"{prefix}.{name}"

        def find_windows(module: nn.Module, size: Size) -> Mapping[str, WindowLayout]:
            found = windows(module.get_submodule(prefix), size) if windows else {}
            return {f"{prefix}.{name}": layout for name, layout in found.items()}

        def classify_inner(module: nn.Module, tokens: Tensor) -> Tensor:
            assert self.classify_tokens is not None
            outputs = self.classify_tokens(module.get_submodule(prefix), tokens)
            scorer: Any = module
            return scorer.score_backbone(prefix, outputs) if has_score else outputs

        normalised, tokens, layout, windows = (
            self.normalised_cam_layer,
            self.tokens,
            self.stage_layout,
            self.windows,
        )
        return Family(
            name=self.name,
            matches=lambda module: False,  # found by a pass, not by the class of the network
            stages=lambda module: tuple(f"{prefix}.{name}" for name in self.stages(module.get_submodule(prefix))),
            cam_layer=find_layer(self.cam_layer),
            first_convolution=find_first,
            normalised_cam_layer=normalised and find_layer(normalised),
            tokens=tokens and (lambda module, size: tokens(module.get_submodule(prefix), size)),
            position_embedding=lambda module: self.position_embedding(module.get_submodule(prefix)),
            classify_tokens=classify_inner if self.classify_tokens and (is_output or has_score) else None,
            stage_layout=layout and (lambda module, size: layout(module.get_submodule(prefix), size)),
            windows=windows and find_windows,
        )


@dataclass(frozen=True)
class WindowedNetwork:
    """A kind of network without a row in the table of families, whose windows of attention are known.

    Attributes:
        matches: Whether a network is of this kind.
        windows: As in `Family`.
    """

    matches: Callable[[nn.Module], bool]
    windows: Callable[[nn.Module, Size], Mapping[str, WindowLayout]]


def find_convolution(module: nn.Module, parent: str) -> str:
    """Return the first convolution of a family's submodule; deep stems and hybrid patch embeddings have several."""
    parts = module.get_submodule(parent).named_modules(prefix=parent)
    return next(name for name, part in parts if isinstance(part, nn.Conv2d))


def is_class_of(module: nn.Module, package: str, names: Collection[str]) -> bool:
    """Return whether a network of a family is of one of the named classes of a package, which is not imported here."""
    kind = type(module)
    return kind.__name__ in names and kind.__module__.startswith(f"{package}.")


def merge_grids(grid: Size, stages: int) -> StageLayout:
    """Return the layout of the stages of a Swin family, where each merges 2 × 2 patches, an odd side padded."""
    grids = [grid]
    while len(grids) < stages:
        rows, columns = grids[-1]
        grids.append(((rows + 1) // 2, (columns + 1) // 2))
    return StageLayout("channels last", tuple(grids))
