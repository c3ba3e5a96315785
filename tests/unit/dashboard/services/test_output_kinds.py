"""The page and its endpoints follow what the outputs of a model mean."""

from __future__ import annotations

import pytest
import timm
import torch

import vizlib
from dashboard.api.endpoints import handle_predict_endpoint
from dashboard.i18n.language import use_language
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.services.model_catalog import ModelCatalog
from dashboard.sidebar.prediction_panel import build_prediction_panel
from dashboard.state.selection import Selection
from dashboard.tabs.learn import compute_content as compute_lesson_content
from dashboard.tabs.why import compute_top_fraction_check
from vizlib import ModelError, TargetError

PREPROCESSING = {"input_size": (3, 32, 32), "crop_pct": 1.0}
KINDS = {  # name: (number of outputs, kind, labels)
    "one": (1, "sigmoid", ["llama"]),
    "several": (3, "sigmoid", ["llama", "fence", "castle"]),
    "values": (2, "values", ["age", "height"]),
    "features": (4, "features", None),
}


def make_model(outputs: int, kind: str, labels: list[str] | None) -> vizlib.Model:
    torch.manual_seed(1)
    network = timm.create_model("test_resnet", num_classes=outputs).eval()
    return vizlib.wrap(network, preprocessing=PREPROCESSING, output_kind=kind, labels=labels)


@pytest.fixture(scope="module")
def kinds():
    models = {name: make_model(*options) for name, options in KINDS.items()}
    return AnalysisService(ModelCatalog([], extra={name: lambda model=model: model for name, model in models.items()}))


def test_endpoint_predicts_independent_probabilities(kinds, cheetah):
    rows = handle_predict_endpoint(kinds, cheetah, "several", 5)
    for row in rows:
        assert row["probability"] == pytest.approx(torch.tensor(row["logit"]).sigmoid().item(), abs=1e-6)
    (row,) = handle_predict_endpoint(kinds, cheetah, "one", 5)
    assert row["probability"] == pytest.approx(torch.tensor(row["logit"]).sigmoid().item(), abs=1e-6)


def test_endpoint_predicts_values_by_index_without_probability(kinds, cheetah):
    rows = handle_predict_endpoint(kinds, cheetah, "values", 5)
    assert [(row["index"], row["label"], row["probability"]) for row in rows] == [(0, "age", None), (1, "height", None)]


def test_features_are_refused_in_one_sentence(kinds, cheetah):
    with pytest.raises(ModelError, match="predicts no classes: it returns features without a classifier"):
        kinds.predict(cheetah, "features")
    with pytest.raises(TargetError, match="takes the number of a feature"):
        kinds.explain(ExplanationRequest(cheetah, "features"))
    assert kinds.explain(ExplanationRequest(cheetah, "features", 3)).label == "feature 3"
    assert kinds.explain(ExplanationRequest(cheetah, "features", method="eigen-cam")).target is None


def test_a_single_label_has_a_bar_for_its_complement_that_cannot_be_chosen(kinds, cheetah):
    rows = build_prediction_panel(kinds, cheetah, "one").bars["rows"]
    assert [(row["index"], row["name"]) for row in rows] == [(0, "llama"), (-1, "not llama")]
    assert sum(row["probability"] for row in rows) == pytest.approx(1)
    assert [row["index"] for row in build_prediction_panel(kinds, cheetah, "several").bars["rows"]].count(-1) == 0


def test_the_complement_is_explained_but_there_is_no_runner_up(kinds, cheetah):
    request = ExplanationRequest(cheetah, "one", "not llama")
    assert kinds.explain(request).label == "not llama"
    contrast = ExplanationRequest(cheetah, "one", "llama", "not llama")
    assert kinds.explain(contrast).against == "not llama"
    with pytest.raises(TargetError, match="there is no runner-up"):
        kinds.explain(ExplanationRequest(cheetah, "one", against="runner-up"))


def test_values_are_shown_without_percentages(kinds, cheetah):
    panel = build_prediction_panel(kinds, cheetah, "values")
    assert not any("%" in row["share"] for row in panel.bars["rows"])
    assert panel.selection is not None
    assert compute_top_fraction_check(kinds, cheetah, panel.selection, "grad-cam", None) == ""
    with pytest.raises(TargetError, match="takes the number or label of a value"):
        kinds.explain(ExplanationRequest(cheetah, "values"))


@pytest.mark.parametrize(("language", "sentence"), [("en", "exclude each other"), ("ko", "배타적인 클래스")])
def test_lessons_about_exclusive_classes_are_left_out(kinds, cheetah, language, sentence):
    selection = Selection("cheetah", "several", 0)
    with use_language(language):
        assert sentence in compute_lesson_content(kinds, cheetah, selection, 1, language)["empty"]
