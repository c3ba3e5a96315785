"""Distillation: losses between a student network and a frozen teacher.

References:
    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531.
    Romero et al.: FitNets: Hints for Thin Deep Nets, ICLR 2015, arXiv:1412.6550.
    Zagoruyko, Komodakis: Paying More Attention to Attention, ICLR 2017, arXiv:1612.03928.
    Li et al.: Blockwisely Supervised Neural Architecture Search with Knowledge Distillation, CVPR 2020,
        arXiv:1911.13053.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

DISTILLATION_KINDS = ("logits", "classes", "patches", "features", "attention", "blocks")


class Teacher(nn.Module):
    """A frozen network, and the loss of a student that learns to reproduce its outputs, tokens or attention.

    Args:
        name: Name of a timm model.
        weights: Path of its `.safetensors`; None for timm's pretrained weights.
        kinds: What the student reproduces; the losses are added.

            * `logits`: the logits of all of the teacher's classes. As the student has fewer classes, it gets an
              auxiliary classifier on the same features, which is trained with it and discarded afterwards.
            * `classes`: the teacher's probabilities among the student's own classes. They depend on the training crop,
              unlike the label of the photo.
            * `patches`: the patch tokens that the teacher's last block reads, for a convolutional student: each
              position of its last feature map must reproduce them through an auxiliary projection. These are many
              targets per photo instead of one label, which matters if there are few photos.
            * `features`: the tokens before the first block and after each (two vision transformers of one width and
              depth).
            * `attention`: the attention weights of all layers (two vision transformers of one depth and number of
              heads).
            * `blocks`: as `features`, but in the first half of the training every block of the student gets the
              teacher's tokens and must return the teacher's next ones. This trains all blocks at once as short tasks,
              which is faster than one long chain if there are few photos (blockwise distillation).
        student: The network to train.
        size: Side of the teacher's input in pixels; photos are resized to it.
        classes: For `classes`: the index of each of the student's classes among the teacher's.

    Attributes:
        auxiliary_heads: Modules that are trained with the student and discarded afterwards.

    Raises:
        SystemExit: If the teacher does not have these classes.
    """

    def __init__(
        self,
        name: str,
        weights: str | None,
        kinds: Sequence[str],
        student: Any,
        size: int,
        classes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.kinds, self.size, self.classes = kinds, size, list(classes)
        sized: dict[str, Any] = (
            {"dynamic_img_size": True} if hasattr(student, "blocks") or "vit" in name or "deit" in name else {}
        )
        self.model: Any = timm.create_model(name, pretrained=weights is None, **sized).eval()
        if weights:
            self.model.load_state_dict(load_file(weights))
        self.model.requires_grad_(False)
        if "classes" in kinds and max(self.classes, default=0) >= self.model.num_classes:
            raise SystemExit(f"{name} has {self.model.num_classes} classes; the student's are among ImageNet's 1,000")
        self.auxiliary_heads = nn.ModuleDict()
        if "logits" in kinds:
            self.auxiliary_heads["logits"] = nn.Linear(student.num_features, self.model.num_classes)
        if "patches" in kinds:
            self.auxiliary_heads["patches"] = nn.Conv2d(student.num_features, self.model.embed_dim, 1)
        if "attention" in kinds:
            use_explicit_attention(self.model)

    def train(self, mode: bool = True) -> Teacher:
        """Keep evaluation mode whatever `mode` is."""
        return super().train(False)

    def forward(self, student: Any, images: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """Return the student's logits and the distillation loss.

        Args:
            student: The network to train.
            images: Normalised images "n 3 h w".
            progress: Fraction of the training that is done, from 0 to 1.
        """
        compares_tokens = {"features", "attention", "blocks"} & set(self.kinds)
        if not compares_tokens:
            features = student.forward_features(images)
            pooled = student.forward_head(features, pre_logits=True)
            logits = student.get_classifier()(pooled)
            return logits, self._feature_loss(features, pooled, logits, images)
        with torch.no_grad():
            teacher_tokens, teacher_attention = _collect_tokens_and_attention(self.model, images)
        if "blocks" in self.kinds and progress < 0.5:
            loss = compute_block_losses(student, images, student.blocks, teacher_tokens).sum()
            return student.forward_head(student.norm(teacher_tokens[-1])), loss
        tokens, attention = _collect_tokens_and_attention(student, images)
        loss = images.new_zeros(())
        if "features" in self.kinds or "blocks" in self.kinds:
            shape = tokens[0].shape[-1:]
            losses = [
                F.smooth_l1_loss(F.layer_norm(own.float(), shape), F.layer_norm(target.float(), shape))
                for own, target in zip(tokens, teacher_tokens, strict=True)
            ]
            loss = loss + 4.0 * torch.stack(losses).mean()
        if "attention" in self.kinds:
            loss = loss + compute_attention_losses(attention, teacher_attention).mean()
        pooled = student.forward_head(student.norm(tokens[-1]), pre_logits=True)
        logits = student.get_classifier()(pooled)
        teacher_logits = self.model.forward_head(self.model.norm(teacher_tokens[-1]))
        return logits, loss + self._logit_loss(pooled, logits, teacher_logits)

    def _feature_loss(self, features: Tensor, pooled: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Return the loss for `logits` and `classes`, and of a convolutional student for `patches`."""
        with torch.no_grad():  # small photos are enlarged, as a transformer has low accuracy on them
            enlarged = F.interpolate(images, self.size, mode="bicubic", antialias=True)
            tokens = collect_tokens(self.model, enlarged, self.model.blocks) if "patches" in self.kinds else []
            teacher_logits = self.model.forward_head(self.model.norm(tokens[-1])) if tokens else self.model(enlarged)
        loss = self._logit_loss(pooled, logits, teacher_logits)
        if "patches" in self.kinds:
            patches = tokens[-2][:, self.model.num_prefix_tokens :].transpose(1, 2)  # (n, width, patches)
            side = math.isqrt(patches.shape[-1])
            rows, columns = features.shape[-2:]
            grid = F.adaptive_avg_pool2d(patches.unflatten(2, (side, side)).float(), (rows, columns))
            projected = self.auxiliary_heads["patches"](features).float()
            own, target = (x.flatten(2).transpose(1, 2) for x in (projected, grid))
            shape = target.shape[-1:]
            loss = loss + 4.0 * F.smooth_l1_loss(F.layer_norm(own, shape), F.layer_norm(target, shape))
        return loss

    def _logit_loss(self, pooled: Tensor, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return the divergence from the teacher's logits, over all of its classes and over the student's own."""
        loss = pooled.new_zeros(())
        if "logits" in self.kinds:
            loss = loss + compute_kl_divergence(self.auxiliary_heads["logits"](pooled), teacher_logits)
        if "classes" in self.kinds:
            loss = loss + compute_kl_divergence(logits, teacher_logits[:, self.classes])
        return loss


def compute_kl_divergence(logits: Tensor, target_logits: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of two batches of logits, mean over the batch."""
    return F.kl_div(logits.float().log_softmax(-1), target_logits.float().softmax(-1), reduction="batchmean")


def use_explicit_attention(model: Any) -> nn.Module:
    """Make a vision transformer compute its attention weights explicitly, so that a hook can record them; in place.

    The outputs are the same. On a CPU this is also faster, because of the fused kernel's backward pass.
    """
    for block in getattr(model, "blocks", ()):
        block.attn.fused_attn = False
    return model


def compute_block_losses(
    student: Any, images: Tensor, parts: Sequence[Callable[[Tensor], Tensor]], teacher_tokens: Sequence[Tensor]
) -> Tensor:
    """Return the error of the student's embedding and of each of its parts, given the teacher's tokens before it.

    Args:
        student: A vision transformer of the teacher's width.
        images: Normalised images "n 3 h w".
        parts: The student's blocks or half blocks, each from tokens to tokens "n tokens width".
        teacher_tokens: The teacher's tokens before its first part and after each.

    Returns:
        Mean squared errors "parts+1": of the embedding as a fraction of the variance of the teacher's, and of each
        part as a fraction of the mean square of what the teacher's part adds to its input.
    """
    targets = [tokens.float() for tokens in teacher_tokens]
    losses = [F.mse_loss(_embed(student, images).float(), targets[0]) / targets[0].var()]
    for part, before, after in zip(parts, targets, targets[1:], strict=False):
        losses.append(F.mse_loss(part(before).float(), after) / F.mse_loss(before, after))
    return torch.stack(losses)


def compute_own_token_losses(
    student: Any,
    images: Tensor,
    parts: Sequence[Callable[[Tensor], Tensor]],
    teacher_parts: Sequence[Callable[[Tensor], Tensor]],
    teacher_embedding: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the error of the student's embedding and of each of its parts, given the student's own tokens before it.

    What a part must return is what the teacher's part makes of the same tokens. So each part learns on the tokens that
    it gets in use, and its gradient does not pass through other parts.

    Args:
        student: A vision transformer of the teacher's width and depth.
        images: Normalised images "n 3 h w".
        parts: The student's blocks or half blocks, each from tokens to tokens "n tokens width".
        teacher_parts: Those of the teacher.
        teacher_embedding: The teacher's tokens before its first part.

    Returns:
        Mean squared errors "parts+1", as those of `compute_block_losses`; the student's last tokens "n tokens width",
        with the gradient of the last part only.

    References:
        Ross, Gordon, Bagnell: A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning,
        AISTATS 2011, arXiv:1011.0686.
    """
    tokens, target = _embed(student, images), teacher_embedding.float()
    losses = [F.mse_loss(tokens.float(), target) / target.var()]
    for part, teacher_part in zip(parts, teacher_parts, strict=True):
        before = tokens.detach()
        with torch.no_grad():
            target = teacher_part(before).float()
        tokens = part(before)
        losses.append(F.mse_loss(tokens.float(), target) / F.mse_loss(before.float(), target))
    return torch.stack(losses), tokens


def split_blocks(model: Any) -> list[Callable[[Tensor], Tensor]]:
    """Return the half blocks of a vision transformer in their order: attention and MLP of each, with the residual."""
    return [part for block in model.blocks for part in (partial(_attend, block), partial(_transform, block))]


def _attend(block: Any, tokens: Tensor) -> Tensor:
    return tokens + block.drop_path1(block.ls1(block.attn(block.norm1(tokens))))


def _transform(block: Any, tokens: Tensor) -> Tensor:
    return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))


def collect_tokens(model: Any, images: Tensor, parts: Sequence[Callable[[Tensor], Tensor]]) -> list[Tensor]:
    """Return a vision transformer's tokens "n tokens width" before its first part and after each."""
    tokens = [_embed(model, images)]
    for part in parts:
        tokens.append(part(tokens[-1]))
    return tokens


def _embed(model: Any, images: Tensor) -> Tensor:
    return model.norm_pre(model._pos_embed(model.patch_embed(images)))


@contextmanager
def record_attention(model: Any) -> Iterator[list[Tensor]]:
    """Yield a list to which each layer's attention weights "n heads queries keys" are appended when they are computed.

    The model must compute its attention explicitly (`use_explicit_attention`).
    """
    attention: list[Tensor] = []
    hooks = [block.attn.attn_drop.register_forward_pre_hook(_append_input(attention)) for block in model.blocks]
    try:
        yield attention
    finally:
        for hook in hooks:
            hook.remove()


def compute_attention_losses(attention: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Return the mean Kullback-Leibler divergence of attention weights "n heads queries keys" for each layer, "layers".

    References:
        Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding, EMNLP 2020, arXiv:1909.10351.
        Wang et al.: MiniLM: Deep Self-Attention Distillation, NeurIPS 2020, arXiv:2002.10957.
    """
    losses = [
        F.kl_div(own.float().clamp_min(1e-8).log(), target.float(), reduction="none").sum(-1).mean()
        for own, target in zip(attention, targets, strict=True)
    ]
    return torch.stack(losses)


def _collect_tokens_and_attention(model: Any, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return a vision transformer's tokens before its first block and after each, and all attention weights."""
    with record_attention(model) as attention:
        return collect_tokens(model, images, model.blocks), attention


def _append_input(inputs: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda module, arguments: inputs.append(arguments[0])
