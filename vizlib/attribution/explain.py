"""Explain a prediction: one method, all methods of one pass, one photo or many, at once or step by step."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, cast, overload

import torch
from PIL import Image
from torch import Tensor

from vizlib.attribution.evidence import Evidence, RequiredSignals, gather_batch_evidence, gather_evidence
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import (
    ClassSelector,
    MethodCall,
    PartialHeat,
    Request,
    TargetSpec,
    broadcast_targets,
    combine_signals,
)
from vizlib.attribution.result import Attribution, AttributionDict, ExplanationStep
from vizlib.core.errors import MethodError
from vizlib.core.images import PhotoSource, open_image
from vizlib.core.text import Note, format_percent, make_note
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.layer_share import COMPLETE_SHARE
from vizlib.models.model import Model
from vizlib.models.run import Run

MIN_SEEN_FRACTION = 0.8  # of the photo; below this a note states what was cropped away
UNCERTAIN_PROBABILITY = 0.5  # of the top class; below this a note states that the model is uncertain
SATURATED_PROBABILITY = 0.99  # of the target; above this the gradient of the softmax is nearly zero

Photos = list[Any] | tuple[Any, ...]
Selectors = ClassSelector | Sequence[ClassSelector]


@overload
def explain(
    model: Model,
    photo: Photos,
    method: str = "grad-cam",
    target: Selectors = None,
    against: Selectors = None,
    *,
    run: None = None,
    **parameters: Any,
) -> list[Attribution]: ...
@overload
def explain(
    model: Model,
    photo: PhotoSource,
    method: str = "grad-cam",
    target: ClassSelector = None,
    against: ClassSelector = None,
    *,
    run: Run | None = None,
    **parameters: Any,
) -> Attribution: ...
def explain(
    model: Model,
    photo: PhotoSource | Photos,
    method: str = "grad-cam",
    target: Selectors = None,
    against: Selectors = None,
    *,
    run: Run | None = None,
    **parameters: Any,
) -> Attribution | list[Attribution]:
    """Return how much each region of a photo contributes to the score of a class.

    Args:
        model: The model.
        photo: A photo as `open_image` accepts it, or a list of photos, of which all are in memory at once;
            `explain_each` takes any number.
        method: Name of the method; `list_methods(model)` returns those that support the model.
        target: Class to explain, by index or label; by default the likeliest. For a list of photos one for all, or a
            list.
        against: Class to compare with: the explained score is then the difference between the two classes, so negative
            heat is evidence for this class. `"runner-up"` is the likeliest class besides the target.
        run: A run of the photo that already holds what the method reads, which saves the forward pass.
        **parameters: Parameters of the method, for example `layer="layer3"`.

    Returns:
        The attribution, or for a list of photos a list of attributions.

    Raises:
        ImageError: If a photo cannot be used.
        TargetError: For a class that the model does not have.
        MethodError: For an unknown method or parameter, a value that is not accepted, or a method that does not support
            the model.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> attribution = vizlib.explain(model, get_image("tower.jpg"), method="grad-cam", target="church")
        >>> attribution.heat.shape
        torch.Size([6, 6])
    """
    call = METHODS.resolve_method(model, method, parameters)
    if isinstance(photo, (list, tuple)):
        _refuse_run(run)
        return [results[0] for results in _explain_photos(model, photo, [call], target, against)]
    target, against = cast(ClassSelector, target), cast(ClassSelector, against)
    return _make_attributions(_gather_inputs(model, photo, [call], target, against, run))[0]


@overload
def explain_all(
    model: Model, photo: Photos, target: Selectors = None, against: Selectors = None, *, run: None = None
) -> list[AttributionDict]: ...
@overload
def explain_all(
    model: Model,
    photo: PhotoSource | None = None,
    target: ClassSelector = None,
    against: ClassSelector = None,
    *,
    run: Run | None = None,
) -> AttributionDict: ...
def explain_all(
    model: Model,
    photo: PhotoSource | Photos | None = None,
    target: Selectors = None,
    against: Selectors = None,
    *,
    run: Run | None = None,
) -> AttributionDict | list[AttributionDict]:
    """Return the attributions of all methods that one forward and one backward pass can feed.

    Args:
        model: The model.
        photo: A photo as `open_image` accepts it, or a list of photos.
        target: Class to explain, as in `explain`.
        against: Class to compare with, as in `explain`.
        run: A run made by `run_for_all`, which saves the forward pass: another class then costs one backward pass.

    Returns:
        The attributions by name of the method, or for a list of photos a list of such dictionaries. Of a method that
        reads one layer, `by_layer` holds the attribution at every stage (of raw attention, at every attention layer).

    Raises:
        ImageError: If a photo cannot be used.
        TargetError: For a class that the model does not have.
        MethodError: For a run that does not hold what the methods read.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> attributions = vizlib.explain_all(model, get_image("tower.jpg"))
        >>> list(attributions["layer-cam"].by_layer)
        ['layer1', 'layer2', 'layer3', 'layer4']
    """
    calls = METHODS.list_single_pass_calls(model)
    if isinstance(photo, (list, tuple)):
        _refuse_run(run)
        return [_name_by_method(results) for results in _explain_photos(model, photo, calls, target, against)]
    if run is not None:
        photo = run.photo
    elif photo is None:
        raise MethodError("explain_all needs a photo, a list of photos, or a run made by run_for_all()")
    target, against = cast(ClassSelector, target), cast(ClassSelector, against)
    return attributions_from(_gather_inputs(model, photo, calls, target, against, run))


def run_for_all(model: Model, photo: PhotoSource, layers: Sequence[str] = ()) -> Run:
    """Return a forward pass that records all that `explain_all` reads, and the outputs of further layers.

    Raises:
        ImageError: If the photo cannot be used.
        ModelError: For a layer that does not exist.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> run = vizlib.run_for_all(model, get_image("tower.jpg"))
        >>> sorted(run.activations)
        ['layer1', 'layer2', 'layer3', 'layer4']
    """
    signals = combine_signals(METHODS.list_single_pass_calls(model)) | RequiredSignals(layers=tuple(layers))
    return model.run(photo, signals.layers, signals.needs_attention)  # with rules, so that any method can read it


def run_holds(model: Model, run: Run, method: str, **parameters: Any) -> bool:
    """Return whether a run made by `run_for_all` holds all that `explain` reads for a method, without a forward pass.

    Raises:
        MethodError: As `explain`.
    """
    signals = METHODS.resolve_method(model, method, parameters).signals
    return set(signals.layers) <= set(run.activations) and (bool(run.attention) or not signals.needs_attention)


@dataclass(frozen=True, eq=False)
class ExplanationInputs:
    """What `explain` makes attributions of, for one class: evidence, the calls of the methods, and the class."""

    evidence: Evidence
    calls: Sequence[MethodCall]
    spec: TargetSpec


def gather_for_all(
    model: Model, run: Run, target: ClassSelector = None, against: ClassSelector = None
) -> ExplanationInputs:
    """Return what `explain_all` makes attributions of, from one backward pass of a run made by `run_for_all`.

    `attributions_from` makes heat maps of it, `vizlib.analysis.units.contributions_from_evidence` contributions.

    Raises:
        TargetError: For a class that the model does not have.
        MethodError: For a run that does not hold what the methods read.
    """
    return _gather_inputs(model, run.photo, METHODS.list_single_pass_calls(model), target, against, run)


def attributions_from(inputs: ExplanationInputs) -> AttributionDict:
    """Return the attribution of every method of one pass, by its name, as `explain_all` does."""
    return _name_by_method(_make_attributions(inputs))


def explain_stream(
    model: Model,
    photo: PhotoSource,
    method: str = "rise",
    target: ClassSelector = None,
    against: ClassSelector = None,
    *,
    run: Run | None = None,
    **parameters: Any,
) -> Generator[ExplanationStep, None, None]:
    """Yield the attribution of `explain` after each batch of passes, converging to it.

    The attribution of the last step is that of `explain`; a method of one pass has a single step. Nothing is computed
    between two steps, so iteration can stop at any of them. The arguments are those of `explain`.

    Raises:
        VizlibError: As `explain`, before the first pass.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> steps = vizlib.explain_stream(model, get_image("tower.jpg"), "rise", masks=16)
        >>> [step.total for step in steps][-1]
        16
    """
    call = METHODS.resolve_method(model, method, parameters)
    inputs = _gather_inputs(model, photo, [call], target, against, run)
    return _make_steps(inputs.evidence, call.for_target(inputs.spec))


def estimate(model: Model, method: str = "grad-cam", photo: PhotoSource | None = None, **parameters: Any) -> float:
    """Return about how many seconds `explain` takes on this machine, measured on its first two batches of passes.

    Args:
        model: The model.
        method: Name of the method.
        photo: The photo; by default noise. How many passes a method makes can depend on the photo, so the estimate is a
            guide, and the first call on a model takes longer than later ones.
        **parameters: Parameters of the method.

    Raises:
        MethodError: As `explain`.

    Example:
        >>> import vizlib
        >>> vizlib.estimate(vizlib.load("resnet18-imagenette"), "rise", masks=100) > 0
        True
    """
    if photo is None:
        height, width = model.preprocessing.input_size
        noise = torch.randint(
            0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8, device="cpu"
        )
        photo = Image.fromarray(noise.numpy())
    start = time.perf_counter()
    steps = explain_stream(model, photo, method, **parameters)
    first = next(steps)
    middle = time.perf_counter()
    second = next(steps, None)
    if second is None:
        return middle - start
    seconds_per_pass = (time.perf_counter() - middle) / (second.done - first.done)
    return middle - start + seconds_per_pass * (first.total - first.done)


def _gather_inputs(
    model: Model,
    photo: PhotoSource,
    calls: Sequence[MethodCall],
    target: ClassSelector,
    against: ClassSelector,
    run: Run | None,
) -> ExplanationInputs:
    """Return what attributions by these calls are made of; `run` replaces a forward pass of the photo."""
    signals = combine_signals(calls)
    run = model.run(photo, **signals.run_kwargs) if run is None else run
    spec = TargetSpec.resolve(model, run.logits, target, against)
    evidence = gather_evidence(model, run, spec.make_score(calls[0].score_kind), signals)
    return ExplanationInputs(evidence, calls, spec)


def _refuse_run(run: Run | None) -> None:
    """Refuse a run where `explain` or `explain_all` is given a list of photos."""
    if run is not None:
        raise MethodError("a run is of one photo; leave it out when explaining a list of photos")


def _name_by_method(attributions: Sequence[Attribution]) -> AttributionDict:
    """Return the attributions by name of the method, as `explain_all` returns them."""
    return AttributionDict({attribution.method: attribution for attribution in attributions})


# ------------------------------------------------------------------------------------------ from evidence to the result


def _explain_photos(
    model: Model, photos: Sequence[PhotoSource], calls: Sequence[MethodCall], target: Selectors, against: Selectors
) -> Iterator[list[Attribution]]:
    """Yield the attributions of each photo; photos share the passes of a batch that fits into memory."""
    opened = [open_image(photo) for photo in photos]  # an unusable photo is refused before the first pass
    targets = broadcast_targets(target, len(opened), "target")
    contrasts = broadcast_targets(against, len(opened), "against")
    signals = combine_signals(calls)
    # These passes use the network itself, not a folded copy.
    size = BatchedInference(model, use_folded_copy=False).batch_size(gradient=True)
    for start in range(0, len(opened), size):
        batch = opened[start : start + size]
        image, logits, recording = model.forward(
            torch.cat([model.tensor(photo) for photo in batch]), **signals.run_kwargs
        )
        selectors = zip(targets[start : start + size], contrasts[start : start + size], strict=True)
        specs = [TargetSpec.resolve(model, logits[i : i + 1], *pair) for i, pair in enumerate(selectors)]
        scores = [spec.make_score(calls[0].score_kind) for spec in specs]
        geometry = model.preprocessing.geometry(batch[0])  # replaced by each photo's own
        run = Run(image, logits, recording.activations, recording.attention, geometry, batch[0], (), recording)
        for evidence, spec in zip(gather_batch_evidence(model, run, batch, scores, signals), specs, strict=True):
            yield _make_attributions(ExplanationInputs(evidence, calls, spec))


def _make_attributions(inputs: ExplanationInputs) -> list[Attribution]:
    """Explain by each call: return its attribution, with those at its other layers where they are requested."""
    evidence, requests = inputs.evidence, [call.for_target(inputs.spec) for call in inputs.calls]
    by_layer = [request.list_other_layers(evidence) for request in requests]
    partials: dict[tuple, PartialHeat] = {}
    for request in chain(requests, *by_layer):
        if request.map_key not in partials:  # the same map at a layer by default and by its name is computed once
            *_, partials[request.map_key] = _compute_heat(evidence, request)
    heats = dict(zip(partials, _move_to_cpu([partial.heat for partial in partials.values()]), strict=True))

    def make(request: Request) -> Attribution:
        """Return the attribution of one request, from its heat map on the CPU."""
        return _make_attribution(evidence, request, heats[request.map_key], partials[request.map_key].notes)

    return [
        replace(make(request), by_layer={str(other.call.values["layer"]): make(other) for other in others})
        for request, others in zip(requests, by_layer, strict=True)
    ]


def _make_steps(evidence: Evidence, request: Request) -> Generator[ExplanationStep, None, None]:
    """Yield the steps of `explain_stream`, one after each batch of passes."""
    for partial in _compute_heat(evidence, request):
        (heat,) = _move_to_cpu([partial.heat])
        yield ExplanationStep(_make_attribution(evidence, request, heat, partial.notes), partial.done, partial.total)


def _compute_heat(evidence: Evidence, request: Request) -> Iterator[PartialHeat]:
    """Yield the heat map that explains a request; of a method of many passes, one after each batch of them."""
    steps = _compute_steps(evidence, request)
    while True:
        # In the network's own types where the caller autocasts; not across a `yield`, where the caller's code runs.
        with torch.autocast(evidence.run.image.device.type, enabled=False):
            partial = next(steps, None)
        if partial is None:
            return
        yield partial


def _compute_steps(evidence: Evidence, request: Request) -> Iterator[PartialHeat]:
    """Yield the heat map of a request from the method's own generator, or from its function in one step."""
    method, values = request.call.method, request.call.values
    if method.compute_steps is not None:
        yield from method.compute_steps(evidence, **values)
    else:
        assert method.compute is not None
        yield PartialHeat(method.compute(evidence, **values), 1, 1)


