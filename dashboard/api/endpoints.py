"""The named endpoints: results of the page for `gradio_client` and plain HTTP, with the same numbers as in Python."""

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
from dashboard.components.error_messages import show_errors
from dashboard.components.photo import PhotoInput
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.explanation_request import DEFAULT_METHOD, ExplanationRequest
from dashboard.services.prompted_name import PromptedName, check_page_prompts
from dashboard.state.context import MODEL_QUEUE
from vizlib import MethodError, agreement
from vizlib.attribution.methods.registry import choose_default_method
from vizlib.attribution.target import parse_target
from vizlib.core.errors import ImageError, ModelError
from vizlib.render.image_grid import draw_map_grid
from vizlib.reporting.code_snippets import CodeSnippet

DEFAULT_TOP_CLASSES = 5
DEFAULT_TOP_SHARE = 0.2  # of the places of a map count as its strongest
GRID_CELL_PIXELS = 64  # side of each channel in a grid of all
CHANNEL_PIXELS = 256  # side of a single channel


def handle_models_endpoint(service: AnalysisService) -> list[dict[str, Any]]:
    """List the models: name, source, megabytes, classes, top-1 accuracy if known, and whether it must be downloaded."""
    return [
        {
            "name": entry.name,
            "source": entry.source,
            "megabytes": entry.size_mb,
            "classes": entry.classes,
            "accuracy": entry.accuracy,
            "needs_download": entry.needs_download,
        }
        for entry in service.catalog.entries
    ]


def handle_predict_endpoint(
    service: AnalysisService, photo: Image.Image, model: str, top: float
) -> list[dict[str, Any]]:
    """Return the most probable classes of a photo: index, label, probability and logit, most probable first.

    Of a regression the values are listed by index; the probability is null, and the logit is the value.
    """
    predictions = service.predict(require_photo(photo), model, int(top or DEFAULT_TOP_CLASSES))
    return [prediction._asdict() for prediction in predictions]


def handle_explain_endpoint(
    service: AnalysisService,
    photo: Image.Image,
    model: str,
    method: str,
    target: str,
    parameters: dict[str, Any] | None,
) -> tuple[dict[str, Any], Image.Image]:
    """Return the attribution map for a class: its raw values with all that describes them, and the overlay.

    `target` is a class by index or label, the most probable one if empty. `parameters` are those of the method, such
    as {"layer": "layer3"}; "against" among them names the class to contrast the target with.
    """
    attribution = service.explain(build_endpoint_request(photo, model, method, target, parameters))
    return serialize_attribution(service.add_trust(model, attribution))


def handle_clip_endpoint(
    service: AnalysisService,
    photo: Image.Image,
    model: str,
    prompts: str,
    target: str,
    parameters: dict[str, Any] | None,
) -> tuple[dict[str, Any], Image.Image]:
    """Return which prompts fit a photo, and the map and the words of one of them, of a model that reads text.

    `prompts` has one prompt a line; if empty, those of the model are taken. `target` is one of them, the most probable
    if empty. `parameters` are those of `explain`, and "method" among them names the method. The result is that of
    `explain`, with the probabilities of all prompts as `prompts` and the relevance of the words as `words`.
    """
    lines = str(prompts or "").splitlines()
    name = str(PromptedName(str(model), check_page_prompts(lines))) if any(map(str.strip, lines)) else model
    network = service.catalog.get(name)
    if network.prompt_source is None:
        network.with_prompts(lines)  # raises the error that says so
    photo = require_photo(photo)
    options = parse_json_parameters(parameters)
    method = str(options.pop("method", "") or choose_default_method(network))
    attribution = service.explain(build_endpoint_request(photo, name, method, target, options))
    numbers, picture = serialize_attribution(service.add_trust(name, attribution))
    numbers["prompts"] = [one._asdict() for one in service.predict(photo, name, len(network.labels))]
    explained = attribution.target if isinstance(attribution.target, int) else None
    words = None if explained is None else service.get_word_relevance(photo, name, explained)
    numbers["words"] = None if words is None else words.to_dict()
    return numbers, picture


