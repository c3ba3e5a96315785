"""The table of supported model families, and how their layers' outputs are laid out.

A family locates a network's stages, first convolution and tokens. To support another one, add a row to `FAMILIES`;
which methods fit and what the dashboard offers is derived from it. A network of no known family can be used with every
method that needs only its layers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import timm.models.resnet
import timm.models.swin_transformer
import timm.models.swin_transformer_v2
import timm.models.vision_transformer
import torchvision.models.resnet
import torchvision.models.swin_transformer
import torchvision.models.vision_transformer
from jaxtyping import Float
from torch import Tensor, nn

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
class Family:
    """One row of the table of model families: how to locate the parts of one kind of network.

    Attributes:
        name: Name of the family.
        matches: Whether a network belongs to the family.
        stages: Names of the layers whose output has spatial positions, shallow to deep.
        cam_layer: Name of the deepest layer whose positions all receive gradient.
        first_convolution: Name of the convolution whose input is the image.
        normalised_cam_layer: Name of the layer normalisation that follows `cam_layer`, if there is one. Before it,
            activation times gradient sums to 0 over the channels of a position, because the normalisation removes the
            length of each token, and only rounding errors remain.
        tokens: Layout of the tokens for an input size (height, width).
        position_embedding: Learned position embedding of the patches "patches width" and its grid, if there is one.
        classify_tokens: Logits that the classifier gives each of the tokens "n width".
        stage_grids: Rows and columns of the stages for an input size, if channels are the last axis.
    """

    name: str
    matches: Callable[[nn.Module], bool]
    stages: Callable[[nn.Module], tuple[str, ...]]
    cam_layer: Callable[[nn.Module], str]
    first_convolution: Callable[[nn.Module], str]
    normalised_cam_layer: Callable[[nn.Module], str] | None = None
    tokens: Callable[[nn.Module, Size], TokenLayout] | None = None
    position_embedding: Callable[[nn.Module], tuple[Tensor, Size] | None] = lambda module: None
    classify_tokens: Callable[[nn.Module, Tensor], Tensor] | None = None
    stage_grids: Callable[[nn.Module, Size], Collection[Size]] | None = None

    def within(self, prefix: str, *, is_output: bool) -> Family:
        """Return the family of a network that holds a network of this family as a submodule.

        Args:
            prefix: Name of the submodule.
            is_output: Whether the outputs of the submodule are those of the network, so that its classifier is too.
        """

        def find_layer(find: Callable[[nn.Module], str]) -> Callable[[nn.Module], str]:
            return lambda module: f"{prefix}.{find(module.get_submodule(prefix))}"

        normalised, tokens, classify, grids = (
            self.normalised_cam_layer,
            self.tokens,
            self.classify_tokens if is_output else None,
            self.stage_grids,
        )
        return Family(
            name=self.name,
            matches=lambda module: False,  # found by a pass, not by the class of the network
            stages=lambda module: tuple(f"{prefix}.{name}" for name in self.stages(module.get_submodule(prefix))),
            cam_layer=find_layer(self.cam_layer),
            first_convolution=find_layer(self.first_convolution),
            normalised_cam_layer=normalised and find_layer(normalised),
            tokens=tokens and (lambda module, size: tokens(module.get_submodule(prefix), size)),
            position_embedding=lambda module: self.position_embedding(module.get_submodule(prefix)),
            classify_tokens=classify and (lambda module, tokens: classify(module.get_submodule(prefix), tokens)),
            stage_grids=grids and (lambda module, size: grids(module.get_submodule(prefix), size)),
        )


def _resnet_stages(module: nn.Module) -> tuple[str, ...]:
    """Return the stages of a network of the ResNet family."""
    return ("layer1", "layer2", "layer3", "layer4")


def _find_convolution(module: nn.Module, parent: str) -> str:
    """Return the first convolution of a family's submodule; deep stems and hybrid patch embeddings have several."""
    parts = module.get_submodule(parent).named_modules(prefix=parent)
    return next(name for name, part in parts if isinstance(part, nn.Conv2d))


def _timm_vit_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of timm's ViT family: its blocks."""
    return tuple(f"blocks.{i}" for i in range(len(module.blocks)))


