"""Explain the decisions of pretrained image classifiers.

Example:
    >>> import vizlib
    >>> model = vizlib.load("resnet18-imagenette")
    >>> photo = vizlib.open_image("church.jpg")
    >>> len(model.predict(photo, top=3))
    3
    >>> vizlib.explain(model, photo, method="grad-cam", target="church").save("why.png").name
    'why.png'
"""

from vizlib import metrics as metrics
from vizlib.analysis.effective_receptive_field import EffectiveReceptiveField, effective_receptive_field
from vizlib.analysis.first_layer_kernels import Kernels, kernels
from vizlib.analysis.units import Contributions, ablate, contributions
from vizlib.analysis.vector_jacobian import Gradient, gradient
from vizlib.attribution.explain import estimate, explain, explain_all, explain_stream, run_for_all
from vizlib.attribution.measurement import Measurement, Trust
from vizlib.attribution.methods.registry import list_methods
from vizlib.attribution.photo_stream import explain_each
from vizlib.attribution.result import Attribution, AttributionDict, ExplanationStep
from vizlib.capture.receptive_field_tracer import ReceptiveField
from vizlib.core.errors import ImageError, MethodError, ModelError, TargetError, VizlibError
from vizlib.core.geometry import Geometry
from vizlib.core.images import open_image
from vizlib.core.text import Note
from vizlib.core.version import __version__ as __version__
from vizlib.metrics.benchmark_table import Benchmark
from vizlib.metrics.benchmarking import benchmark
from vizlib.metrics.perturbation_curves import PerturbationCurve
from vizlib.metrics.similarity import Agreement, agreement
from vizlib.metrics.trust_parts import trust
from vizlib.models.clip.clip_model import ClipModel, PhotoMatch
from vizlib.models.layer_summary import Layer
from vizlib.models.loading.clip_loader import load_clip, wrap_clip
from vizlib.models.loading.loader import list_models, load, wrap
from vizlib.models.loading.model_index import ModelEntry
from vizlib.models.loading.training_history import training_history
from vizlib.models.model import Model
from vizlib.models.preprocessing import Preprocessing
from vizlib.models.receptive_field import receptive_field
from vizlib.models.run import Prediction, Run
from vizlib.reporting.html_report import report
from vizlib.text.word_relevance import WordRelevance, explain_words

__all__ = [
    "Agreement",
    "Attribution",
    "AttributionDict",
    "Benchmark",
    "ClipModel",
    "Contributions",
    "EffectiveReceptiveField",
    "ExplanationStep",
    "Geometry",
    "Gradient",
    "ImageError",
    "Kernels",
    "Layer",
    "Measurement",
    "MethodError",
    "Model",
    "ModelEntry",
    "ModelError",
    "Note",
    "PerturbationCurve",
    "PhotoMatch",
    "Prediction",
    "Preprocessing",
    "ReceptiveField",
    "Run",
    "TargetError",
    "Trust",
    "VizlibError",
    "WordRelevance",
    "ablate",
    "agreement",
    "benchmark",
    "contributions",
    "effective_receptive_field",
    "estimate",
    "explain",
    "explain_all",
    "explain_each",
    "explain_stream",
    "explain_words",
    "gradient",
    "kernels",
    "list_methods",
    "list_models",
    "load",
    "load_clip",
    "open_image",
    "receptive_field",
    "report",
    "run_for_all",
    "training_history",
    "trust",
    "wrap",
    "wrap_clip",
]
