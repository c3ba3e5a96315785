"""Reports and code snippets of maps that explain no softmax class: single labels, regressions, sums and functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from html_pages import read_page

import vizlib
from vizlib.reporting.code_snippets import CodeSnippet

PREPROCESSING = {"input_size": (3, 32, 32), "crop_pct": 1.0, "crop_mode": "squash"}
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def make_model(outputs: int, kind: str, labels: list[str]) -> vizlib.Model:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=outputs).eval()
    return vizlib.wrap(network, preprocessing=PREPROCESSING, output_kind=kind, labels=labels, name="mine")


def energy(logits: torch.Tensor) -> torch.Tensor:
    return logits.logsumexp(1)


def report_text(attribution: vizlib.Attribution, model: vizlib.Model, path) -> str:
    return " ".join(read_page(vizlib.report(attribution, path, model=model)).text().split())


def test_report_shows_both_sides_of_a_single_label(tmp_path):
    model = make_model(1, "sigmoid", ["llama"])
    attribution = vizlib.explain(model, PHOTO, "saliency", "not llama")
    text = report_text(attribution, model, tmp_path / "why.html")
    probability = model.predict(PHOTO)[0].probability or 0
    assert "Why not llama?" in text
    assert f"mine predicts not llama {100 * (1 - probability):.0f} %" in text
    assert f"llama {100 * probability:.0f} %" in text


def test_report_of_a_regression_has_values_and_no_percentages(tmp_path):
    model = make_model(2, "values", ["age", "height"])
    attribution = vizlib.explain(model, PHOTO, "saliency", "height")
    text = report_text(attribution, model, tmp_path / "why.html")
    assert f"mine returns height {attribution.text}" in text
    assert attribution.score == pytest.approx(model.predict(PHOTO)[1].logit)
    assert "Probability" not in text
    assert "%" not in text


def test_report_of_a_model_without_classes(tmp_path):
    model = make_model(4, "features", ["a", "b", "c", "d"])
    attribution = vizlib.explain(model, PHOTO, "eigen-cam")
    text = report_text(attribution, model, tmp_path / "why.html")
    assert "predicts" not in text
    assert "eigen-cam" in text
    named = vizlib.explain(model, PHOTO, "saliency", energy)
    assert "Why energy?" in report_text(named, model, tmp_path / "energy.html")


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (make_model(1, "sigmoid", ["llama"]), "not llama"),
        (make_model(3, "softmax", ["cat", "dog", "owl"]), {"cat": 1.0, "owl": -0.5}),
        (make_model(2, "values", ["age", "height"]), "height"),
        (make_model(3, "softmax", ["cat", "dog", "owl"]), energy),
    ],
    ids=["complement", "weights", "value", "function"],
)
def test_snippet_computes_the_map_again(model, target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vizlib.open_image(PHOTO).save("photo.png")
    monkeypatch.setattr(vizlib, "load", lambda name: loaded)
    loaded = replace(model, is_wrapped=False)
    attribution = vizlib.explain(model, PHOTO, "input-x-gradient", target)
    code = CodeSnippet.from_attribution(attribution, loaded, photo="photo.png").to_python()
    names: dict[str, Any] = {"energy": energy}
    exec(compile(code, "snippet", "exec"), names)
    assert torch.equal(names["why"].heat, attribution.heat)


def test_shell_and_client_take_weights_but_no_function():
    model = replace(make_model(3, "softmax", ["cat", "dog", "owl"]), is_wrapped=False)
    weights = vizlib.explain(model, PHOTO, "saliency", {"cat": 1.0, "owl": -0.5})
    snippet = CodeSnippet.from_attribution(weights, model)
    assert """--target '{"cat": 1.0, "owl": -0.5}'""" in snippet.to_shell()
    function = CodeSnippet.from_attribution(vizlib.explain(model, PHOTO, "saliency", energy), model)
    assert function.to_shell() == "# energy is a function of the output, which only Python can explain\n"
    assert function.to_client("http://localhost:7860").startswith("# energy is a function of the output")