def _timm_vit_tokens(module, size: Size) -> TokenLayout:
    """Return the token layout of a network of timm's ViT family."""
    names = ("class",) if module.cls_token is not None else ()
    if hasattr(module, "dist_token"):
        names += ("distillation",)
    names += tuple(f"register {i + 1}" for i in range(module.num_prefix_tokens - len(names)))
    rows, columns = module.patch_embed.dynamic_feat_size(size)
    classifier_tokens = [i for i, name in enumerate(names) if name in ("class", "distillation")]
    return TokenLayout(names, (rows, columns), tuple(classifier_tokens) if module.global_pool in ("token", "") else ())


def _timm_vit_cam_layer(module) -> str:
    """Return the default layer for class activation maps of timm's ViT family."""
    # If the classifier reads only the class token, the gradient of the last block's patch tokens is exactly 0.
    last = len(module.blocks) - 1
    return f"blocks.{last - 1 if module.global_pool == 'token' and last else last}"


def _timm_vit_normed_layer(module) -> str:
    """Return the layer normalisation after the default layer for class activation maps of timm's ViT family."""
    if module.global_pool == "token":
        last = len(module.blocks) - 1
        first_in_block = isinstance(
            module.blocks[last], timm.models.vision_transformer.Block
        )  # other blocks normalise elsewhere
        return f"blocks.{last}.norm1" if first_in_block else _timm_vit_cam_layer(module)
    return _timm_vit_cam_layer(module) if isinstance(module.norm, nn.Identity) else "norm"


def _timm_vit_classify(module, tokens: Tensor) -> Tensor:
    """Return the logits that the classifier of a network of timm's ViT family gives each token."""
    tokens = module.head_drop(module.fc_norm(module.norm(tokens)))
    if hasattr(module, "head_dist"):
        return (module.head(tokens) + module.head_dist(tokens)) / 2
    return module.head(tokens)


def _timm_vit_position(module) -> tuple[Tensor, Size] | None:
    """Return the position embedding of the patches, and its grid, of a network of timm's ViT family."""
    if module.pos_embed is None:
        return None
    rows, columns = module.patch_embed.grid_size
    return module.pos_embed[0, -rows * columns :].detach(), (rows, columns)


def _torchvision_vit_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of torchvision's ViT family: its encoder layers."""
    return tuple(f"encoder.layers.{name}" for name, _ in module.encoder.layers.named_children())


