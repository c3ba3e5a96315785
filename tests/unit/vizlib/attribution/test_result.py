"""Attributions keep their raw values in every file format, and carry a note exactly when something is wrong."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vizlib
from vizlib import VizlibError
from vizlib.attribution.evidence import Evidence
from vizlib.attribution.explain import _collect_notes
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.target import TargetSpec
from vizlib.core.atomic_files import open_atomic
from vizlib.render.color_scale import compute_limits

UNCROPPED = {
    "input_size": [3, 32, 32],
    "crop_pct": 1.0,
    "crop_mode": "squash",
    "interpolation": "bilinear",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


@pytest.fixture
def photo():
    return vizlib.open_image(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


class FixedLogits(nn.Module):
    """A network with known logits: a bias plus a small term that depends on the photo."""

    def __init__(self, *logits: float, photo_scale: float = 1e-3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, len(logits))
        self.register_buffer("bias", torch.tensor(logits))
        self.photo_scale = photo_scale

    def forward(self, image):
        return self.bias + self.photo_scale * self.head(self.convolution(image).relu().mean((2, 3)))


def make_model(*logits: float, photo_scale: float = 1e-3, **preprocessing) -> vizlib.Model:
    module = FixedLogits(*logits, photo_scale=photo_scale).eval()
    labels = [f"thing {i}" for i in range(len(logits))]
    return vizlib.wrap(module, preprocessing={**UNCROPPED, **preprocessing}, labels=labels)


def note_codes(model, photo, method="saliency", **options) -> list[str]:
    return [note.code for note in vizlib.explain(model, photo, method, **options).notes]


def single_note(model, photo, method="saliency", **options):
    (note,) = vizlib.explain(model, photo, method, **options).notes
    return note


CERTAIN = (3.0, 0.0, 0.0, -1.0)

# ---------------------------------------------------------------------------------- saving


@pytest.fixture
def attribution(photo):
    model = make_model(*CERTAIN, crop_mode="center", crop_pct=0.9)
    return vizlib.explain(model, photo, "input-x-gradient", target="thing 1")


def test_save_npz_keeps_raw_values_exactly(attribution, tmp_path):
    path = attribution.save(tmp_path / "why.npz")
    with np.load(path) as found:
        assert found["heat"].dtype == np.float32
        assert np.array_equal(found["heat"], attribution.heat.numpy())
        assert np.array_equal(found["on_photo"], attribution.project_to_photo(), equal_nan=True)
        assert json.loads(str(found["about"])) == json.loads(json.dumps(attribution.to_dict()))


def test_save_json_keeps_raw_values_exactly(attribution, tmp_path):
    found = json.loads(attribution.save(tmp_path / "why.json").read_text())
    assert torch.equal(torch.tensor(found.pop("values")), attribution.heat)
    assert found == json.loads(json.dumps(attribution.to_dict()))
    assert (found["label"], found["target"], found["method"]) == ("thing 1", 1, "input-x-gradient")
    assert found["heat"]["min"] == attribution.heat.min().item()
    assert found["seen"]["fraction"] == attribution.geometry.visible_fraction < 1


def test_save_png_writes_the_overlay_in_photo_size(attribution, tmp_path, photo):
    with Image.open(attribution.save(str(tmp_path / "why.png"))) as found:
        assert found.size == photo.size
        assert np.array_equal(np.asarray(found), np.asarray(attribution.overlay()))
    limits = compute_limits(attribution.project_to_photo(), signed=True)
    assert attribution.overlay().tobytes() == attribution.overlay(limits=limits).tobytes()


@pytest.mark.parametrize("name", ["why.bmp", "why", "why.png.gz", ".png"])
def test_save_refuses_other_suffixes(attribution, tmp_path, name):
    with pytest.raises(VizlibError, match=r"use one of \.png, \.svg, \.npz, \.json"):
        attribution.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_figure_shows_overlay_and_colour_bar_of_raw_values(attribution, tmp_path):
    board = attribution.figure(colormap="PuOr_r", opacity=0.5)
    (axes,) = board.axes
    (beside,) = axes.child_axes
    pixels = np.asarray(axes.images[0].get_array())
    assert np.array_equal(pixels, np.asarray(attribution.overlay(colormap="PuOr_r", opacity=0.5)))
    low, high = compute_limits(attribution.project_to_photo(), signed=True)
    assert beside.get_ylim() == pytest.approx((low, high))
    assert beside.get_ylabel() == "raw values (below 0: against)"
    assert axes.get_title("left").startswith("input-x-gradient for thing 1 (")


def test_title_names_both_classes_by_label_and_none_where_the_map_depends_on_none(photo):
    model = make_model(*CERTAIN)
    contrast = vizlib.explain(model, photo, "saliency", target="thing 0", against="thing 2")
    assert contrast.against_label == contrast.to_dict()["against_label"] == "thing 2"
    assert repr(contrast).startswith("<Attribution saliency for thing 0 against thing 2 (")
    independent = vizlib.explain(model, photo, "eigen-cam", layer="convolution")
    assert repr(independent).startswith(f"<Attribution eigen-cam for {model.name}: ")


def test_save_svg_escapes_the_label(attribution, tmp_path):
    hostile = replace(attribution, label="$x^{$ <b>&\n'\"")
    text = hostile.save(tmp_path / "why.svg").read_text()
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "<b>" not in text
    assert "data:image/png;base64," in text
    assert "<dc:date>" not in text


def test_resize_with_heat_never_enlarges_the_photo(attribution):
    photo, heat = attribution.resize_with_heat(30)
    assert (photo.size, heat.shape) == ((30, 20), (20, 30))
    assert np.array_equal(heat, attribution.geometry.project_to_photo(attribution.heat, (20, 30)), equal_nan=True)
    whole, heat = attribution.resize_with_heat(1000)
    assert np.array_equal(np.asarray(whole), np.asarray(attribution.photo))
    assert np.array_equal(heat, attribution.project_to_photo(), equal_nan=True)


@pytest.mark.parametrize("ending", ["png", "svg", "npz", "json"])
def test_save_on_a_full_disk_keeps_the_old_file_and_leaves_no_other(attribution, tmp_path, ending, monkeypatch):
    path = tmp_path / f"why.{ending}"
    path.write_text("the old one")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VizlibError, match=rf"^why\.{ending} cannot be written: No space left on device$"):
        attribution.save(path)
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_open_atomic_never_exposes_a_partial_file(tmp_path):
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


def test_no_note_where_nothing_is_wrong(photo):
    for method, parameters in (("saliency", {}), ("input-x-gradient", {}), ("grad-cam", {"relu": False})):
        assert note_codes(make_model(*CERTAIN, photo_scale=0.1), photo, method, **parameters) == []


@pytest.mark.parametrize(("target", "rank"), [(1, 3), (2, 4), (3, 2), ("thing 3", 2)])
def test_note_on_a_target_that_is_not_the_top_class_has_its_rank(photo, target, rank):
    note = single_note(make_model(3.0, -1.0, -5.0, 0.0), photo, target=target)
    assert note.code == "target.not-top"
    assert note.startswith("The model predicts thing 0 (9")
    assert note.facts["rank"] == str(rank)


def test_rank_in_the_note_is_right_where_probabilities_underflow(photo):
    note = single_note(make_model(0.0, 200.0, -10.0, -20.0), photo, target=3)
    assert (note.facts["rank"], note.facts["other"]) == ("4", "< 0.1 %")
    assert single_note(make_model(200.0, 0.0, -10.0, -20.0), photo, target=2).facts["rank"] == "3"


def test_class_independent_method_has_no_note_about_the_target():
    assert not METHODS["attention-rollout"].class_specific
    model = vizlib.load("vit_tiny-imagenette")
    photo = Image.new("RGB", (160, 160), "grey")
    last = model.predict(photo, top=10)[-1].index
    assert "target.not-top" not in note_codes(model, photo, "attention-rollout", target=last)
    assert "contrast.not-class-specific" in note_codes(model, photo, "attention-rollout", against=last)


def test_note_on_an_uncertain_model_only_for_its_top_class(photo):
    note = single_note(make_model(0.3, 0.0, 0.0), photo)
    assert note == "The model is uncertain: its most likely class has a probability of 40 %."
    assert note_codes(make_model(0.3, 0.0, 0.0), photo, target=1) == ["target.not-top"]
    assert note_codes(make_model(2.0, 0.0), photo) == []  # outputs that sum to 1 would be taken for probabilities


def test_note_distinguishes_zero_gradient_from_empty_map(photo):
    model = make_model(*CERTAIN, photo_scale=0.0)
    note = single_note(model, photo, "grad-cam", layer="convolution")
    assert (note.code, note.facts["layer"]) == ("map.no-gradient", "convolution")
    note = single_note(model, photo, "saliency")
    assert (note.code, note.facts["label"]) == ("map.empty", "thing 0")


def test_note_on_a_map_that_the_relu_empties(photo):
    model = make_model(*CERTAIN, photo_scale=0.1)
    module: Any = model.module
    with torch.no_grad():
        module.convolution.bias.fill_(50)  # every channel is active everywhere,
        module.head.weight[0], module.head.weight[1] = 1, -1  # evidence for thing 0, against thing 1
    assert note_codes(model, photo, "grad-cam", target=0) == []
    assert "map.empty" in note_codes(model, photo, "grad-cam", target=1)
    assert "map.empty" not in note_codes(model, photo, "grad-cam", target=1, relu=False)


def test_note_on_cropping_above_a_fifth_of_the_photo(photo):
    note = single_note(make_model(*CERTAIN, crop_mode="center", crop_pct=1.0), photo)  # 40 × 40 of 60 × 40
    assert note == "The model input covers 67 % of the photo; the rest was cropped away and is dimmed."
    nearly_square = photo.resize((44, 40))
    assert note_codes(make_model(*CERTAIN, crop_mode="center", crop_pct=1.0), nearly_square) == []
    assert note_codes(make_model(*CERTAIN, crop_mode="border"), photo) == []


def test_note_on_saturated_softmax_only_where_the_probability_is_explained(photo):
    assert note_codes(make_model(9.0, 0.0, 0.0), photo, score="probability") == ["score.saturated"]
    assert note_codes(make_model(9.0, 0.0, 0.0), photo, score="logit") == []
    assert note_codes(make_model(2.0, 0.0), photo, score="probability") == []


def test_note_on_a_class_compared_with_itself(photo):
    model = make_model(*CERTAIN)
    assert "contrast.same-class" in note_codes(model, photo, against=0)
    assert "contrast.same-class" not in note_codes(model, photo, against=1)


def test_note_on_values_that_are_not_finite_and_no_ranking(photo):
    model = make_model(*CERTAIN)
    evidence = Evidence(model=model, run=model.run(photo), score=lambda logits: logits[:, 0])
    heat = torch.tensor([[1.0, float("nan")]])
    call = METHODS.resolve_method(model, "saliency", {})
    (note,) = _collect_notes(heat, evidence, call.for_target(TargetSpec.resolve(model, evidence.run.logits, 0, None)))
    assert note.code == "map.not-finite"
    codes = note_codes(make_model(float("nan"), 1.0, 2.0), photo, target=1)
    assert "model.not-finite" in codes
    assert not {"target.not-top", "target.uncertain"} & set(codes)


def test_note_on_training_mode_which_is_left_unchanged(photo):
    model = make_model(*CERTAIN)
    model.module.train()
    assert note_codes(model, photo) == ["model.training-mode"]
    assert model.module.training


def test_notes_of_the_photo_reach_the_attribution():
    photo = vizlib.open_image(np.random.default_rng(0).random((32, 32, 3)))
    assert note_codes(make_model(*CERTAIN), photo) == ["image.unit-floats"]


def test_file_stem_differs_between_a_map_and_its_contrast(photo):
    model = make_model(1.0, 2.0)
    plain = vizlib.explain(model, photo, "saliency", target=1)
    contrast = vizlib.explain(model, photo, "saliency", target=1, against=0)
    stems = [replace(attribution, model="hf-hub:a/b c").file_stem for attribution in (plain, contrast)]
    assert stems == ["hf-hub-a-b-c_saliency_1", "hf-hub-a-b-c_saliency_1_vs_0"]
