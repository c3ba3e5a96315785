"""The table of supported model families, and how their layers' outputs are laid out.

A family locates a network's stages, first convolution and tokens. To support another one, add a row to `FAMILIES`;
which methods fit and what the dashboard offers is derived from it. A network of no known family can be used with every
method that needs only its layers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import timm.models.beit
import timm.models.eva
import timm.models.naflexvit
import timm.models.resnet
import timm.models.swin_transformer
import timm.models.swin_transformer_v2
import timm.models.vision_transformer
import timm.models.vision_transformer_relpos
import torch
import torch.nn.functional as F
import torchvision.models.maxvit
import torchvision.models.resnet
import torchvision.models.swin_transformer
import torchvision.models.vision_transformer
from jaxtyping import Float, Int
from torch import Tensor, nn

Size = tuple[int, int]  # height, width

# Vision transformers of timm with the parts of its ViT: prefix tokens and patches in `blocks`, then `norm` and a head.
TIMM_VITS = {
    timm.models.vision_transformer.VisionTransformer: "ViT",
    timm.models.eva.Eva: "EVA",
    timm.models.beit.Beit: "BEiT",
    timm.models.vision_transformer_relpos.VisionTransformerRelPos: "ViT with relative positions",
}
TIMM_PRE_NORM_BLOCKS = (  # other blocks normalise elsewhere
    timm.models.vision_transformer.Block,
    timm.models.eva.EvaBlock,
    timm.models.beit.Block,
    timm.models.vision_transformer_relpos.RelPosBlock,
)
# Classifiers of transformers whose head reads the class token, and the distillation token where it is a teacher's.
TRANSFORMERS_VITS = (
    "ViTForImageClassification",
    "ViTMSNForImageClassification",
    "DeiTForImageClassification",
    "DeiTForImageClassificationWithTeacher",
)
# Those whose head reads the patches, some the class token too.
TRANSFORMERS_PATCH_VITS = (
    "BeitForImageClassification",
    "Data2VecVisionForImageClassification",
    "Dinov2ForImageClassification",
    "Dinov2WithRegistersForImageClassification",
)


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

    def within(self, prefix: str, *, is_output: bool) -> Family:
        """Return the family of a network that holds a network of this family as a submodule.

        Args:
            prefix: Name of the submodule.
            is_output: Whether the outputs of the submodule are those of the network, so that its classifier is too.
        """

        def find_layer(find: Callable[[nn.Module], str]) -> Callable[[nn.Module], str]:
            return lambda module: f"{prefix}.{find(module.get_submodule(prefix))}"

        def find_first(module: nn.Module) -> str | None:
            name = self.first_convolution(module.get_submodule(prefix))
            return name and f"{prefix}.{name}"

        def find_windows(module: nn.Module, size: Size) -> Mapping[str, WindowLayout]:
            found = windows(module.get_submodule(prefix), size) if windows else {}
            return {f"{prefix}.{name}": layout for name, layout in found.items()}

        normalised, tokens, classify, layout, windows = (
            self.normalised_cam_layer,
            self.tokens,
            self.classify_tokens if is_output else None,
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
            classify_tokens=classify and (lambda module, tokens: classify(module.get_submodule(prefix), tokens)),
            stage_layout=layout and (lambda module, size: layout(module.get_submodule(prefix), size)),
            windows=windows and find_windows,
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
        first_in_block = isinstance(module.blocks[last], TIMM_PRE_NORM_BLOCKS)
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
    if getattr(module, "pos_embed", None) is None:
        return None
    rows, columns = module.patch_embed.grid_size
    return module.pos_embed[0, -rows * columns :].detach(), (rows, columns)


def _naflex_vit_convolution(module) -> str | None:
    """Return the convolution of a network of timm's NaFlexViT family; most embed patches with a linear layer."""
    return "embeds.proj" if isinstance(module.embeds.proj, nn.Conv2d) else None


def _naflex_vit_tokens(module, size: Size) -> TokenLayout:
    """Return the token layout of a network of timm's NaFlexViT family."""
    names = ("class",) if module.has_class_token else ()
    names += tuple(f"register {i + 1}" for i in range(module.num_prefix_tokens - len(names)))
    rows, columns = module.embeds.dynamic_feat_size(size)
    return TokenLayout(names, (rows, columns), (0,) if module.has_class_token and module.global_pool == "token" else ())


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


