"""The Why tab's measurements of maps: the order of the methods, the curves, and what the measurements leave open."""

from __future__ import annotations

import base64
import io

import pytest
from bundled_models import load_bundled
from PIL import Image

import vizlib
from dashboard.components.trust import build_trust_scores, list_doubts
from dashboard.services import executor_tasks
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.model_catalog import ModelCatalog
from dashboard.services.photo_key import compute_photo_key
from dashboard.state.selection import Selection
from dashboard.tabs import why
from vizlib.attribution.methods.registry import METHODS
from vizlib.metrics import trust_all_stream
from vizlib.metrics.perturbation_curves import list_perturbed_photos
from vizlib.metrics.trust_parts import CURVE_STEPS, DELETION, INSERTION

RESNET = "resnet18-imagenette"


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setitem(
        executor_tasks.STREAMS,
        "trust_all",
        lambda model, maps: trust_all_stream(model, maps, parts=["stability"]),
    )
    return AnalysisService(ModelCatalog(only=(RESNET,)))


@pytest.fixture
def selection(cheetah):
    return Selection(compute_photo_key(cheetah), RESNET, 3)


@pytest.mark.slow
def test_methods_have_the_scores_of_the_library(service, cheetah, selection):
    before = why.compute_content(service, cheetah, selection, "grad-cam", None).strip
    assert before["ranking"]["state"] == "waiting"
    assert not any("scores" in item for item in before["items"])
    steps = list(why.stream_ranking(service, cheetah, selection))
    assert [step["state"] for step in steps] == ["running"] * (len(steps) - 1) + ["done"]
    model = load_bundled(RESNET)
    maps = vizlib.explain_all(model, cheetah, 3)
    assert steps[-1]["scores"].keys() == maps.keys()
    for name in ("saliency", "grad-cam"):
        expected = vizlib.trust(model, maps[name], parts=["stability"]).parts["stability"]
        found = steps[-1]["scores"][name]["stability"]
        assert found["share"] == pytest.approx(expected.share, abs=1e-4)
        assert found["text"] == f"{100 * expected.share:.0f} %"
    after = why.compute_content(service, cheetah, selection, "grad-cam", None).strip
    assert after["ranking"]["state"] == "done"
    assert after["ranking"]["key"] == steps[-1]["key"] == before["ranking"]["key"]
    assert {item["key"]: item["scores"] for item in after["items"] if "scores" in item} == steps[-1]["scores"]
    other = why.compute_content(service, cheetah, selection._replace(target=4), "grad-cam", None).strip
    assert other["ranking"]["key"] != after["ranking"]["key"]  # of another class
    assert other["ranking"]["state"] == "waiting"


def test_an_outdated_selection_measures_nothing(service, cheetah, selection):
    assert list(why.stream_ranking(service, cheetah, selection._replace(photo="of another photo"))) == []
    assert list(why.stream_ranking(service, None, None)) == []


@pytest.mark.slow
def test_curves_show_the_photos_that_were_scored(service, cheetah, selection):
    assert why.compute_content(service, cheetah, selection, "grad-cam", None).perturbation == {}
    *steps, (bars, curves) = why.stream_trust(service, cheetah, selection, "grad-cam", None, turn=7)
    assert all(not isinstance(value, dict) or "sprite" not in value for _, value in steps)
    model = load_bundled(RESNET)
    attribution = vizlib.explain(model, cheetah, "grad-cam", 3)
    measured = {
        one.metric: one
        for one in vizlib.trust(model, attribution, parts=["faithfulness"]).parts["faithfulness"].measurements
    }
    for line, (name, kind) in zip(curves["lines"], (("deletion", DELETION), ("insertion", INSERTION)), strict=True):
        assert line["scores"] == pytest.approx([score for _, score in measured[name].curve], abs=1e-4)
        photos = list_perturbed_photos(model, attribution, kind, CURVE_STEPS)
        sprite = Image.open(io.BytesIO(base64.b64decode(curves["sprite"].partition(",")[2]))).convert("RGB")
        width, height = curves["tile"]
        for step in (0, 4, CURVE_STEPS):
            top = ("deletion", "insertion").index(name) * height
            tile = sprite.crop((step * width, top, (step + 1) * width, top + height))
            expected = photos[step].resize((width, height), Image.Resampling.BOX)
            difference = sum(abs(a - b) for a, b in zip(tile.tobytes(), expected.tobytes(), strict=True))
            assert difference / len(tile.tobytes()) < 4  # of 255; JPEG
    again = why.compute_content(service, cheetah, selection, "grad-cam", None)
    assert again.perturbation == curves
    assert again.trust["reasons"] == bars["reasons"]


def test_doubts_state_the_method_the_centre_and_each_measured_part(cheetah):
    model = load_bundled(RESNET)
    attribution = vizlib.explain(model, cheetah, "grad-cam", 3)
    trust = vizlib.trust(model, attribution, parts=["faithfulness"], random_maps=2)
    gaussian = trust.parts["faithfulness"].measurements[1].references["centred-gaussian"]
    shows_not, centre, *others = list_doubts(trust, "grad-cam")
    assert shows_not == METHODS["grad-cam"].does_not_show
    assert f"{gaussian:.2f}" in centre
    assert len(others) == 1
    assert build_trust_scores(None) == {}
    assert build_trust_scores(trust).keys() == {"faithfulness"}
