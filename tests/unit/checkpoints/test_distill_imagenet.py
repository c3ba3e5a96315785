"""Distillation without labels: losses against their formula, stages, resuming, termination, exported weights."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from checkpoints.training import distill_imagenet
from checkpoints.training.distill import (
    collect_tokens,
    compute_block_losses,
    split_blocks,
    use_explicit_attention,
)
from checkpoints.training.distill_imagenet import Progress, Run, catch_termination, compute_stage_loss, train

PHOTOS = [np.random.default_rng(i).integers(0, 256, (40 + i, 60 - i, 3), dtype=np.uint8) for i in range(8)]


def create_networks() -> tuple[Any, Any]:
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        networks.append(use_explicit_attention(timm.create_model("test_vit", num_classes=5, dynamic_img_size=True)))
    return networks[0], networks[1]


def create_run(folder: Path, monkeypatch, **more: Any) -> Run:
    monkeypatch.setattr(distill_imagenet, "LOG_STEPS", 2)
    monkeypatch.setattr(distill_imagenet, "EVALUATION_STEPS", 4)
    folder.mkdir(exist_ok=True)
    options = {"run": folder, "seed": 3, "tokens": 100, "init": None, "block_steps": 2, **more}
    images = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    validation = images, torch.tensor([0, 1, 2, 3, 4])
    run = Run(argparse.Namespace(**options), *create_networks(), torch.device("cpu"), validation)
    run.resume()
    return run


def without_seconds(history: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "cpu_seconds"} for row in history]


def compute_attention(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return the attention weights "n heads queries keys" of a block."""
    count, length, width = tokens.shape
    queries, keys, _ = block.attn.qkv(block.norm1(tokens)).reshape(count, length, 3, -1).unbind(2)
    heads = (count, length, block.attn.num_heads, width // block.attn.num_heads)
    scores = torch.einsum("nqhd,nkhd->nhqk", queries.reshape(heads), keys.reshape(heads))
    return (scores / (width // block.attn.num_heads) ** 0.5).softmax(-1)


def compute_divergence(student: Any, teacher: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return the mean Kullback-Leibler divergence of the attention weights of a block from those of the teacher's."""
    p, q = compute_attention(teacher, tokens).detach(), compute_attention(student, tokens)
    return (p * (p / q).log()).sum(-1).mean()


def test_chain_loss_compares_half_blocks_on_the_students_tokens_attention_and_logits():
    student, teacher = (network.eval() for network in create_networks())
    images = torch.randn(2, 3, 64, 64)
    tokens, target = (
        network.norm_pre(network._pos_embed(network.patch_embed(images))) for network in (student, teacher)
    )
    expected = ((tokens - target) ** 2).sum() / (target.numel() * target.var())
    halves = [
        lambda block, tokens: tokens + block.ls1(block.attn(block.norm1(tokens))),
        lambda block, tokens: tokens + block.ls2(block.mlp(block.norm2(tokens))),
    ]
    for own, theirs in zip(student.blocks, teacher.blocks, strict=True):
        expected = expected + compute_divergence(own, theirs, tokens.detach())
        for half in halves:
            before = tokens.detach()  # so that a half block learns from its own error only
            tokens, target = half(own, before), half(theirs, before).detach()
            expected = expected + ((tokens - target) ** 2).sum() / ((before - target) ** 2).sum()
    p, q = teacher(images).softmax(-1).detach(), student.forward_head(student.norm(tokens)).softmax(-1)
    expected = expected + (p * (p / q).log()).sum(-1).mean()
    weights = [student.blocks[0].attn.qkv.weight, student.blocks[-1].mlp.fc2.weight, student.head.weight]
    gradients = torch.autograd.grad(expected, weights)
    for stage in ("chain", "decay"):
        loss = compute_stage_loss(stage, student, teacher, images)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
        for ours, theirs in zip(torch.autograd.grad(loss, weights, retain_graph=True), gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    loss.backward()
    assert all(part.grad is not None for part in student.parameters())
    assert all(part.grad is None for part in teacher.parameters())


def test_block_loss_compares_the_attention_on_the_teachers_tokens():
    student, teacher = (network.eval() for network in create_networks())
    images = torch.randn(2, 3, 64, 64)
    targets = collect_tokens(teacher, images, split_blocks(teacher))
    expected = compute_block_losses(student, images, split_blocks(student), targets).sum()
    for own, theirs, tokens in zip(student.blocks, teacher.blocks, targets[::2], strict=False):
        expected = expected + compute_divergence(own, theirs, tokens)
    assert compute_stage_loss("blocks", student, teacher, images).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("stage", ["blocks", "chain"])
def test_a_copy_of_the_teacher_has_zero_loss(stage):
    student, teacher = create_networks()
    student.load_state_dict(teacher.state_dict())
    loss = compute_stage_loss(stage, student.eval(), teacher.eval(), torch.randn(2, 3, 64, 64))
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_learning_rate_rises_at_each_stage_and_falls_to_zero_in_the_last():
    stages = distill_imagenet.STAGES
    progress = Progress(0, 100)
    rates = {}
    for progress.step in (0, 39, 99, 100, 139, 500):
        rates[progress.step] = (progress.stage, progress.compute_learning_rate())
    assert rates[0] == ("blocks", pytest.approx(stages["blocks"].lr / 40))
    assert rates[39] == rates[99] == ("blocks", stages["blocks"].lr)
    assert rates[100] == ("chain", pytest.approx(stages["chain"].lr / 40))
    assert rates[139] == rates[500] == ("chain", stages["chain"].lr)
    progress.decay_start, progress.decay_steps = 501, 10
    for done in range(10):
        progress.step = 501 + done
        assert not progress.finished
        assert progress.stage == "decay"
        assert progress.compute_learning_rate() == pytest.approx(stages["decay"].lr * (10 - done) / 10)
    progress.step = 511
    assert progress.finished


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    whole, never = create_run(tmp_path / "whole", monkeypatch), threading.Event()
    train(whole, PHOTOS, 100, never, last_step=5)
    whole.start_decay(3)
    train(whole, PHOTOS, 100, never)
    for last_step in (1, 3, 5, 7, None):  # each time from the file, in each stage and between two rows of the history
        parts = create_run(tmp_path / "parts", monkeypatch)
        if parts.progress.step == 5:
            parts.start_decay(3)
        train(parts, PHOTOS, 100, never, last_step)
    assert parts.progress == whole.progress == Progress(8, 2, 5, 3)
    assert [row["stage"] for row in parts.history] == ["blocks", "chain", "decay", "decay"]
    assert without_seconds(parts.history) == without_seconds(whole.history)
    expected = whole.student.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in parts.student.state_dict().items())
    assert (tmp_path / "parts" / "history.csv").read_text().count("\n") == 5
    assert [row["val_top1"] is not None for row in whole.history] == [False, True, False, True]
    assert whole._validation is not None
    with torch.no_grad():
        predictions = whole.student.eval()(whole._validation[0]).argmax(1)
    assert whole.history[-1]["val_top1"] == 100 * (predictions == torch.arange(5)).sum().item() / 5


def test_photo_passes_are_counted_as_they_are_drawn(tmp_path, monkeypatch):
    run, counts, draw = create_run(tmp_path, monkeypatch), [], distill_imagenet.draw_batch
    monkeypatch.setattr(distill_imagenet, "draw_batch", lambda *args: counts.append(args[2]) or draw(*args))
    photos = PHOTOS * 2
    train(run, photos, 100, threading.Event(), last_step=5)
    run.start_decay(3)
    train(run, photos, 100, threading.Event())
    assert len(counts) == 8
    assert len(set(counts)) > 1
    assert distill_imagenet.count_photo_passes(run.progress, 3, 100) == sum(counts)


def test_the_first_stage_can_be_shortened_while_it_lasts(tmp_path, monkeypatch):
    run = create_run(tmp_path, monkeypatch, block_steps=None)
    assert run.progress == Progress(0, distill_imagenet.DEFAULT_BLOCK_STEPS)
    train(run, PHOTOS, 100, threading.Event(), last_step=3)
    assert create_run(tmp_path, monkeypatch, block_steps=None).progress.step == 3
    assert create_run(tmp_path, monkeypatch, block_steps=8).progress == Progress(3, 8)
    run = create_run(tmp_path, monkeypatch, block_steps=1)  # the steps that are done were of the first stage
    assert run.progress == Progress(3, 3)
    train(run, PHOTOS, 100, threading.Event(), last_step=4)
    assert create_run(tmp_path, monkeypatch, block_steps=8).progress == Progress(4, 3)


def test_a_second_decay_option_does_not_begin_again(tmp_path, monkeypatch):
    run = create_run(tmp_path, monkeypatch)
    run.start_decay(4)
    run.train_step(PHOTOS)
    run.start_decay(9)
    assert run.progress == Progress(1, 2, 0, 4)


def test_other_settings_are_refused(tmp_path, monkeypatch):
    create_run(tmp_path, monkeypatch).save()
    with pytest.raises(SystemExit, match="another seed: 3"):
        create_run(tmp_path, monkeypatch, seed=4)


def test_termination_saves_the_state_after_the_current_step(tmp_path, monkeypatch):
    run, before = create_run(tmp_path, monkeypatch), signal.getsignal(signal.SIGTERM)
    step = Run.train_step

    def terminate(self, photos):
        if self.progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, photos)

    monkeypatch.setattr(Run, "train_step", terminate)
    with catch_termination() as stop:
        train(run, PHOTOS, 100, stop, last_step=5)
    assert signal.getsignal(signal.SIGTERM) is before
    assert create_run(tmp_path, monkeypatch).progress.step == 3


def test_an_interrupted_save_leaves_the_state_before(tmp_path, monkeypatch):
    run, save = create_run(tmp_path, monkeypatch), torch.save
    run.save()

    def write_half(state, file):
        save(state, file)
        file.truncate(1000)
        raise KeyboardInterrupt

    run.train_step(PHOTOS)
    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(KeyboardInterrupt):
        run.save()
    assert create_run(tmp_path, monkeypatch).progress.step == 0


def test_a_loss_that_is_not_finite_ends_the_run_without_saving(tmp_path, monkeypatch):
    run = create_run(tmp_path, monkeypatch)
    run.save()
    with torch.no_grad():
        next(run.student.parameters()).fill_(float("nan"))
    with pytest.raises(SystemExit, match="loss of step 1 is nan"):
        train(run, PHOTOS, 100, threading.Event(), last_step=2)
    assert create_run(tmp_path, monkeypatch).progress.step == 0


def test_exported_weights_start_another_run(tmp_path, monkeypatch):
    monkeypatch.setattr(distill_imagenet, "ARCHITECTURE", "test_vit")
    run = create_run(tmp_path, monkeypatch)
    run.student = distill_imagenet.create_student(None, 5)
    run.save()
    distill_imagenet.export_weights(tmp_path / "last.pt", tmp_path / "weights.safetensors")
    student = distill_imagenet.create_student(tmp_path / "weights.safetensors", 6)
    expected = run.student.state_dict()
    assert all(torch.equal(value, expected[key].half().float()) for key, value in student.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "weights.safetensors"]
