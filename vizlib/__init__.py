"""See why a vision model decided what it decided.

import vizlib

model = vizlib.load("resnet18-imagenette")
photo = vizlib.open_image("church.jpg")
model.predict(photo)
vizlib.explain(model, photo, method="grad-cam").save("why.png")
"""

from vizlib.agreement import Agreement, agreement
from vizlib.errors import ImageError, MethodError, ModelError, TargetError, VizlibError
from vizlib.explaining import estimate, explain, explain_all, explain_stream, run_for_all
from vizlib.fields import receptive_field
from vizlib.histories import training_history
from vizlib.images import open_image
from vizlib.kernels import kernels
from vizlib.methods.registry import methods
from vizlib.model import Model
from vizlib.models import load, models, wrap  # the function takes the name of its file, so it comes from there
from vizlib.report import report
from vizlib.results import Attribution, Prediction, Run, Step
from vizlib.units import contributions, switch_off
from vizlib.version import __version__ as __version__

__all__ = [
    "Agreement",
    "Attribution",
    "ImageError",
    "MethodError",
    "Model",
    "ModelError",
    "Prediction",
    "Run",
    "Step",
    "TargetError",
    "VizlibError",
    "agreement",
    "contributions",
    "estimate",
    "explain",
    "explain_all",
    "explain_stream",
    "kernels",
    "load",
    "methods",
    "models",
    "open_image",
    "receptive_field",
    "report",
    "run_for_all",
    "switch_off",
    "training_history",
    "wrap",
]
