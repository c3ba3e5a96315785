"""The named endpoints: what the page shows, for `gradio_client` and plain HTTP, with the same numbers as in Python."""

from __future__ import annotations

import inspect
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

import vizlib
from dashboard.components.atomic_image import AtomicImage
from dashboard.components.photo import PhotoInput
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.request import ExplanationRequest
from dashboard.state.context import MODEL_QUEUE, show_errors
from vizlib import MethodError, agreement
from vizlib.core.errors import ImageError, ModelError
from vizlib.render.image_grid import draw_map_grid
from vizlib.reporting.code_snippets import CodeSnippet


def models(service: AnalysisService) -> list[dict[str, Any]]:
    """The models that can be asked: name, where it comes from, megabytes, classes, and top-1 accuracy if known."""
    fields = ("name", "source", "megabytes", "classes", "accuracy", "needs_download")
    return [{field: getattr(entry, field) for field in fields} for entry in service.catalog.entries]


def predict(service: AnalysisService, photo: Image.Image, model: str, top: float) -> list[dict[str, Any]]:
    """The likeliest classes of a photo: index, label, probability and logit, likeliest first."""
    return [one._asdict() for one in service.predict(require_photo(photo), model, int(top or 5))]


def explain(
    service: AnalysisService, photo: Image.Image, model: str, method: str, target: str, knobs: dict[str, Any] | None
) -> tuple[dict[str, Any], Image.Image]:
    """How much each place spoke for a class: the raw values with all about them, and the overlay.

    `target` is a class by index or label, the likeliest one if empty. `knobs` are the method's, such as
    {"layer": "layer3"}; "against" there names the class to compare with.
    """
    answer = service.explain(build_request(photo, model, method, target, knobs))
    return {**answer.to_dict(), "values": answer.heat.tolist()}, answer.overlay()


def attention(
    service: AnalysisService, photo: Image.Image, model: str, layer: str, head: str, query: str
) -> tuple[dict[str, Any], Image.Image]:
    """What one token looks at: raw attention by patch, and the overlay.

    `layer` is an attention layer's name, the last if empty; `head` a number, mean or max; `query` a token's name such
    as class, or a patch as "row,column", counted from 0.
    """
    knobs = {"layer": layer or None, "head": head or "mean", "query": parse_token(query)}
    answer = service.explain(ExplanationRequest(require_photo(photo), model, None, None, "raw-attention", knobs))
    return {**answer.to_dict(), "values": answer.heat.tolist()}, answer.overlay()


def channels(
    service: AnalysisService, photo: Image.Image, model: str, layer: str, channel: float | None
) -> tuple[dict[str, Any], Image.Image]:
    """A layer's output: each channel's mean and largest value and a sheet of all; for one `channel` its raw values."""
    layer = layer or service.catalog.get(model).cam_layer or ""
    maps = service.get_activations(require_photo(photo), model, layer).maps.numpy()
    about = {"model": model, "layer": layer, "shape": list(maps.shape)}
    if channel is None:
        means, tops = maps.mean((1, 2)), maps.max((1, 2))
        about["channels"] = [
            {"index": i, "mean": float(mean), "max": float(top)}
            for i, (mean, top) in enumerate(zip(means, tops, strict=True))
        ]
        return about, draw_map_grid(maps, signed=bool(maps.min() < 0), cell=64)
    index = int(channel)
    if not 0 <= index < len(maps):
        raise ModelError(f"{layer} has channels 0 to {len(maps) - 1}, but no {index}")
    about |= {"channel": index, "values": maps[index].tolist()}
    return about, draw_map_grid(maps[index : index + 1], signed=bool(maps.min() < 0), cell=256)


def compare(
    service: AnalysisService,
    photo: Image.Image,
    one: dict[str, Any],
    other: dict[str, Any],
    method: str,
    share: float | None,
) -> dict[str, Any]:
    """How far two maps of one photo agree: their rank correlation, and how much of their strongest places they share.

    `one` and `other` are objects such as {"model": "resnet18-imagenette", "target": "church"}; what `other` leaves
    out is as in `one`, a class by its name. `share` is the part of the places that counts as strongest, 0 to 1.
    """
    require_photo(photo)
    share = 0.2 if share is None else share
    first, second = parse_parameters(one), parse_parameters(other)
    default = ExplanationRequest(photo, service.catalog.names[0], method=method)
    a = service.explain(replace(default, model=first.get("model") or default.model, target=first.get("target")))
    b = service.explain(replace(default, model=second.get("model") or a.model, target=second.get("target") or a.label))
    found = agreement(a, b, fraction=share)
    return {
        "correlation": found.correlation if math.isfinite(found.correlation) else None,  # JSON has no NaN
        "overlap": found.overlap,
        "share": share,
        "maps": [{**answer.to_dict(), "values": answer.heat.tolist()} for answer in (a, b)],
    }


