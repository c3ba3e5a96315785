"""What a student network can learn from a teacher besides the labels (Hinton 2015; Romero 2015; Zagoruyko 2017)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

DISTILLATION_KINDS = ("logits", "classes", "patches", "features", "attention", "blocks")


class Teacher(nn.Module):
    """A frozen network whose answers, tokens or attention the student learns to reproduce.

    `kinds` says of what:

    * `logits`: all of the teacher's classes. The student has its own few, so it gets a spare classifier for the
      teacher's on the same features; that one learns with it and is thrown away afterwards.
    * `classes`: how the teacher decides among the student's own classes, which `classes` names by their places among
      the teacher's. A label says that a photo shows a church; the teacher says whether this crop of it still does.
    * `patches`: the tokens of the photo's patches that the teacher's last block reads, by a convolutional student: each
      place of its last map must hold, through a spare projection, what the teacher knows of that place. That is many
      answers a photo where the labels are one, which counts when photos are few.
    * `features`: the tokens before the first block and after each (two vision transformers of one width and depth).
    * `attention`: every layer's attention weights (two vision transformers of one depth and number of heads).
    * `blocks`: as `features`, but for the first half of the training every student block is handed the teacher's tokens
      and must give the teacher's next ones: twelve short tasks learned at once, where one long chain would learn
      slowly from so few photos (blockwise distillation, Li et al. 2020).
    """

    def __init__(
        self,
        name: str,
        weights: str | None,
        kinds: Sequence[str],
        student: nn.Module,
        size: int,
        classes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.kinds, self.size, self.classes = kinds, size, list(classes)
        sized = {"dynamic_img_size": True} if hasattr(student, "blocks") or "vit" in name or "deit" in name else {}
        self.model = timm.create_model(name, pretrained=weights is None, **sized).eval()
        if weights:
            self.model.load_state_dict(load_file(weights))
        self.model.requires_grad_(False)
        if "classes" in kinds and max(self.classes, default=0) >= self.model.num_classes:
            raise SystemExit(f"{name} has {self.model.num_classes} classes; the student's are among ImageNet's 1,000")
        self.auxiliary_heads = nn.ModuleDict()  # what learns with the student and is thrown away afterwards
        if "logits" in kinds:
            self.auxiliary_heads["logits"] = nn.Linear(student.num_features, self.model.num_classes)
        if "patches" in kinds:
            self.auxiliary_heads["patches"] = nn.Conv2d(student.num_features, self.model.embed_dim, 1)
        if "attention" in kinds:
            use_explicit_attention(self.model)

    def train(self, mode: bool = True) -> Teacher:
        """A teacher stays in evaluation mode."""
        return super().train(False)

    def forward(self, student: nn.Module, images: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """The student's logits, and how far it is from the teacher on these images; `progress` runs from 0 to 1."""
        alike = {"features", "attention", "blocks"} & set(self.kinds)
        if not alike:
            features = student.forward_features(images)
            pooled = student.forward_head(features, pre_logits=True)
            logits = student.get_classifier()(pooled)
            return logits, self._pooled_apart(features, pooled, logits, images)
        with torch.no_grad():
            wanted, wanted_attention = _tokens(self.model, images)
        if "blocks" in self.kinds and progress < 0.5:
            apart = _embedding_apart(student, images, wanted[0])
            for block, before, after in zip(student.blocks, wanted, wanted[1:], strict=False):
                gap = F.mse_loss(block(before).float(), after.float())
                apart = apart + gap / F.mse_loss(before.float(), after.float())  # as a share of what the block adds
            return student.forward_head(student.norm(wanted[-1])), apart
        got, got_attention = _tokens(student, images)
        apart = images.new_zeros(())
        if "features" in self.kinds or "blocks" in self.kinds:
            widths = got[0].shape[-1:]
            gaps = [
                F.smooth_l1_loss(F.layer_norm(one.float(), widths), F.layer_norm(other.float(), widths))
                for one, other in zip(got, wanted, strict=True)
            ]
            apart = apart + 4.0 * torch.stack(gaps).mean()
        if "attention" in self.kinds:
            gaps = [
                F.kl_div(one.float().clamp_min(1e-8).log(), other.float(), reduction="none").sum(-1).mean()
                for one, other in zip(got_attention, wanted_attention, strict=True)
            ]
            apart = apart + torch.stack(gaps).mean()
        pooled = student.forward_head(student.norm(got[-1]), pre_logits=True)
        logits = student.get_classifier()(pooled)
        return logits, apart + self._answers_apart(pooled, logits, self.model.forward_head(self.model.norm(wanted[-1])))

    def _pooled_apart(self, features: Tensor, pooled: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """How far a student of any kind is from the teacher's answers, and a convolutional one from its patches."""
        with torch.no_grad():  # a transformer sees small photos poorly, so it is shown them enlarged
            enlarged = F.interpolate(images, self.size, mode="bicubic", antialias=True)
            tokens = list(_through(self.model, enlarged)) if "patches" in self.kinds else []
            wanted = self.model.forward_head(self.model.norm(tokens[-1])) if tokens else self.model(enlarged)
        apart = self._answers_apart(pooled, logits, wanted)
        if "patches" in self.kinds:
            patches = tokens[-2][:, self.model.num_prefix_tokens :].transpose(1, 2)  # (n, width, patches)
            side = math.isqrt(patches.shape[-1])
            map_ = F.adaptive_avg_pool2d(patches.unflatten(2, (side, side)).float(), features.shape[-2:])
            got, there = (x.flatten(2).transpose(1, 2) for x in (self.auxiliary_heads["patches"](features).float(), map_))
            widths = there.shape[-1:]
            apart = apart + 4.0 * F.smooth_l1_loss(F.layer_norm(got, widths), F.layer_norm(there, widths))
        return apart

    def _answers_apart(self, pooled: Tensor, logits: Tensor, wanted: Tensor) -> Tensor:
        """How far the student is from the teacher's logits `wanted`, among all classes and among the student's own."""
        apart = pooled.new_zeros(())
        if "logits" in self.kinds:
            apart = apart + _divergence(self.auxiliary_heads["logits"](pooled), wanted)
        if "classes" in self.kinds:
            apart = apart + _divergence(logits, wanted[:, self.classes])
        return apart


def _divergence(got: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence of two batches of logits."""
    return F.kl_div(got.float().log_softmax(-1), wanted.float().softmax(-1), reduction="batchmean")


def use_explicit_attention(model: nn.Module) -> nn.Module:
    """Let a vision transformer compute its attention step by step, so that a hook sees the weights.

    The answers are the same, and on a CPU the fused kernel's backward pass is the slower one.
    """
    for block in getattr(model, "blocks", ()):
        block.attn.fused_attn = False
    return model


def _embedding_apart(student, images: Tensor, wanted: Tensor) -> Tensor:
    tokens = _embedded(student, images)
    return F.mse_loss(tokens.float(), wanted.float()) / wanted.float().var()


def _embedded(model, images: Tensor) -> Tensor:
    return model.norm_pre(model._pos_embed(model.patch_embed(images)))


def _tokens(model, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """A vision transformer's tokens before its first block and after each, and every block's attention weights."""
    attention: list[Tensor] = []
    with_hooks = [block.attn.attn_drop.register_forward_pre_hook(_keep(attention)) for block in model.blocks]
    try:
        tokens = list(_through(model, images))
    finally:
        for hook in with_hooks:
            hook.remove()
    return tokens, attention


def _keep(kept: list[Tensor]):
    return lambda module, inputs: kept.append(inputs[0])


def _through(model, images: Tensor) -> Iterator[Tensor]:
    tokens = _embedded(model, images)
    yield tokens
    for block in model.blocks:
        tokens = block(tokens)
        yield tokens
