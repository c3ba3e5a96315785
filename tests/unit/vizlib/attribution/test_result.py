"""A result keeps its raw values wherever it is saved, and says what is wrong with it, when and only when it is."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vizlib
from vizlib import VizlibError
from vizlib.attribution.methods import diagnostics as notes
from vizlib.attribution.methods.base import Evidence
from vizlib.attribution.methods.registry import METHODS
from vizlib.core.atomic_files import open_atomic
from vizlib.render.color_scale import compute_limits

WHOLE = {"input_size": [3, 32, 32], "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}


@pytest.fixture
def photo():
    return vizlib.open_image(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


class Fixed(nn.Module):
    """A network whose logits are known: a bias, and a little of the photo."""

    def __init__(self, *logits: float, of_photo: float = 1e-3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, len(logits))
        self.register_buffer("bias", torch.tensor(logits))
        self.of_photo = of_photo

    def forward(self, image):
        return self.bias + self.of_photo * self.head(self.convolution(image).relu().mean((2, 3)))


def wrapped(*logits: float, of_photo: float = 1e-3, **preprocessing) -> vizlib.Model:
    module = Fixed(*logits, of_photo=of_photo).eval()
    labels = [f"thing {i}" for i in range(len(logits))]
    return vizlib.wrap(module, preprocessing={**WHOLE, **preprocessing}, labels=labels)


def said(model, photo, method="saliency", **options) -> tuple[str, ...]:
    return vizlib.explain(model, photo, method, **options).notes


SURE = (3.0, 0.0, 0.0, -1.0)

# ---------------------------------------------------------------------------------- saving


@pytest.fixture
def answer(photo):
    model = wrapped(*SURE, crop_mode="center", crop_pct=0.9)
    return vizlib.explain(model, photo, "input-x-gradient", target="thing 1")


def test_raw_values_survive_npz_to_the_bit(answer, tmp_path):
    path = answer.save(tmp_path / "why.npz")
    with np.load(path) as found:
        assert found["heat"].dtype == np.float32
        assert np.array_equal(found["heat"], answer.heat.numpy())
        assert np.array_equal(found["on_photo"], answer.on_photo(), equal_nan=True)
        assert json.loads(str(found["about"])) == json.loads(json.dumps(answer.to_dict()))


def test_raw_values_survive_json_to_the_bit(answer, tmp_path):
    found = json.loads(answer.save(tmp_path / "why.json").read_text())
    assert torch.equal(torch.tensor(found.pop("values")), answer.heat)
    assert found == json.loads(json.dumps(answer.to_dict()))
    assert (found["label"], found["target"], found["method"]) == ("thing 1", 1, "input-x-gradient")
    assert found["heat"]["min"] == answer.heat.min().item()
    assert found["seen"]["fraction"] == answer.geometry.visible_fraction < 1


def test_a_saved_picture_is_the_overlay_at_the_photos_own_size(answer, tmp_path, photo):
    with Image.open(answer.save(str(tmp_path / "why.png"))) as found:
        assert found.size == photo.size
        assert np.array_equal(np.asarray(found), np.asarray(answer.overlay()))
    limits = compute_limits(answer.on_photo(), signed=True)
    assert answer.overlay().tobytes() == answer.overlay(limits=limits).tobytes()


@pytest.mark.parametrize("name", ["why.bmp", "why", "why.png.gz", ".png"])
def test_another_ending_is_refused_with_those_there_are(answer, tmp_path, name):
    with pytest.raises(VizlibError, match=r"use one of \.png, \.svg, \.npz, \.json"):
        answer.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_figure_shows_the_overlay_beside_a_bar_of_the_raw_values(answer, tmp_path):
    board = answer.figure(colormap="PuOr_r", opacity=0.5)
    (axes,) = board.axes
    (beside,) = axes.child_axes
    shown = np.asarray(axes.images[0].get_array())
    assert np.array_equal(shown, np.asarray(answer.overlay(colormap="PuOr_r", opacity=0.5)))
    low, high = compute_limits(answer.on_photo(), signed=True)
    assert beside.get_ylim() == pytest.approx((low, high))
    assert beside.get_ylabel() == "raw values (below 0: against)"
    assert axes.get_title("left").startswith("input-x-gradient for thing 1 (")


def test_a_figure_is_saved_as_svg_with_what_a_label_holds_as_text(answer, tmp_path):
    hostile = replace(answer, label="$x^{$ <b>&\n'\"")
    text = hostile.save(tmp_path / "why.svg").read_text()
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "<b>" not in text
    assert "data:image/png;base64," in text
    assert "<dc:date>" not in text


def test_a_photo_is_made_smaller_for_a_figure_but_never_larger(answer):
    photo, heat = answer.within(30)
    assert (photo.size, heat.shape) == ((30, 20), (20, 30))
    assert np.array_equal(heat, answer.geometry.lift(answer.heat, (20, 30)), equal_nan=True)
    whole, heat = answer.within(1000)
    assert np.array_equal(np.asarray(whole), np.asarray(answer.photo))
    assert np.array_equal(heat, answer.on_photo(), equal_nan=True)


@pytest.mark.parametrize("ending", ["png", "svg", "npz", "json"])
def test_a_file_that_cannot_be_written_to_its_end_leaves_the_old_one_and_nothing_else(
    answer, tmp_path, ending, monkeypatch
):
    path = tmp_path / f"why.{ending}"
    path.write_text("the old one")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VizlibError, match=rf"^why\.{ending} cannot be written: No space left on device$"):
        answer.save(path)
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_can_be_read_whole_or_not_at_all_while_it_is_written(tmp_path):
    path = tmp_path / "why.bin"

    def interrupted() -> None:
        with open_atomic(path) as file:
            file.write(b"half of it")
            assert not path.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())
    with open_atomic(path) as file:
        file.write(b"all of it")
    assert path.read_bytes() == b"all of it"
    with (
        pytest.raises(VizlibError, match=r"^why\.bin cannot be written: No such file or directory$"),
        open_atomic(tmp_path / "nowhere" / "why.bin"),
    ):
        pass


# ---------------------------------------------------------------------------------- notes


def test_a_plain_result_carries_no_note(photo):
    for method in ("saliency", "input-x-gradient", "grad-cam"):
        assert (
            said(wrapped(*SURE, of_photo=0.1), photo, method, **({"relu": False} if method == "grad-cam" else {})) == ()
        )


@pytest.mark.parametrize(("target", "rank"), [(1, 3), (2, 4), (3, 2), ("thing 3", 2)])
def test_a_target_that_is_not_the_answer_is_said_with_its_rank(photo, target, rank):
    (note,) = said(wrapped(3.0, -1.0, -5.0, 0.0), photo, target=target)
    assert note.startswith("The model's answer is thing 0 (9")
    assert f"is only number {rank} (" in note


def test_the_rank_is_right_where_the_softmax_has_no_digits_left(photo):
    (note,) = said(wrapped(0.0, 200.0, -10.0, -20.0), photo, target=3)
    assert "only number 4 (< 0.1 %)" in note
    (note,) = said(wrapped(200.0, 0.0, -10.0, -20.0), photo, target=2)
    assert "only number 3 (" in note


def test_a_method_that_knows_no_class_has_no_word_about_the_target():
    row = METHODS["attention-rollout"]
    assert not row.class_specific
    model = vizlib.load("vit_tiny-imagenette")
    photo = Image.new("RGB", (160, 160), "grey")
    answer = model.predict(photo, top=10)
    last = vizlib.explain(model, photo, "attention-rollout", target=answer[-1].index)
    assert not any("only number" in note for note in last.notes)
    both = vizlib.explain(model, photo, "attention-rollout", against=answer[-1].index)
    assert any("attention-rollout knows no class" in note for note in both.notes)


def test_an_unsure_model_is_said_to_guess_and_only_for_its_answer(photo):
    (note,) = said(wrapped(0.3, 0.0, 0.0), photo)
    assert note == "The model is unsure: it gives its best guess 40 %."
    (note,) = said(wrapped(0.3, 0.0, 0.0), photo, target=1)
    assert "only number" in note
    assert said(wrapped(1.0, 0.0), photo) == ()


def test_a_gradient_of_exactly_zero_is_told_from_an_empty_map(photo):
    away = wrapped(*SURE, of_photo=0.0)
    (note,) = said(away, photo, "grad-cam", layer="convolution")
    assert note.startswith("The map is empty: the score does not depend on the places in convolution,")
    assert "gradient is exactly zero" in note
    (note,) = said(away, photo, "saliency")
    assert note == "The map is empty: nothing here speaks for thing 0."


def test_a_map_that_the_relu_empties_is_said_to_hold_nothing_for_the_class(photo):
    model = wrapped(*SURE, of_photo=0.1)
    with torch.no_grad():
        model.module.convolution.bias.fill_(50)  # every channel fires everywhere,
        model.module.head.weight[0], model.module.head.weight[1] = 1, -1  # for thing 0 and against thing 1
    assert said(model, photo, "grad-cam", target=0) == ()
    empty = "The map is empty: nothing here speaks for thing 1."
    assert empty in said(model, photo, "grad-cam", target=1)
    assert empty not in said(model, photo, "grad-cam", target=1, relu=False)


def test_what_was_cropped_away_is_said_from_a_fifth_of_the_photo_on(photo):
    (note,) = said(wrapped(*SURE, crop_mode="center", crop_pct=1.0), photo)  # 40 × 40 of 60 × 40
    assert note == "The model saw 67 % of the photo; the rest was cropped away and is dimmed."
    nearly = photo.resize((44, 40))
    assert said(wrapped(*SURE, crop_mode="center", crop_pct=1.0), nearly) == ()
    assert said(wrapped(*SURE, crop_mode="border"), photo) == ()


def test_a_saturated_softmax_is_said_where_the_probability_is_explained(photo):
    (note,) = said(wrapped(9.0, 0.0, 0.0), photo, score="probability")
    assert note.startswith("The softmax is saturated here")
    assert said(wrapped(9.0, 0.0, 0.0), photo, score="logit") == ()
    assert said(wrapped(2.0, 0.0), photo, score="probability") == ()


def test_a_class_against_itself_is_said_to_leave_nothing(photo):
    model = wrapped(*SURE)
    assert "A class against itself leaves nothing." in said(model, photo, against=0)
    assert not any("against" in note for note in said(model, photo, against=1))


def test_a_map_or_an_answer_that_is_not_finite_is_said_and_nothing_is_ranked(photo):
    model = wrapped(*SURE)
    run = model.run(photo)
    evidence = Evidence(model=model, run=run, score=lambda logits: logits[:, 0])
    heat = torch.tensor([[1.0, float("nan")]])
    (note,) = notes.collect_notes(heat, evidence, METHODS["saliency"], {}, 0, None)
    assert note == "The map holds values that are not finite, so it cannot be trusted."
    found = said(wrapped(float("nan"), 1.0, 2.0), photo, target=1)
    assert any("answer holds values that are not finite" in note for note in found)
    assert not any("only number" in note or "unsure" in note for note in found)


def test_training_mode_is_said_and_left(photo):
    model = wrapped(*SURE)
    model.module.train()
    (note,) = said(model, photo)
    assert "left in training mode" in note
    assert model.module.training


def test_what_was_done_to_the_photo_reaches_the_result():
    photo = vizlib.open_image(np.random.default_rng(0).random((32, 32, 3)))
    (note,) = said(wrapped(*SURE), photo)
    assert "float values" in note


def test_the_files_of_a_map_and_of_its_contrast_have_names_of_their_own(photo):
    model = wrapped(1.0, 2.0)
    plain = vizlib.explain(model, photo, "saliency", target=1)
    versus = vizlib.explain(model, photo, "saliency", target=1, against=0)
    named = [replace(one, model="hf-hub:a/b c").stem for one in (plain, versus)]
    assert named == ["hf-hub-a-b-c_saliency_1", "hf-hub-a-b-c_saliency_1_vs_0"]
