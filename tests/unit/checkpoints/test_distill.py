"""Distillation losses, each against a slow implementation of its formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

SIZE = 160  # test_vit's own


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_file(timm.create_model("test_vit", num_classes=1000).state_dict(), path)
    return str(path)


def pair(weights: str, *kinds: str) -> tuple[Any, Any, torch.Tensor]:
    """A student, the teacher it learns from, and two photos."""
    from checkpoints.training.distill import Teacher, use_explicit_attention

    torch.manual_seed(0)
    student = use_explicit_attention(timm.create_model("test_vit", num_classes=10, dynamic_img_size=True))
    teacher = Teacher("test_vit", weights, kinds, student, SIZE)
    return student, teacher, torch.rand(2, 3, SIZE, SIZE) * 2 - 1


def compute_tokens_and_attention(model, images):
    """Return the tokens before the first block and after each, and the attention weights, computed from q and k."""
    tokens = [model.norm_pre(model._pos_embed(model.patch_embed(images)))]
    weights = []
    for block in model.blocks:
        attention, x = block.attn, block.norm1(tokens[-1])
        n, count, width = x.shape
        heads = attention.num_heads
        q, k, _ = attention.qkv(x).view(n, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        q, k = attention.q_norm(q), attention.k_norm(k)
        weights.append((q @ k.transpose(-1, -2) / math.sqrt(width // heads)).softmax(-1))
        tokens.append(block(tokens[-1]))
    return tokens, weights


def normalised(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()


def smooth_l1(a, b):
    gap = (a - b).abs()
    return torch.where(gap < 1, gap**2 / 2, gap - 0.5).mean()


def divergence(logits, target_logits):
    """Return the Kullback-Leibler divergence of logits, averaged over the photos."""
    p = target_logits.softmax(-1)
    return (p * (p.log() - logits.log_softmax(-1))).sum(-1).mean()


def test_feature_loss_compares_normalised_tokens_of_every_block(weights):
    student, teacher, images = pair(weights, "features")
    (actual, _), (expected, _) = (
        compute_tokens_and_attention(student, images),
        compute_tokens_and_attention(teacher.model, images),
    )
    slow: Any = (
        4 * sum(smooth_l1(normalised(a), normalised(b)) for a, b in zip(actual, expected, strict=True)) / len(actual)
    )
    logits, loss = teacher(student, images, 0.7)
    assert loss.item() == pytest.approx(slow.item(), rel=1e-5)
    assert torch.allclose(logits, student(images), atol=1e-6)


def test_attention_loss_is_the_divergence_of_attention_rows(weights):
    student, teacher, images = pair(weights, "attention")
    (_, actual), (_, expected) = (
        compute_tokens_and_attention(student, images),
        compute_tokens_and_attention(teacher.model, images),
    )
    slow: Any = sum((b * (b.log() - a.log())).sum(-1).mean() for a, b in zip(actual, expected, strict=True)) / len(
        actual
    )
    logits, loss = teacher(student, images, 0.0)
    assert loss.item() == pytest.approx(slow.item(), rel=1e-4)
    assert torch.allclose(logits, student(images), atol=1e-6)


@pytest.mark.parametrize("kinds", [("logits",), ("logits", "features")])
def test_logit_loss_uses_an_auxiliary_classifier(weights, kinds):
    student, teacher, images = pair(weights, *kinds)
    pooled = student.forward_head(student.forward_features(images), pre_logits=True)
    expected = divergence(teacher.auxiliary_heads["logits"](pooled), teacher.model(images))
    if "features" in kinds:
        expected = expected + pair(weights, "features")[1](student, images, 0.0)[1]
    logits, loss = teacher(student, images, 0.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.allclose(logits, student(images), atol=1e-6)


def test_teacher_gets_small_photos_enlarged(weights):
    student: Any = timm.create_model("resnet18", num_classes=10)
    from checkpoints.training.distill import Teacher

    teacher = Teacher("test_vit", weights, ("logits",), student, SIZE).eval()
    student.eval()
    images = torch.rand(2, 3, 96, 96)
    image = torch.nn.functional.interpolate(images, SIZE, mode="bicubic", antialias=True)
    pooled = student.global_pool(student.forward_features(images))
    logits, loss = teacher(student, images, 0.0)
    assert loss.item() == pytest.approx(
        divergence(teacher.auxiliary_heads["logits"](pooled), teacher.model(image)).item(), rel=1e-4
    )
    assert torch.allclose(logits, student(images), atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "test_vit"])
def test_class_loss_compares_the_students_classes(weights, name):
    from timm.data.imagenet_info import ImageNetInfo

    from checkpoints.training.distill import Teacher
    from checkpoints.training.imagenette import IMAGENET_INDICES, LABELS

    names = ImageNetInfo()
    assert [names.index_to_label_name(place) for place in IMAGENET_INDICES] == list(LABELS)
    sized: dict[str, Any] = {"dynamic_img_size": True} if "vit" in name else {}
    student = timm.create_model(name, num_classes=10, **sized).eval()
    teacher = Teacher("test_vit", weights, ("classes",), student, SIZE, IMAGENET_INDICES)
    images = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    logits, loss = teacher(student, images, 0.0)
    among = torch.stack([teacher.model(images)[:, place] for place in IMAGENET_INDICES], 1)
    assert loss.item() == pytest.approx(divergence(student(images), among).item(), rel=1e-4)
    assert torch.allclose(logits, student(images), atol=1e-6)


def test_teacher_without_the_students_classes_is_refused(tmp_path):
    from checkpoints.training.distill import Teacher

    save_file(timm.create_model("test_vit", num_classes=1000).state_dict(), tmp_path / "t.safetensors")
    student = timm.create_model("resnet18", num_classes=10)
    with pytest.raises(SystemExit, match="has 1000 classes; the student's are among"):
        Teacher("test_vit", str(tmp_path / "t.safetensors"), ("classes",), student, SIZE, [1000])


def test_patch_loss_compares_the_input_of_the_teachers_last_block(weights):
    from checkpoints.training.distill import Teacher

    torch.manual_seed(0)
    student: Any = timm.create_model("resnet18", num_classes=10).eval()
    teacher = Teacher("test_vit", weights, ("patches",), student, SIZE)
    images = torch.rand(2, 3, SIZE, SIZE)
    tokens, _ = compute_tokens_and_attention(teacher.model, images)
    features, last = student.forward_features(images), tokens[-2]  # 5 x 5 places, 10 x 10 patches and a class token
    projection: Any = teacher.auxiliary_heads["patches"]
    expected: Any = 0
    for photo in range(2):
        for row in range(5):
            for column in range(5):
                near = [1 + (2 * row + i) * 10 + 2 * column + j for i in (0, 1) for j in (0, 1)]
                options = last[photo, near].mean(0)
                actual = projection.weight[:, :, 0, 0] @ features[photo, :, row, column] + projection.bias
                expected += 4 * smooth_l1(normalised(actual), normalised(options)) / 50
    logits, loss = teacher(student, images, 0.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.allclose(logits, student(images), atol=1e-6)


def test_block_loss_trains_blocks_separately_then_chained(weights):
    student, teacher, images = pair(weights, "blocks")
    expected, _ = compute_tokens_and_attention(teacher.model, images)
    first = compute_tokens_and_attention(student, images)[0][0]
    slow = ((first - expected[0]) ** 2).mean() / expected[0].var()
    for block, before, after in zip(student.blocks, expected, expected[1:], strict=False):
        slow = slow + ((block(before) - after) ** 2).mean() / ((before - after) ** 2).mean()
    logits, loss = teacher(student, images, 0.49)
    assert loss.item() == pytest.approx(slow.item(), rel=1e-5)
    assert torch.allclose(logits, student.head(student.norm(expected[-1])[:, 0]), atol=1e-6)
    chained = pair(weights, "features")[1](student, images, 0.5)[1]
    assert teacher(student, images, 0.5)[1].item() == pytest.approx(chained.item(), rel=1e-6)


@pytest.mark.parametrize("kinds", [("features",), ("attention",), ("blocks",), ("logits", "features", "attention")])
def test_teacher_is_frozen_and_student_learns(weights, kinds):
    student, teacher, images = pair(weights, *kinds)
    before = {key: value.clone() for key, value in teacher.model.state_dict().items()}
    teacher.train()
    assert not teacher.model.training
    logits, loss = teacher(student, images, 0.0)
    (loss + logits.square().mean()).backward()
    assert all(part.grad is None for part in teacher.model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.model.state_dict().items())
    learning = [name for name, part in student.named_parameters() if part.grad is not None and part.grad.any()]
    assert "patch_embed.proj.weight" in learning
    assert "head.weight" in learning


def test_identical_student_has_zero_loss(weights):
    from safetensors.torch import load_file

    _, teacher, images = pair(weights, "features", "attention")
    twin = timm.create_model("test_vit", num_classes=1000, dynamic_img_size=True)
    twin.load_state_dict(load_file(weights))
    from checkpoints.training.distill import use_explicit_attention

    assert teacher(use_explicit_attention(twin), images, 0.0)[1].item() == pytest.approx(0, abs=1e-6)


def test_explicit_attention_equals_the_fused_kernel():
    from checkpoints.training.distill import use_explicit_attention

    model: Any = timm.create_model("test_vit", num_classes=10).eval()
    images = torch.rand(2, 3, SIZE, SIZE)
    fused = model(images)
    assert model.blocks[0].attn.fused_attn
    assert torch.allclose(use_explicit_attention(model)(images), fused, atol=1e-5)
    assert not model.blocks[0].attn.fused_attn