def _timm_swin_layout(module, size: Size) -> StageLayout:
    """Return the layout of the stages of a network of timm's Swin family."""
    return _merge_grids(module.patch_embed.dynamic_feat_size(size), len(_timm_swin_stages(module)))


def _timm_swin_windows(module, size: Size) -> dict[str, WindowLayout]:
    """Return the windows of each attention layer of a network of timm's Swin family."""
    return {
        f"layers.{i}.blocks.{j}.attn": WindowLayout(grid, tuple(block.window_size), tuple(block.shift_size), False)
        for i, grid in enumerate(_timm_swin_layout(module, size).grids)
        for j, block in enumerate(module.layers[i].blocks)
    }


def _torchvision_swin_windows(module, size: Size) -> dict[str, WindowLayout]:
    """Return the windows of each attention layer of a network of torchvision's Swin family."""
    return {
        f"{stage}.{j}.attn": _fit_shift(WindowLayout(grid, tuple(attn.window_size), tuple(attn.shift_size), True))
        for stage, grid in zip(
            _torchvision_swin_stages(module), _torchvision_swin_layout(module, size).grids, strict=True
        )
        for j, attn in enumerate(block.attn for block in module.get_submodule(stage).children())
    }


def _fit_shift(layout: WindowLayout) -> WindowLayout:
    """Return the windows that torchvision's Swin uses: not shifted along a side that a single window covers."""
    sides = zip(layout.grid, layout.window, layout.shift, strict=True)
    rows, columns = (0 if side <= window else shift for side, window, shift in sides)
    return replace(layout, shift=(rows, columns))


def _torchvision_swin_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of torchvision's Swin family."""
    return tuple(f"features.{i}" for i in range(1, len(module.features), 2))  # even indices embed or merge patches


