"""Rows of the table of model families: classifiers of transformers, which is not imported here."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from vizlib.models.families.family import Family, WindowedNetwork, find_convolution, is_class_of, merge_grids
from vizlib.models.families.layouts import Size, TokenLayout, WindowLayout

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
TRANSFORMERS_SWINS = ("SwinForImageClassification", "DonutSwinForImageClassification", "Swinv2ForImageClassification")


def _transformers_vit_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of the ViT families of transformers: its layers."""
    base = module.base_model
    parts = base.named_modules(prefix=module.base_model_prefix)
    name, layers = next((name, part) for name, part in parts if isinstance(part, nn.ModuleList))
    return tuple(f"{name}.{i}" for i in range(len(layers)))


def _transformers_vit_convolution(module) -> str:
    """Return the patch embedding of the ViT families of transformers."""
    return find_convolution(module, module.base_model_prefix)


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


def _transformers_swin_windows(module, size: Size) -> dict[str, WindowLayout]:
    """Return the windows of each attention layer of the Swin families of transformers, which are square.

    Where a window is larger than the grid, version 1 changes the sizes when it runs, to the values returned here.
    """
    patches = module.base_model.embeddings.patch_embeddings.patch_size
    rows, columns = (-(-side // patch) for side, patch in zip(size, patches, strict=True))  # it pads the photo
    stages = module.base_model.encoder.layers
    found: dict[str, WindowLayout] = {}
    for i, (grid, stage) in enumerate(zip(merge_grids((rows, columns), len(stages)).grids, stages, strict=True)):
        for j, block in enumerate(stage.blocks):
            name = f"{module.base_model_prefix}.encoder.layers.{i}.blocks.{j}.attention"
            if hasattr(block.attention, "self"):  # where the weights are computed depends on the version
                name += ".self"
            fits = hasattr(block, "set_shift_and_window_size") and min(grid) <= block.window_size
            window, shift = (min(grid), 0) if fits else (block.window_size, block.shift_size)
            found[name] = WindowLayout(grid, (window, window), (shift, shift), pads_first=True)
    return found


_TRANSFORMERS_VIT = Family(
    name="ViT (transformers)",
    matches=lambda module: is_class_of(module, "transformers", TRANSFORMERS_VITS),
    stages=_transformers_vit_stages,
    cam_layer=_transformers_vit_cam_layer,
    normalised_cam_layer=_transformers_vit_normed_layer,
    first_convolution=_transformers_vit_convolution,
    tokens=_transformers_vit_tokens,
    position_embedding=_transformers_vit_position,
    classify_tokens=_transformers_vit_classify,
)


def _transformers_tower_stages(module) -> tuple[str, ...]:
    """Return the stages of an image tower of the CLIP family of transformers: its layers."""
    return tuple(f"encoder.layers.{i}" for i in range(len(module.encoder.layers)))


def _transformers_tower_tokens(module, size: Size) -> TokenLayout:
    """Return the token layout of an image tower of the CLIP family of transformers."""
    rows, columns = (
        side // stride for side, stride in zip(size, module.embeddings.patch_embedding.stride, strict=True)
    )
    has_class = hasattr(module.embeddings, "class_embedding")
    return TokenLayout(("class",) if has_class else (), (rows, columns), (0,) if has_class else ())


def _transformers_tower_position(module) -> tuple[Tensor, Size]:
    """Return the position embedding of the patches, and its grid, of the CLIP family of transformers."""
    config, embedding = module.config, module.embeddings.position_embedding.weight
    side = config.image_size // config.patch_size
    return embedding[-side * side :].detach(), (side, side)


def _transformers_tower_classify(module, tokens: Tensor) -> Tensor:
    """Return the features that an image tower of the CLIP family of transformers computes from each token."""
    return module.post_layernorm(tokens)


_TRANSFORMERS_CLIP_TOWER = Family(
    name="ViT of CLIP (transformers)",
    matches=lambda module: is_class_of(module, "transformers", ("CLIPVisionModel", "MetaClip2VisionModel")),
    stages=_transformers_tower_stages,
    cam_layer=lambda module: _transformers_tower_stages(module)[-2:][0],
    normalised_cam_layer=lambda module: f"{_transformers_tower_stages(module)[-1]}.layer_norm1",
    first_convolution=lambda module: "embeddings.patch_embedding",
    tokens=_transformers_tower_tokens,
    position_embedding=_transformers_tower_position,
    classify_tokens=_transformers_tower_classify,
)

TRANSFORMERS_FAMILIES = (
    _TRANSFORMERS_CLIP_TOWER,
    replace(
        _TRANSFORMERS_CLIP_TOWER,
        name="ViT of SigLIP (transformers)",
        matches=lambda module: is_class_of(module, "transformers", ("SiglipVisionModel",)),
        cam_layer=lambda module: _transformers_tower_stages(module)[-1],
        normalised_cam_layer=lambda module: "post_layernorm",
        classify_tokens=None,  # its attention pooling reads all patches
    ),
    _TRANSFORMERS_VIT,
    replace(
        _TRANSFORMERS_VIT,
        name="ViT that reads patches (transformers)",
        matches=lambda module: is_class_of(module, "transformers", TRANSFORMERS_PATCH_VITS),
        classify_tokens=None,
    ),
)
TRANSFORMERS_WINDOWED_NETWORKS = (
    WindowedNetwork(
        matches=lambda module: is_class_of(module, "transformers", TRANSFORMERS_SWINS),
        windows=_transformers_swin_windows,
    ),
)