def _move_to_cpu(heats: Sequence[Tensor]) -> list[Tensor]:
    """Return the explanations' heat maps in single precision on the CPU; from a GPU in one copy, as each one waits."""
    detached = [heat.detach().float() for heat in heats]
    if all(heat.is_cpu for heat in detached):
        return detached
    parts = torch.cat([heat.flatten() for heat in detached]).cpu().split([heat.numel() for heat in detached])
    return [part.view(heat.shape).clone() for part, heat in zip(parts, detached, strict=True)]  # each owns its memory


def _make_attribution(evidence: Evidence, request: Request, heat: Tensor, notes: tuple[str, ...]) -> Attribution:
    """Return the attribution that explains a request, from its heat map."""
    method, model, run = request.call.method, evidence.model, evidence.run
    return Attribution(
        heat=heat,
        target=request.target.target,
        against=request.target.against,
        label=model.labels[request.target.target],
        method=method.name,
        parameters=dict(request.call.values),
        signed=request.is_signed,
        geometry=run.geometry,
        photo=run.photo,
        model=model.name,
        probability=evidence.probabilities[request.target.target],
        notes=(*run.notes, *_collect_notes(heat, evidence, request), *notes),
        patch_values=method.patch_values,
    )


def _collect_notes(heat: Tensor, evidence: Evidence, request: Request) -> Iterator[Note]:
    """Yield the notes of an explanation: what is wrong with its heat map on the CPU, or worth knowing about it."""
    method, labels = request.call.method, evidence.model.labels
    target, against = request.target.target, request.target.against
    largest = heat.abs().max().item() if heat.numel() else 0.0
    if not torch.isfinite(heat).all():
        yield make_note("map.not-finite")
    elif largest == 0:
        layer = _find_layer_without_gradient(evidence, request)
        yield make_note("map.no-gradient", layer=layer) if layer else make_note("map.empty", label=labels[target])
    for layer in request.call.layers:
        share = evidence.model.layer_share(layer)
        if share is not None and share < COMPLETE_SHARE:
            yield make_note("map.partial-layer", layer=layer, share=format_percent(share))
    top, probabilities = evidence.top_class, evidence.probabilities
    if top is None:
        pass  # the run has a note, and no probability means anything
    elif method.class_specific and target != top:
        yield make_note(
            "target.not-top",
            best=labels[top],
            share=format_percent(probabilities[top]),
            label=labels[target],
            rank=evidence.rank(target),
            other=format_percent(probabilities[target]),
        )
    elif target == top and probabilities[top] < UNCERTAIN_PROBABILITY:
        yield make_note("target.uncertain", share=format_percent(probabilities[top]))
    if against is not None and not method.class_specific:
        yield make_note("contrast.not-class-specific", method=method.name)
    elif against is not None and against == target:
        yield make_note("contrast.same-class")
    if request.call.score_kind == "probability" and probabilities[target] > SATURATED_PROBABILITY:
        yield make_note("score.saturated")
    seen = evidence.run.geometry.visible_fraction
    if seen < MIN_SEEN_FRACTION:
        yield make_note("photo.cropped", share=format_percent(seen))


def _find_layer_without_gradient(evidence: Evidence, request: Request) -> str | None:
    """Return the first layer of an empty explanation whose gradient is zero at every position of the photo."""
    for layer in request.call.layers:
        gradient = evidence.layer_gradients.get(layer)
        # Of a transformer's layer only the patches make the map: the class token's gradient may well be nonzero.
        maps = None if gradient is None else evidence.model.spatial_map(gradient)
        if maps is not None and not maps.any():
            return layer
    return None
