"""What a step of the lessons is computed from: model, photo and classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dashboard.services.analysis_service import AnalysisService
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.state.selection import Selection
from vizlib import Attribution, Model, list_methods

MAX_STAGES = 4  # displayed side by side


class LessonContext(NamedTuple):
    """The model, photo and classes that a step explains."""

    service: AnalysisService
    photo: Image.Image
    selection: Selection

    @property
    def model_name(self) -> str:
        """Name of the lesson's model."""
        return self.selection.model

    @property
    def model(self) -> Model:
        """The lesson's model."""
        return self.service.catalog.get(self.selection.model)

    @property
    def has_attention_relevance(self) -> bool:
        """Whether attention relevance can be computed for the lesson's model."""
        return "attention-relevance" in list_methods(self.model)

    def explain(self, method: str, target: int | None = None, **parameters: Any) -> Attribution:
        """Return the attribution of one method for a lesson, by default for the selected class."""
        target = self.selection.target if target is None else target
        return self.service.explain(ExplanationRequest(self.photo, self.model_name, target, None, method, parameters))

    def sample_stages(self) -> list[str]:
        """Return at most `MAX_STAGES` stages for a lesson, evenly spaced from shallow to deep."""
        stages = self.model.stages or tuple(layer.name for layer in self.model.layers[-1:])
        indices = np.linspace(0, len(stages) - 1, min(MAX_STAGES, len(stages))).round().astype(int)
        return [stages[i] for i in indices]


def find_transformer(context: LessonContext) -> str:
    """Return the name of a local Vision Transformer of the catalog, for a lesson; empty where there is none."""
    return _find_local_model(context, "vit")


def find_resnet(context: LessonContext) -> str:
    """Return the name of a local ResNet of the catalog, for a lesson; empty where there is none."""
    return _find_local_model(context, "resnet")


def _find_local_model(context: LessonContext, name_part: str) -> str:
    """Return the first model of the catalog with a part of its name that needs no download, for a lesson."""
    entries = context.service.catalog.entries
    return next((entry.name for entry in entries if name_part in entry.name and not entry.needs_download), "")