def _torchvision_swin_layout(module, size: Size) -> StageLayout:
    """Return the layout of the stages of a network of torchvision's Swin family."""
    rows, columns = (side // stride for side, stride in zip(size, module.features[0][0].stride, strict=True))
    return _merge_grids((rows, columns), len(_torchvision_swin_stages(module)))


def _merge_grids(grid: Size, stages: int) -> StageLayout:
    """Return the layout of the stages of a Swin family, where each merges 2 × 2 patches, an odd side padded."""
    grids = [grid]
    while len(grids) < stages:
        rows, columns = grids[-1]
        grids.append(((rows + 1) // 2, (columns + 1) // 2))
    return StageLayout("channels last", tuple(grids))


def _is_class_of(module: nn.Module, package: str, names: Collection[str]) -> bool:
    """Return whether a network of a family is of one of the named classes of a package, which is not imported here."""
    kind = type(module)
    return kind.__name__ in names and kind.__module__.startswith(f"{package}.")


def _transformers_vit_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of the ViT families of transformers: its layers."""
    base = module.base_model
    parts = base.named_modules(prefix=module.base_model_prefix)
    name, layers = next((name, part) for name, part in parts if isinstance(part, nn.ModuleList))
    return tuple(f"{name}.{i}" for i in range(len(layers)))


def _transformers_vit_convolution(module) -> str:
    """Return the patch embedding of the ViT families of transformers."""
    return _find_convolution(module, module.base_model_prefix)


def _transformers_vit_tokens(module, size: Size) -> TokenLayout:
    """Return the token layout of a network of the ViT families of transformers."""
    embeddings = module.base_model.embeddings
    names = ("class",)
    if getattr(embeddings, "distillation_token", None) is not None:
        names += ("distillation",)
    if (registers := getattr(embeddings, "register_tokens", None)) is not None:
        names += tuple(f"register {i + 1}" for i in range(registers.shape[1]))
    rows, columns = (
        side // stride for side, stride in zip(size, embeddings.patch_embeddings.projection.stride, strict=True)
    )
    kind = type(module).__name__
    if kind == "DeiTForImageClassificationWithTeacher":
        read = (0, 1)
    else:
        read = () if getattr(module.config, "use_mean_pooling", False) else (0,)
    return TokenLayout(names, (rows, columns), read)


def _transformers_vit_reads_patches(module) -> bool:
    """Return whether the classifier of a network of the ViT families of transformers reads the patches."""
    return bool(getattr(module.config, "use_mean_pooling", False)) or type(module).__name__.startswith("Dinov2")


def _transformers_vit_cam_layer(module) -> str:
    """Return the default layer for class activation maps of the ViT families of transformers."""
    stages = _transformers_vit_stages(module)
    return stages[-1] if _transformers_vit_reads_patches(module) else stages[-2:][0]


def _transformers_vit_normed_layer(module) -> str:
    """Return the layer normalisation after the default layer of the ViT families of transformers."""
    if not _transformers_vit_reads_patches(module):
        last = _transformers_vit_stages(module)[-1]
        return next(
            f"{last}.{name}" for name in ("layernorm_before", "norm1") if hasattr(module.get_submodule(last), name)
        )
    final = f"{module.base_model_prefix}.layernorm"
    # BEiT normalises the mean of the patches, so nothing cancels at a position before it.
    return _transformers_vit_cam_layer(module) if hasattr(module.config, "use_mean_pooling") else final


def _transformers_vit_classify(module, tokens: Tensor) -> Tensor:
    """Return the logits that the classifier of a ViT of transformers gives each token."""
    tokens = module.base_model.layernorm(tokens)
    if hasattr(module, "distillation_classifier"):
        return (module.cls_classifier(tokens) + module.distillation_classifier(tokens)) / 2
    return module.classifier(tokens)


def _transformers_vit_position(module) -> tuple[Tensor, Size] | None:
    """Return the position embedding of the patches, and its grid, of the ViT families of transformers."""
    embedding = getattr(module.base_model.embeddings, "position_embeddings", None)
    patches = module.base_model.embeddings.patch_embeddings
    if not isinstance(embedding, Tensor):
        return None
    size = patches.image_size if isinstance(patches.image_size, (tuple, list)) else (patches.image_size,) * 2
    rows, columns = (side // stride for side, stride in zip(size, patches.projection.stride, strict=True))
    return embedding[0, -rows * columns :].detach(), (rows, columns)


def _is_open_clip_vit(module) -> bool:
    """Return whether a network belongs to open_clip's ViT family."""
    return _is_class_of(module, "open_clip", ("VisionTransformer",)) and getattr(
        module.transformer, "batch_first", False
    )


def _open_clip_vit_stages(module) -> tuple[str, ...]:
    """Return the stages of an image tower of open_clip's ViT family: its blocks."""
    return tuple(f"transformer.resblocks.{i}" for i in range(len(module.transformer.resblocks)))


def _open_clip_vit_reads_class(module) -> bool:
    """Return whether an image tower of open_clip's ViT family returns the class token of its last block only."""
    return module.attn_pool is None and module.pool_type == "tok"


def _open_clip_vit_tokens(module, size: Size) -> TokenLayout:
    """Return the token layout of an image tower of open_clip's ViT family."""
    rows, columns = (side // patch for side, patch in zip(size, module.patch_size, strict=True))
    return TokenLayout(("class",), (rows, columns), (0,) if _open_clip_vit_reads_class(module) else ())


def _open_clip_vit_cam_layer(module) -> str:
    """Return the default layer for class activation maps of open_clip's ViT family."""
    return _open_clip_vit_stages(module)[-2:][0 if _open_clip_vit_reads_class(module) else -1]


def _open_clip_vit_normed_layer(module) -> str:
    """Return the layer normalisation after the default layer of open_clip's ViT family."""
    if _open_clip_vit_reads_class(module):
        return f"{_open_clip_vit_stages(module)[-1]}.ln_1"
    if module.attn_pool is not None:
        return "attn_pool.ln_k"
    return _open_clip_vit_cam_layer(module) if module.final_ln_after_pool else "ln_post"


def _open_clip_vit_position(module) -> tuple[Tensor, Size]:
    """Return the position embedding of the patches, and its grid, of open_clip's ViT family."""
    return module.positional_embedding[1:].detach(), module.grid_size


def _open_clip_vit_classify(module, tokens: Tensor) -> Tensor:
    """Return the outputs that the head of an image tower of open_clip's ViT family gives each token."""
    return module.ln_post(tokens) @ module.proj


def _torchvision_maxvit_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of torchvision's MaxViT family: its blocks."""
    return tuple(f"blocks.{i}" for i in range(len(module.blocks)))


def _torchvision_maxvit_layout(module, size: Size) -> StageLayout:
    """Return the layout of the stages of torchvision's MaxViT family, each of which halves the sides, rounded up."""
    grids = [tuple((side + 1) // 2 for side in size)]
    for _ in module.blocks:
        grids.append(tuple((side + 1) // 2 for side in grids[-1]))
    return StageLayout("channels first", tuple((rows, columns) for rows, columns in grids))


_TRANSFORMERS_VIT = Family(
    name="ViT (transformers)",
    matches=lambda module: _is_class_of(module, "transformers", TRANSFORMERS_VITS),
    stages=_transformers_vit_stages,
    cam_layer=_transformers_vit_cam_layer,
    normalised_cam_layer=_transformers_vit_normed_layer,
    first_convolution=_transformers_vit_convolution,
    tokens=_transformers_vit_tokens,
    position_embedding=_transformers_vit_position,
    classify_tokens=_transformers_vit_classify,
)
_OPEN_CLIP_VIT = Family(
    name="ViT (open_clip)",
    matches=lambda module: _is_open_clip_vit(module) and module.attn_pool is None,
    stages=_open_clip_vit_stages,
    cam_layer=_open_clip_vit_cam_layer,
    normalised_cam_layer=_open_clip_vit_normed_layer,
    first_convolution=lambda module: "conv1",
    tokens=_open_clip_vit_tokens,
    position_embedding=_open_clip_vit_position,
    classify_tokens=_open_clip_vit_classify,
)

FAMILIES = (
    Family(
        name="ResNet",
        matches=lambda module: isinstance(module, (timm.models.resnet.ResNet, torchvision.models.resnet.ResNet)),
        stages=_resnet_stages,
        cam_layer=lambda module: "layer4",
        first_convolution=lambda module: _find_convolution(module, "conv1"),
    ),
    *(
        Family(
            name=name,
            matches=lambda module, kind=kind: isinstance(module, kind),
            stages=_timm_vit_stages,
            cam_layer=_timm_vit_cam_layer,
            normalised_cam_layer=_timm_vit_normed_layer,
            first_convolution=lambda module: _find_convolution(module, "patch_embed"),
            tokens=_timm_vit_tokens,
            position_embedding=_timm_vit_position,
            classify_tokens=_timm_vit_classify,
        )
        for kind, name in TIMM_VITS.items()
    ),
    Family(
        name="NaFlexViT",
        matches=lambda module: isinstance(module, timm.models.naflexvit.NaFlexVit),
        stages=_timm_vit_stages,
        cam_layer=_timm_vit_cam_layer,
        normalised_cam_layer=_timm_vit_normed_layer,
        first_convolution=_naflex_vit_convolution,
        tokens=_naflex_vit_tokens,
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
        stage_layout=_timm_swin_layout,
        windows=_timm_swin_windows,
    ),
    Family(
        name="Swin (torchvision)",
        matches=lambda module: isinstance(module, torchvision.models.swin_transformer.SwinTransformer),
        stages=_torchvision_swin_stages,
        cam_layer=lambda module: _torchvision_swin_stages(module)[-1],
        normalised_cam_layer=lambda module: "norm",
        first_convolution=lambda module: _find_convolution(module, "features"),
        stage_layout=_torchvision_swin_layout,
        windows=_torchvision_swin_windows,
    ),
    Family(
        name="MaxViT (torchvision)",
        matches=lambda module: isinstance(module, torchvision.models.maxvit.MaxVit),
        stages=_torchvision_maxvit_stages,
        cam_layer=lambda module: _torchvision_maxvit_stages(module)[-1],
        first_convolution=lambda module: _find_convolution(module, "stem"),
        stage_layout=_torchvision_maxvit_layout,
    ),
    _TRANSFORMERS_VIT,
    replace(
        _TRANSFORMERS_VIT,
        name="ViT that reads patches (transformers)",
        matches=lambda module: _is_class_of(module, "transformers", TRANSFORMERS_PATCH_VITS),
        classify_tokens=None,
    ),
    _OPEN_CLIP_VIT,
    replace(
        _OPEN_CLIP_VIT, name="ViT with attention pooling (open_clip)", matches=_is_open_clip_vit, classify_tokens=None
    ),
    Family(
        name="ResNet (open_clip)",
        matches=lambda module: _is_class_of(module, "open_clip", ("ModifiedResNet",)),
        stages=_resnet_stages,
        cam_layer=lambda module: "layer4",
        first_convolution=lambda module: "conv1",
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
