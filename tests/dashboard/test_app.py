"""The page as gradio is told of it: what it publishes, and what it keeps to itself."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import vizlib
from dashboard import api, app

ENDPOINTS = {"predict", "explain", "attention", "activations", "kernels"}


@pytest.fixture(scope="module")
def page(study):
    return app.build_app(study.catalog)


def test_exactly_the_named_endpoints_are_public_and_documented(page):
    public = {fn.api_name: fn for fn in page.fns.values() if fn.api_visibility == "public"}
    assert set(public) == ENDPOINTS
    for name, described in page.get_api_info()["named_endpoints"].items():
        expected = list(inspect.signature(getattr(api, name[1:])).parameters)[1:]
        assert [one["parameter_name"] for one in described["parameters"]] == expected
        assert len(described["description"]) > 40


def test_no_event_takes_more_than_five_inputs(page):
    assert max(len(fn.inputs) for fn in page.fns.values()) <= 5


def test_all_that_runs_a_model_waits_in_one_line(page):
    lines = {fn.concurrency_id for fn in page.fns.values() if len(fn.inputs) > 1}
    assert lines == {"model"}


def test_the_queue_cannot_be_bypassed(page):
    assert page.api_open is False


def test_there_is_one_heading_of_the_first_rank(page):
    values = [str(block.value) for block in page.blocks.values() if getattr(block, "value", None)]
    assert sum(value.count("<h1") for value in values) == 1


def test_explain_gives_the_numbers_and_the_picture_of_python(study, cheetah, name):
    model = vizlib.load(name)
    about, overlay = api.explain(study, cheetah, name, "grad-cam", "church", {"layer": model.stages[1]})
    theirs = vizlib.explain(model, cheetah, method="grad-cam", target="church", layer=model.stages[1])
    assert about["values"] == theirs.heat.tolist()
    assert about["notes"] == list(theirs.notes)
    assert np.array_equal(np.asarray(overlay), np.asarray(theirs.overlay()))


def test_explain_answers_why_this_class_and_not_another(study, cheetah, name):
    about, _ = api.explain(study, cheetah, name, "saliency", "church", {"against": "golf ball"})
    theirs = vizlib.explain(vizlib.load(name), cheetah, method="saliency", target="church", against="golf ball")
    assert about["values"] == theirs.heat.tolist()


@pytest.mark.parametrize(("query", "meant"), [("6, 8", (6, 8)), ("class", "class"), ("", None), ("6;8", "6;8")])
def test_a_token_is_a_name_or_a_patch(query, meant):
    assert api.token(query) == meant


def test_a_missing_photo_a_wrong_channel_and_wrong_knobs_are_one_sentence(study, cheetah, name):
    with pytest.raises(vizlib.ImageError, match="photo is missing"):
        api.predict(study, None, name, 5)
    with pytest.raises(vizlib.ModelError, match="has channels 0 to"):
        api.activations(study, cheetah, name, study.catalog.get(name).stages[0], 10**6)
    with pytest.raises(vizlib.MethodError, match="knobs are an object"):
        api.explain(study, cheetah, name, "saliency", "", ["layer"])


def test_nothing_is_told_to_others_about_a_visitor(page, monkeypatch):
    told = {}
    monkeypatch.setattr(page, "launch", lambda **how: told.update(how))
    app.launch(page)
    assert page.analytics_enabled is False
    assert (told["run_history"], told["enable_monitoring"], told["share"], told["pwa"]) == (False,) * 4
    assert told["max_file_size"] == "20mb"