def handle_trust_endpoint(
    service: AnalysisService,
    photo: Image.Image,
    model: str,
    method: str,
    target: str,
    parameters: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return how far an attribution can be trusted: faithfulness, dependence and stability, with their sentences.

    The parameters are those of `explain`, whose result holds the same from then on.
    """
    attribution = service.explain(build_endpoint_request(photo, model, method, target, parameters))
    return service.measure_trust(model, attribution).to_dict()


def handle_attention_endpoint(
    service: AnalysisService, photo: Image.Image, model: str, layer: str, head: str, query: str
) -> tuple[dict[str, Any], Image.Image]:
    """Return the attention of one token to each patch: raw values and the overlay.

    `layer` is the name of an attention layer, the last if empty; `head` a number, mean or max; `query` the name of a
    token such as class, or a patch as "row,column", counted from 0.
    """
    parameters = {"layer": layer or None, "head": head or "mean", "query": parse_query_token(query)}
    request = ExplanationRequest(require_photo(photo), model, method="raw-attention", parameters=parameters)
    return serialize_attribution(service.explain(request))


def handle_channels_endpoint(
    service: AnalysisService, photo: Image.Image, model: str, layer: str, channel: float | None
) -> tuple[dict[str, Any], Image.Image]:
    """Return the output of a layer: channel means and maxima and a grid of all, or the values of one channel."""
    layer = layer or service.catalog.get(model).cam_layer or ""
    maps = service.get_activations(require_photo(photo), model, layer).maps.numpy()
    signed = bool(maps.min() < 0)
    result = {"model": model, "layer": layer, "shape": list(maps.shape)}
    if channel is None:
        means, maxima = maps.mean((1, 2)), maps.max((1, 2))
        result["channels"] = [
            {"index": i, "mean": float(mean), "max": float(maximum)}
            for i, (mean, maximum) in enumerate(zip(means, maxima, strict=True))
        ]
        return result, draw_map_grid(maps, signed=signed, cell=GRID_CELL_PIXELS)
    index = int(channel)
    if not 0 <= index < len(maps):
        raise ModelError(f"{layer} has channels 0 to {len(maps) - 1}, but no {index}")
    result |= {"channel": index, "values": maps[index].tolist()}
    return result, draw_map_grid(maps[index : index + 1], signed=signed, cell=CHANNEL_PIXELS)


def handle_gradient_endpoint(
    service: AnalysisService,
    photo: Image.Image,
    model: str,
    layer: str,
    target: str,
    parameters: dict[str, Any] | None,
) -> tuple[dict[str, Any], Image.Image]:
    """Return the gradient of a layer's output, or of the outputs of the network if `layer` is empty, and its overlay.

    `target` is a class of the outputs, or weights such as {"church": 1, "parachute": -1} as JSON; the most probable
    class if empty. Among the `parameters`, "unit" is a channel of the layer, "at" a position [row, column] of it, and
    "of" the earlier layer, or "image", with respect to which the gradient is taken.
    """
    options = parse_json_parameters(parameters)
    if unknown := options.keys() - {"unit", "at", "of"}:
        raise MethodError(f"there is no parameter {min(unknown)!r} of a gradient; expected unit, at and of")
    of = options.get("of") or "image"
    if not isinstance(of, str):
        raise MethodError(f"of is the name of one layer, or 'image', not {of!r}")
    options = {"of": of, "unit": require_index("unit", options.get("unit")), "at": options.get("at")}
    if options["at"] is not None:
        if not isinstance(options["at"], tuple) or len(options["at"]) != 2:
            raise MethodError(f"at is a position such as [3, 4], not {options['at']!r}")
        options["at"] = tuple(require_index("at", number) for number in options["at"])
    if target:
        weights = parse_target(target)
        options["weights"] = {weights: 1.0} if isinstance(weights, str) else weights
    gradient = service.get_gradient(require_photo(photo), model, layer or None, **options)
    return {**gradient.to_dict(), "values": gradient.heat(of).tolist()}, gradient.overlay(of)


def require_index(name: str, number: Any) -> int | None:
    """Return a number that an endpoint was sent as a whole number; `None` stays.

    Args:
        name: Name of the parameter, for the error.
        number: What was sent.

    Raises:
        MethodError: For anything but a whole number.
    """
    if number is None or (isinstance(number, int) and not isinstance(number, bool)):
        return number
    raise MethodError(f"{name} takes whole numbers from 0, not {number!r}")


def handle_compare_endpoint(
    service: AnalysisService,
    photo: Image.Image,
    one: dict[str, Any],
    other: dict[str, Any],
    method: str,
    share: float | None,
) -> dict[str, Any]:
    """Return how similar two maps of one photo are: their rank correlation, and the overlap of their strongest places.

    `one` and `other` are objects such as {"model": "resnet18-imagenette", "target": "church"}; what `other` lacks is
    taken from `one`, a class by its label. `share` is the part of the places that counts as strongest, 0 to 1.
    """
    share = DEFAULT_TOP_SHARE if share is None else share
    first, second = parse_json_parameters(one), parse_json_parameters(other)
    request = ExplanationRequest(require_photo(photo), service.catalog.names[0], method=method)
    a = service.explain(replace(request, model=first.get("model") or request.model, target=first.get("target")))
    b = service.explain(replace(request, model=second.get("model") or a.model, target=second.get("target") or a.label))
    similarity = agreement(a, b, fraction=share)
    return {
        "correlation": similarity.correlation if math.isfinite(similarity.correlation) else None,  # JSON has no NaN
        "overlap": similarity.overlap,
        "share": share,
        "maps": [serialize_values(attribution) for attribution in (a, b)],
    }


def handle_report_endpoint(
    service: AnalysisService,
    photo: Image.Image,
    model: str,
    method: str,
    target: str,
    parameters: dict[str, Any] | None,
) -> str:
    """Return an attribution as one HTML file: pictures, raw values, versions, hashes, and the code to reproduce it.

    The parameters are those of `explain`.
    """
    attribution = service.explain(build_endpoint_request(photo, model, method, target, parameters))
    attribution = service.add_trust(model, attribution)
    folder = Path(get_upload_folder())  # from which gradio serves files, and where it deletes them later
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=folder)) / f"{attribution.file_stem}.html"
    network = service.catalog.get(model)
    snippets = [CodeSnippet.from_attribution(attribution, network)]
    return str(vizlib.report(attribution, path, model=network, snippets=snippets))


def build_endpoints(service: AnalysisService) -> None:
    """Add the endpoints to the page; their inputs and outputs are invisible."""
    with gr.Group(visible=False):
        photo = PhotoInput(label="photo", type="filepath", format="png")
        model = gr.Textbox(service.catalog.names[0], label="model")
        clip = gr.Textbox(choose_text_model(service), label="model")
        top = gr.Number(DEFAULT_TOP_CLASSES, label="top", precision=0)
        method = gr.Textbox(DEFAULT_METHOD, label="method")
        target = gr.Textbox("", label="target")
        prompts = gr.Textbox("", lines=5, label="prompts")
        parameters = gr.JSON({}, label="parameters")
        one, other = gr.JSON({}, label="one"), gr.JSON({}, label="other")
        for component in (parameters, one, other):  # gradio's own description is no valid JSON schema
            component.api_info = lambda: {"type": "object", "additionalProperties": True}
        share = gr.Number(DEFAULT_TOP_SHARE, label="share")
        layer = gr.Textbox("", label="layer")
        head = gr.Textbox("mean", label="head")
        query = gr.Textbox("class", label="query")
        channel = gr.Number(None, label="channel", precision=0)
        numbers, picture = gr.JSON(label="numbers"), AtomicImage(format="png", label="picture")
        page = gr.File(label="page")
        for name, function, inputs, outputs in (
            ("models", handle_models_endpoint, [], [numbers]),
            ("predict", handle_predict_endpoint, [photo, model, top], [numbers]),
            ("explain", handle_explain_endpoint, [photo, model, method, target, parameters], [numbers, picture]),
            (
                "clip",
                handle_clip_endpoint,
                [photo, clip, prompts, target, parameters],
                [numbers, picture],
            ),
            ("trust", handle_trust_endpoint, [photo, model, method, target, parameters], [numbers]),
            ("attention", handle_attention_endpoint, [photo, model, layer, head, query], [numbers, picture]),
            ("channels", handle_channels_endpoint, [photo, model, layer, channel], [numbers, picture]),
            ("gradient", handle_gradient_endpoint, [photo, model, layer, target, parameters], [numbers, picture]),
            ("compare", handle_compare_endpoint, [photo, one, other, method, share], [numbers]),
            ("report", handle_report_endpoint, [photo, model, method, target, parameters], [page]),
        ):
            gr.Button(name).click(_bind_service(name, function, service), inputs, outputs, api_name=name, **MODEL_QUEUE)


def choose_text_model(service: AnalysisService) -> str:
    """Return the name of the first model of the catalog that reads text, or of the first of all."""
    entries = service.catalog.entries
    return next((entry.name for entry in entries if entry.reads_prompts), entries[0].name if entries else "")


def serialize_attribution(attribution: vizlib.Attribution) -> tuple[dict[str, Any], Image.Image]:
    """Return what an endpoint sends of an attribution: JSON with its raw values, and its overlay on the photo."""
    return serialize_values(attribution), attribution.overlay()


def serialize_values(attribution: vizlib.Attribution) -> dict[str, Any]:
    """Return an attribution as the JSON that an endpoint sends, with its raw values."""
    return {**attribution.to_dict(), "values": attribution.heat.tolist()}


def require_photo(photo: Image.Image | gr.Error | None) -> Image.Image:
    """Return the photo that an endpoint was sent, or raise an error for one that is missing or cannot be opened."""
    if isinstance(photo, gr.Error):
        raise photo
    if photo is None:
        raise ImageError("a photo is missing; give one with gradio_client's handle_file(path)")
    return photo


def build_endpoint_request(
    photo: Image.Image | gr.Error | None, model: str, method: str, target: str, parameters: Mapping[str, Any] | None
) -> ExplanationRequest:
    """Return the request that the inputs of an endpoint describe."""
    return ExplanationRequest(
        require_photo(photo), model, target or None, None, method, parse_json_parameters(parameters)
    )


def parse_json_parameters(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return parameters that an endpoint was sent as JSON, with lists as tuples: a patch is (row, column)."""
    if not isinstance(parameters or {}, Mapping):
        raise MethodError(f"parameters are an object such as {{'layer': 'layer3'}}, not a {type(parameters).__name__}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in (parameters or {}).items()}


def parse_query_token(query: str | None) -> str | tuple[int, ...] | None:
    """Return the `query` of the endpoint /attention: the name of a token, or a patch given as "row,column".

    Nothing is `None`: the tokens that the classifier reads.
    """
    query = query or ""
    parts = query.split(",")
    if len(parts) == 2 and all(part.strip().isdigit() for part in parts):
        return tuple(int(part) for part in parts)
    return query.strip() or None


def _bind_service(name: str, function: Callable, service: AnalysisService) -> Callable:
    """Return an endpoint without its first parameter, the service; gradio reads its docstring and other parameters."""

    def endpoint(*args: Any) -> Any:
        return show_errors(function)(service, *args)

    endpoint.__doc__, endpoint.__name__ = function.__doc__, name
    signature = inspect.signature(function)
    signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    endpoint.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess] - inspect.signature reads it
    return endpoint