def report(
    service: AnalysisService, photo: Image.Image, model: str, method: str, target: str, knobs: dict[str, Any] | None
) -> str:
    """A map as one page that opens anywhere: pictures, raw values, versions, hashes, and the code that makes it again.

    The parameters are those of `explain`.
    """
    answer = service.explain(build_request(photo, model, method, target, knobs))
    folder = Path(get_upload_folder())  # where gradio serves files from, and deletes them in time
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=folder)) / f"{answer.file_stem}.html"
    network = service.catalog.get(model)
    return str(vizlib.report(answer, path, model=network, snippets=[CodeSnippet.from_attribution(answer, network)]))


def build_endpoints(service: AnalysisService) -> None:
    """The endpoints; none of their inputs is drawn on the page."""
    first = service.catalog.names[0]
    with gr.Group(visible=False):
        photo = PhotoInput(label="photo", type="filepath", format="png")
        model = gr.Textbox(first, label="model")
        top = gr.Number(5, label="top", precision=0)
        method = gr.Textbox("grad-cam", label="method")
        target = gr.Textbox("", label="target")
        knobs = gr.JSON({}, label="knobs")
        one, other = gr.JSON({}, label="one"), gr.JSON({}, label="other")
        for thing in (knobs, one, other):  # gradio's own is no valid schema
            thing.api_info = lambda: {"type": "object", "additionalProperties": True}
        share = gr.Number(0.2, label="share")
        layer = gr.Textbox("", label="layer")
        head = gr.Textbox("mean", label="head")
        query = gr.Textbox("class", label="query")
        channel = gr.Number(None, label="channel", precision=0)
        numbers, picture = gr.JSON(label="numbers"), AtomicImage(format="png", label="picture")
        page = gr.File(label="page")
        for answer, inputs, outputs in (
            (models, [], [numbers]),
            (predict, [photo, model, top], [numbers]),
            (explain, [photo, model, method, target, knobs], [numbers, picture]),
            (attention, [photo, model, layer, head, query], [numbers, picture]),
            (channels, [photo, model, layer, channel], [numbers, picture]),
            (compare, [photo, one, other, method, share], [numbers]),
            (report, [photo, model, method, target, knobs], [page]),
        ):
            name = answer.__name__
            gr.Button(name).click(_bound(answer, service), inputs, outputs, api_name=name, **MODEL_QUEUE)


def require_photo(photo: Image.Image | gr.Error | None) -> Image.Image:
    """The photo, or a sentence that asks for one or says what is wrong with it."""
    if isinstance(photo, gr.Error):
        raise photo
    if photo is None:
        raise ImageError("a photo is missing; give one with gradio_client's handle_file(path)")
    return photo


def build_request(
    photo: Image.Image | gr.Error | None, model: str, method: str, target: str, parameters: Mapping[str, Any] | None
) -> ExplanationRequest:
    """Return the request that the inputs of an endpoint describe."""
    return ExplanationRequest(require_photo(photo), model, target or None, None, method, parse_parameters(parameters))


def parse_parameters(knobs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Knobs as they came in JSON, which has no tuples: a patch is a list there."""
    if not isinstance(knobs or {}, Mapping):
        raise MethodError(f"knobs are an object such as {{'layer': 'layer3'}}, not a {type(knobs).__name__}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in (knobs or {}).items()}


def parse_token(query: str | None) -> str | tuple[int, ...] | None:
    """A token's name, or a patch given as "row,column"; nothing for those the classifier reads."""
    query = query or ""
    parts = query.split(",")
    if len(parts) == 2 and all(part.strip().isdigit() for part in parts):
        return tuple(int(part) for part in parts)
    return query.strip() or None


def _bound(answer: Callable, service: AnalysisService) -> Callable:
    """The function over one service, as gradio sees it: same documentation, same parameters but the service."""

    def endpoint(*args: Any) -> Any:
        return show_errors(answer)(service, *args)

    endpoint.__doc__, endpoint.__name__ = answer.__doc__, answer.__name__
    signature = inspect.signature(answer)
    endpoint.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # pyright: ignore
    return endpoint
