"""How many forward and backward passes the page costs: a new photo one of each, another class one backward pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image

import vizlib
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.executor_tasks import TopFractionProbabilities
from dashboard.services.model_catalog import ModelCatalog
from dashboard.sidebar.prediction_panel import build_prediction_panel
from dashboard.state.selection import Selection
from dashboard.tabs import attention, code, compare, inspect, kernels, learn, model, receptive_field, why

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
CROPS = itertools.count()


class PassCounts:
    """Passes through one network: calls of the module, backward passes from its output, gradients at its input."""

    def __init__(self, module: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forward = self.backward = self.at_input = 0
        self._module, self._image = module, None
        self._handle = module.register_forward_hook(self._count_forward)
        compute = torch.autograd.grad

        def count_gradients(outputs, inputs, *args, **kwargs):
            self.at_input += any(tensor is self._image for tensor in inputs)
            return compute(outputs, inputs, *args, **kwargs)

        monkeypatch.setattr(torch.autograd, "grad", count_gradients)

    def _count_forward(self, _module, inputs, output) -> None:
        self.forward += 1
        self._image = inputs[0]
        if output.requires_grad:
            output.register_hook(self._count_backward)

    def _count_backward(self, _gradient) -> None:
        self.backward += 1

    def take(self) -> tuple[int, int, int]:
        """Return the three counts and start from 0 again."""
        counts = self.forward, self.backward, self.at_input
        self.forward = self.backward = self.at_input = 0
        return counts

    def close(self) -> None:
        """Stop counting."""
        self._handle.remove()


@pytest.fixture(scope="module", params=[RESNET, "vit_tiny-imagenette"])
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def fresh(name, tower) -> AnalysisService:
    """Return a service that has computed all that depends on no photo, and nothing of the photos of the tests."""
    service = AnalysisService(
        ModelCatalog(sorted(vizlib.list_models(), key=lambda entry: (entry.name != RESNET, entry.name != VIT)))
    )
    draw_tabs(service, tower, build_prediction_panel(service, tower, name).selection)
    return service


@pytest.fixture
def photo(cheetah) -> Image.Image:
    """Return a photo that no other test has passed to the service."""
    return vizlib.open_image(np.asarray(cheetah)[:, next(CROPS) :])


@pytest.fixture
def counts(fresh, name, monkeypatch) -> Iterator[PassCounts]:
    """Count the passes of the service's model."""
    counter = PassCounts(fresh.catalog.get(name).module, monkeypatch)
    yield counter
    counter.close()


def draw_tabs(service: AnalysisService, photo, selection: Selection | None) -> None:
    """Draw what every tab but Compare shows before anything is clicked in it."""
    assert selection is not None
    why.compute_content(service, photo, selection, None, None)
    attention.compute_content(service, photo, selection)
    attention.build_attention_flow(service, photo, selection)
    receptive_field.compute_content(service, photo, selection)
    inspect.compute_content(service, photo, selection, None)
    kernels.compute_content(service, photo, selection)
    kernels.build_position_similarity(service, photo, selection)
    learn.compute_content(service, photo, selection)
    model.compute_content(service, photo, selection)
    code.compute_content(service, photo, selection, "grad-cam", None)


def test_new_photo_costs_one_forward_and_one_backward_pass_over_all_tabs(fresh, photo, name, counts):
    draw_tabs(fresh, photo, build_prediction_panel(fresh, photo, name).selection)
    forward, backward, at_input = counts.take()
    assert (forward, backward) == (1, 1)
    # The effective receptive field of a convolutional network is the gradient of a cell, not of a class.
    assert at_input == 1 + bool(fresh.get_receptive_fields(name))


def test_another_class_costs_one_backward_pass_and_no_forward_pass(fresh, photo, name, counts):
    selection = build_prediction_panel(fresh, photo, name).selection
    assert selection is not None
    draw_tabs(fresh, photo, selection)
    counts.take()
    for target, against in ((3, None), (3, 5)):
        draw_tabs(fresh, photo, build_prediction_panel(fresh, photo, name, target, against).selection)
        assert counts.take() == (0, 1, 1)
    draw_tabs(fresh, photo, selection)
    assert counts.take() == (0, 0, 0)


@pytest.mark.parametrize(
    "draw_first", [why.compute_content, inspect.compute_content, learn.compute_content, attention.build_attention_flow]
)
def test_the_tab_that_is_open_first_makes_no_difference(fresh, photo, name, counts, draw_first: Callable):
    selection = build_prediction_panel(fresh, photo, name).selection
    draw_first(
        fresh,
        photo,
        selection,
        *{why.compute_content: (None, None), inspect.compute_content: (None,)}.get(draw_first, ()),
    )
    draw_tabs(fresh, photo, selection)
    assert counts.take()[:2] == (1, 1)


@pytest.mark.slow
def test_comparing_two_models_costs_the_selected_one_no_forward_pass(fresh, photo, name, counts):
    selection = build_prediction_panel(fresh, photo, name).selection
    draw_tabs(fresh, photo, selection)
    counts.take()
    compare.compute_content(fresh, photo, selection)
    assert counts.take()[:2] == (0, 1)  # for the second class that is compared


def test_checking_a_map_runs_the_model_on_another_image(fresh, photo, name, counts):
    selection = build_prediction_panel(fresh, photo, name).selection
    draw_tabs(fresh, photo, selection)
    counts.take()
    assert selection is not None
    attribution = fresh.explain(selection.make_request(photo))
    assert isinstance(fresh.keep_top_fraction(name, attribution), TopFractionProbabilities)
    assert counts.take() == (1, 0, 0)


def test_passes_too_large_for_the_cache_are_not_recorded_again(cheetah, name, monkeypatch):
    service = AnalysisService(ModelCatalog([], extra={name: lambda: vizlib.load(name)}), max_bytes=3_000_000)
    counter = PassCounts(service.catalog.get(name).module, monkeypatch)
    network = service.catalog.get(name)
    assert network.layers  # runs the network once
    assert network.num_outputs  # runs it once more
    counter.take()
    service.predict(cheetah, name)
    assert counter.take() == (1, 0, 0)
    layer = network.stages[0]
    service.get_activations(cheetah, name, layer)
    assert counter.take() == (1, 0, 0)
    assert service.pass_cache.held_bytes == 0
    counter.close()
