"""The bundled models as the dashboard holds them."""

from __future__ import annotations

import pytest

import vizlib
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.model_catalog import ModelCatalog
from dashboard.state.selection import Selection

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"


@pytest.fixture(scope="session")
def service() -> AnalysisService:
    have = [entry.name for entry in vizlib.list_models() if entry.bundled]
    if not {RESNET, VIT} <= set(have):
        pytest.skip(f"the bundled checkpoints {RESNET} and {VIT} are not in checkpoints/")
    return AnalysisService(
        ModelCatalog(sorted(vizlib.list_models(), key=lambda entry: (entry.name != RESNET, entry.name != VIT)))
    )


@pytest.fixture(params=[RESNET, VIT])
def name(request) -> str:
    return request.param


@pytest.fixture
def selection(service, cheetah, name) -> Selection:
    """The cheetah, looked at by one of the models, about its second guess."""
    return Selection("cheetah", name, service.predict(cheetah, name)[1].index)