def _torchvision_vit_tokens(module, size: Size) -> TokenLayout:
    """Return the token layout of a network of torchvision's ViT family."""
    return TokenLayout(("class",), (size[0] // module.patch_size, size[1] // module.patch_size), (0,))


def _torchvision_vit_classify(module, tokens: Tensor) -> Tensor:
    """Return the logits that the classifier of a network of torchvision's ViT family gives each token."""
    return module.heads(module.encoder.ln(tokens))


def _torchvision_vit_position(module) -> tuple[Tensor, Size]:
    """Return the position embedding of the patches, and its grid, of a network of torchvision's ViT family."""
    side = module.image_size // module.patch_size
    return module.encoder.pos_embedding[0, 1:].detach(), (side, side)


def _timm_swin_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of timm's Swin family."""
    return tuple(f"layers.{i}" for i in range(len(module.layers)))


def _timm_swin_grids(module, size: Size) -> list[Size]:
    """Return the grid of each stage of a network of timm's Swin family."""
    return _merge_grids(module.patch_embed.dynamic_feat_size(size), len(_timm_swin_stages(module)))


def _torchvision_swin_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of torchvision's Swin family."""
    return tuple(f"features.{i}" for i in range(1, len(module.features), 2))  # even indices embed or merge patches


def _torchvision_swin_grids(module, size: Size) -> list[Size]:
    """Return the grid of each stage of a network of torchvision's Swin family."""
    rows, columns = (side // stride for side, stride in zip(size, module.features[0][0].stride, strict=True))
    return _merge_grids((rows, columns), len(_torchvision_swin_stages(module)))


def _merge_grids(grid: Size, stages: int) -> list[Size]:
    """Return the grid of each stage of a Swin family, where each merges 2 × 2 patches, an odd side padded."""
    grids = [grid]
    while len(grids) < stages:
        rows, columns = grids[-1]
        grids.append(((rows + 1) // 2, (columns + 1) // 2))
    return grids


FAMILIES = (
    Family(
        name="ResNet",
        matches=lambda module: isinstance(module, (timm.models.resnet.ResNet, torchvision.models.resnet.ResNet)),
        stages=_resnet_stages,
        cam_layer=lambda module: "layer4",
        first_convolution=lambda module: _find_convolution(module, "conv1"),
    ),
    Family(
        name="ViT",
        matches=lambda module: isinstance(module, timm.models.vision_transformer.VisionTransformer),
        stages=_timm_vit_stages,
        cam_layer=_timm_vit_cam_layer,
        normalised_cam_layer=_timm_vit_normed_layer,
        first_convolution=lambda module: _find_convolution(module, "patch_embed"),
        tokens=_timm_vit_tokens,
        position_embedding=_timm_vit_position,
        classify_tokens=_timm_vit_classify,
    ),
    Family(
        name="ViT (torchvision)",
        matches=lambda module: isinstance(module, torchvision.models.vision_transformer.VisionTransformer),
        stages=_torchvision_vit_stages,
        cam_layer=lambda module: _torchvision_vit_stages(module)[-2:][0],  # the classifier reads only the class token
        normalised_cam_layer=lambda module: f"{_torchvision_vit_stages(module)[-1]}.ln_1",
        first_convolution=lambda module: "conv_proj",
        tokens=_torchvision_vit_tokens,
        position_embedding=_torchvision_vit_position,
        classify_tokens=_torchvision_vit_classify,
    ),
    Family(
        name="Swin",
        matches=lambda module: isinstance(
            module, (timm.models.swin_transformer.SwinTransformer, timm.models.swin_transformer_v2.SwinTransformerV2)
        ),
        stages=_timm_swin_stages,
        cam_layer=lambda module: _timm_swin_stages(module)[-1],
        normalised_cam_layer=lambda module: "norm",
        first_convolution=lambda module: _find_convolution(module, "patch_embed"),
        stage_grids=_timm_swin_grids,
    ),
    Family(
        name="Swin (torchvision)",
        matches=lambda module: isinstance(module, torchvision.models.swin_transformer.SwinTransformer),
        stages=_torchvision_swin_stages,
        cam_layer=lambda module: _torchvision_swin_stages(module)[-1],
        normalised_cam_layer=lambda module: "norm",
        first_convolution=lambda module: _find_convolution(module, "features"),
        stage_grids=_torchvision_swin_grids,
    ),
)


def find_family(module: nn.Module) -> Family | None:
    """Return the model family of a network, its row in `FAMILIES`; `None` if there is none."""
    return next((family for family in FAMILIES if family.matches(module)), None)


def find_inner_families(module: nn.Module) -> list[tuple[str, Family]]:
    """Return name and family of each outermost submodule that belongs to a family of `FAMILIES`."""
    found: list[tuple[str, Family]] = []
    for name, part in module.named_modules():
        family = find_family(part) if name else None
        if family is not None and not any(name.startswith(f"{outer}.") for outer, _ in found):
            found.append((name, family))
    return found


def to_spatial_map(
    activation: Tensor, tokens: TokenLayout | None, grids: Collection[Size] = ()
) -> Float[Tensor, "channels rows columns"] | None:
    """Return a layer's output, laid out as in its model's family, as one map per channel; patches return to their grid.

    Args:
        activation: Output of one photo, with a batch axis of 1.
        tokens: Layout of the tokens of a transformer.
        grids: Grids of the stages of a family with channels last.

    Returns:
        The maps, or `None` for an output without spatial positions (pooled features, logits) or one cut into windows.
    """
    if activation.ndim == 4 and len(activation) == 1:
        if grids:  # other sizes are attention scores or windows; a small stage has a single window
            if find_channel_axis(activation, grids) == -1:
                return activation[0].movedim(-1, 0)
            return activation[0] if tuple(activation.shape[2:]) in grids else None
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
    return None


def find_channel_axis(activation: Tensor, grids: Collection[Size] = ()) -> int:
    """Return the axis that holds the channels of a layer's output, by the layout of the model's family.

    Args:
        activation: Output with a batch axis.
        grids: Grids of the stages of a family with channels last; it decides ambiguous shapes such as 8 × 8 × 8.
    """
    return 1 if activation.ndim == 4 and tuple(activation.shape[1:3]) not in grids else -1
