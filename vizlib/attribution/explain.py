"""Explain a prediction: one method, all methods of one pass, one photo or many, at once or step by step."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, cast, overload

import torch
from PIL import Image
from torch import Tensor

from vizlib.attribution.evidence import Evidence, RequiredSignals, gather_batch_evidence, gather_evidence
from vizlib.attribution.methods.registry import METHODS, choose_default_method
from vizlib.attribution.request import MethodCall, PartialHeat, Request, broadcast_targets, combine_signals
from vizlib.attribution.result import Attribution, AttributionDict, ExplanationStep
from vizlib.attribution.target import ClassSelector, TargetSelector, TargetSpec, bind_function, is_function
from vizlib.core.errors import MethodError
from vizlib.core.images import PhotoSource, open_image
from vizlib.core.text import Note, format_percent, make_note
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.layer_share import COMPLETE_SHARE
from vizlib.models.model import Model
from vizlib.models.run import Run

MIN_SEEN_FRACTION = 0.8  # of the photo; below this a note states what was cropped away

Photos = list[Any] | tuple[Any, ...]
TargetSelectors = TargetSelector | Sequence[TargetSelector]
ClassSelectors = ClassSelector | Sequence[ClassSelector]


@overload
def explain(
    model: Model,
    photo: Photos,
    method: str | None = None,
    target: TargetSelectors = None,
    against: ClassSelectors = None,
    *,
    run: None = None,
    target_name: str | None = None,
    **parameters: Any,
) -> list[Attribution]: ...
@overload
def explain(
    model: Model,
    photo: PhotoSource,
    method: str | None = None,
    target: TargetSelector = None,
    against: ClassSelector = None,
    *,
    run: Run | None = None,
    target_name: str | None = None,
    **parameters: Any,
) -> Attribution: ...
def explain(
    model: Model,
    photo: PhotoSource | Photos,
    method: str | None = None,
    target: TargetSelectors = None,
    against: ClassSelectors = None,
    *,
    run: Run | None = None,
    target_name: str | None = None,
    **parameters: Any,
) -> Attribution | list[Attribution]:
    """Return how much each region of a photo contributes to the score of a class.

    Args:
        model: The model.
        photo: A photo as `open_image` accepts it, or a list of photos, of which all are in memory at once;
            `explain_each` takes any number.
        method: Name of the method; `list_methods(model)` returns those that support the model. By default `grad-cam`,
            or for a model whose classes are prompts `attention-relevance` where it is supported.
        target: What to explain. A class by index or label, by default the likeliest; of a model with one label, such as
            "llama", also "not llama". A weighted sum of classes: weights by label or index in a dictionary, or a tensor
            with one for each class. A function: it takes what the network returns for n photos, or what the `output` of
            `wrap` picks from it, and returns a tensor of n values. For a list of photos one for all, or a list.
        against: Class to compare with: the explained score is then the difference between the two classes, so negative
            heat is evidence for this class. `"runner-up"` is the likeliest class besides the target.
        run: A run of the photo that already holds what the method reads, which saves the forward pass.
        target_name: Name of a function given as target, for labels and records; by default its own.
        **parameters: Parameters of the method, for example `layer="layer3"`.

    Returns:
        The attribution, or for a list of photos a list of attributions.

    Raises:
        ImageError: If a photo cannot be used.
        TargetError: For a class that the model does not have, no class where none is likeliest, or a function whose
            value is not one finite number for each photo that depends on the output.
        MethodError: For an unknown method or parameter, a value that is not accepted, or a method that does not support
            the model.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> photo = get_image("tower.jpg")
        >>> attribution = vizlib.explain(model, photo, method="grad-cam", target="church")
        >>> attribution.heat.shape
        torch.Size([6, 6])
        >>> vizlib.explain(model, photo, target={"church": 1, "golf ball": -0.5}).label
        'church − 0.5 × golf ball'
        >>> vizlib.explain(model, photo, target=lambda logits: logits.logsumexp(1), target_name="energy").label
        'energy'
    """
    if _has_function_per_photo(photo, target):
        _refuse_run(run)
        triples = _assign_targets(cast(Photos, photo), target, against)
        return [explain(model, one, method, *pair, target_name=target_name, **parameters) for one, *pair in triples]
    model, target = bind_function(model, target, target_name, run)
    call = METHODS.resolve_method(model, method or choose_default_method(model), parameters)
    if isinstance(photo, (list, tuple)):
        _refuse_run(run)
        return [results[0] for results in _explain_photos(model, photo, [call], target, against)]
    target, against = cast(TargetSelector, target), cast(ClassSelector, against)
    return _make_attributions(_gather_inputs(model, photo, [call], target, against, run))[0]


@overload
def explain_all(
    model: Model, photo: Photos, target: TargetSelectors = None, against: ClassSelectors = None, *, run: None = None
) -> list[AttributionDict]: ...
@overload
def explain_all(
    model: Model,
    photo: PhotoSource | None = None,
    target: TargetSelector = None,
    against: ClassSelector = None,
    *,
    run: Run | None = None,
    target_name: str | None = None,
) -> AttributionDict: ...
def explain_all(
    model: Model,
    photo: PhotoSource | Photos | None = None,
    target: TargetSelectors = None,
    against: ClassSelectors = None,
    *,
    run: Run | None = None,
    target_name: str | None = None,
) -> AttributionDict | list[AttributionDict]:
    """Return the attributions of all methods that one forward and one backward pass can feed.

    Args:
        model: The model.
        photo: A photo as `open_image` accepts it, or a list of photos.
        target: Class to explain, as in `explain`.
        against: Class to compare with, as in `explain`.
        run: A run made by `run_for_all`, which saves the forward pass: another class then costs one backward pass.
        target_name: As in `explain`.

    Returns:
        The attributions by name of the method, or for a list of photos a list of such dictionaries. Of a method that
        reads one layer, `by_layer` holds the attribution at every stage (of raw attention, at every attention layer).
        Of a model without classes and without a target, only those of methods that depend on no class.

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
    if _has_function_per_photo(photo, target):
        _refuse_run(run)
        triples = _assign_targets(cast(Photos, photo), target, against)
        return [explain_all(model, one, *pair, target_name=target_name) for one, *pair in triples]
    model, target = bind_function(model, target, target_name, run)
    calls = METHODS.list_single_pass_calls(model)
    if isinstance(photo, (list, tuple)):
        _refuse_run(run)
        return [_name_by_method(results) for results in _explain_photos(model, photo, calls, target, against)]
    if run is not None:
        photo = run.photo
    elif photo is None:
        raise MethodError("explain_all needs a photo, a list of photos, or a run made by run_for_all()")
    target, against = cast(TargetSelector, target), cast(ClassSelector, against)
    return attributions_from(_gather_inputs(model, photo, calls, target, against, run))


def run_for_all(model: Model, photo: PhotoSource, layers: Sequence[str] = ()) -> Run:
    """Return a forward pass that records all that `explain_all` reads, and the outputs of further layers.

    Args:
        model: The model.
        photo: Anything that `vizlib.open_image` takes.
        layers: Names of further layers whose output is kept.

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
    model: Model, run: Run, target: TargetSelector = None, against: ClassSelector = None
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
    target: TargetSelector = None,
    against: ClassSelector = None,
    *,
    run: Run | None = None,
    target_name: str | None = None,
    **parameters: Any,
) -> Generator[ExplanationStep, None, None]:
    """Yield the attribution of `explain` after each batch of passes, converging to it.

    The attribution of the last step is that of `explain`; a method of one pass has a single step. Nothing is computed
    between two steps, so iteration can stop at any of them. The arguments are those of `explain`.

    Args:
        model: As in `explain`, like all further arguments.
        photo: The photo.
        method: Name of the method.
        target: The class.
        against: The class of the contrast.
        run: A run of this model and photo, to save its forward pass.
        target_name: Name of a function that is the target.
        **parameters: Parameters of the method.

    Yields:
        Steps with the attribution so far, and how many passes are done.

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
    model, target = bind_function(model, target, target_name, run)
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
    return estimate_stream_seconds(lambda: explain_stream(model, photo, method, **parameters))


def estimate_stream_seconds(start: Callable[[], Iterator[Any]]) -> float:
    """Return about how many seconds a stream takes, from the time of its first two steps.

    Args:
        start: Makes the stream, whose steps have the attributes `done` and `total`.
    """
    begun = time.perf_counter()
    steps = start()
    first = next(steps)
    middle = time.perf_counter()
    second = next(steps, None)
    if second is None:
        return middle - begun
    seconds_per_pass = (time.perf_counter() - middle) / (second.done - first.done)
    return middle - begun + seconds_per_pass * (first.total - first.done)


def _gather_inputs(
    model: Model,
    photo: PhotoSource,
    calls: Sequence[MethodCall],
    target: TargetSelector,
    against: ClassSelector,
    run: Run | None,
) -> ExplanationInputs:
    """Return what attributions by these calls are made of; `run` replaces a forward pass of the photo."""
    calls = _drop_calls_without_target(model, calls, [target])
    signals = combine_signals(calls)
    run = model.run(photo, **signals.run_kwargs) if run is None else run
    spec = TargetSpec.resolve(model, run.logits, target, against, required=_need_target(calls))
    evidence = gather_evidence(model, run, spec.make_score(calls[0].score_kind), signals)
    return ExplanationInputs(evidence, calls, spec)


def _need_target(calls: Sequence[MethodCall]) -> bool:
    """Return whether every one of the calls to explain by depends on a class."""
    return all(call.method.class_specific for call in calls)


def _drop_calls_without_target(
    model: Model, calls: Sequence[MethodCall], targets: Sequence[Any]
) -> Sequence[MethodCall]:
    """Return the calls to explain by; with neither target nor default those that depend on no class, if any."""
    if model.output_row.has_default(len(model.labels)) or any(target is not None for target in targets):
        return calls
    return [call for call in calls if not call.method.class_specific] or calls


def _drop_class_specific(calls: Sequence[MethodCall], spec: TargetSpec) -> Sequence[MethodCall]:
    """Return the calls to explain by, without a target those that depend on no class."""
    return calls if spec.target is not None else [call for call in calls if not call.method.class_specific]


def _has_function_per_photo(photo: Any, target: Any) -> bool:
    """Return whether photos are explained one by one, as each may have a function of its own as target."""
    lists = isinstance(photo, (list, tuple)) and isinstance(target, (list, tuple))
    return lists and any(map(is_function, target))


def _assign_targets(photos: Photos, target: Any, against: Any) -> list[tuple[Any, Any, Any]]:
    """Return each photo to explain with its target and its contrast class."""
    targets, contrasts = (
        broadcast_targets(selectors, len(photos), name)
        for selectors, name in ((target, "target"), (against, "against"))
    )
    return list(zip(photos, targets, contrasts, strict=True))


def _refuse_run(run: Run | None) -> None:
    """Refuse a run where `explain` or `explain_all` is given a list of photos."""
    if run is not None:
        raise MethodError("a run is of one photo; leave it out when explaining a list of photos")


def _name_by_method(attributions: Sequence[Attribution]) -> AttributionDict:
    """Return the attributions by name of the method, as `explain_all` returns them."""
    return AttributionDict({attribution.method: attribution for attribution in attributions})


# ------------------------------------------------------------------------------------------ from evidence to the result


def _explain_photos(
    model: Model,
    photos: Sequence[PhotoSource],
    calls: Sequence[MethodCall],
    target: TargetSelectors,
    against: ClassSelectors,
) -> Iterator[list[Attribution]]:
    """Yield the attributions of each photo; photos share the passes of a batch that fits into memory."""
    opened = [open_image(photo) for photo in photos]  # an unusable photo is refused before the first pass
    selectors = [pair for _, *pair in _assign_targets(opened, target, against)]
    if not opened:
        return
    calls = _drop_calls_without_target(model, calls, [selector for selector, _ in selectors])
    signals = combine_signals(calls)
    # These passes use the network itself, not a folded copy.
    inference = BatchedInference(model, use_folded_copy=False)
    size = inference.batch_size(gradient=signals.needs_graph, image=model.tensor(opened[0]))
    for start in range(0, len(opened), size):
        batch = opened[start : start + size]
        image, logits, recording = model.forward(
            torch.cat([model.tensor(photo) for photo in batch]), **signals.run_kwargs
        )
        specs = [
            TargetSpec.resolve(model, logits[i : i + 1], *pair, required=_need_target(calls))
            for i, pair in enumerate(selectors[start : start + size])
        ]
        scores = [spec.make_score(calls[0].score_kind) for spec in specs]
        geometry = model.preprocessing.geometry(batch[0])  # replaced by each photo's own
        run = Run(image, logits, recording.activations, recording.attention, geometry, batch[0], (), recording)
        for evidence, spec in zip(gather_batch_evidence(model, run, batch, scores, signals), specs, strict=True):
            yield _make_attributions(ExplanationInputs(evidence, _drop_class_specific(calls, spec), spec))


def _make_attributions(inputs: ExplanationInputs) -> list[Attribution]:
    """Explain by each call: return its attribution, with those at its other layers where they are requested."""
    evidence, requests = inputs.evidence, [call.for_target(inputs.spec) for call in inputs.calls]
    by_layer = [request.list_other_layers(evidence) for request in requests]
    partials: dict[tuple, PartialHeat] = {}
    with use_own_types(evidence):
        for request in chain(requests, *by_layer):
            if request.map_key not in partials:  # the same map at a layer by default and by its name is computed once
                *_, partials[request.map_key] = compute_steps(evidence, request)
    heats = dict(zip(partials, move_to_cpu([partial.heat for partial in partials.values()]), strict=True))

    def make(request: Request) -> Attribution:
        """Return the attribution of one request, from its heat map on the CPU."""
        return _make_attribution(evidence, request, heats[request.map_key], partials[request.map_key].notes)

    return [
        replace(make(request), by_layer={str(other.call.values["layer"]): make(other) for other in others})
        for request, others in zip(requests, by_layer, strict=True)
    ]


def _make_steps(evidence: Evidence, request: Request) -> Generator[ExplanationStep, None, None]:
    """Yield the steps of `explain_stream`, one after each batch of passes."""
    partials = compute_steps(evidence, request)
    while True:
        with use_own_types(evidence):  # not across a `yield`, where the caller's code runs
            partial = next(partials, None)
        if partial is None:
            return
        (heat,) = move_to_cpu([partial.heat])
        yield ExplanationStep(_make_attribution(evidence, request, heat, partial.notes), partial.done, partial.total)


def use_own_types(evidence: Evidence) -> contextlib.AbstractContextManager[object]:
    """Compute maps in the network's own types inside the block, also where the caller autocasts."""
    return torch.autocast(evidence.run.image.device.type, enabled=False)


def compute_steps(evidence: Evidence, request: Request) -> Iterator[PartialHeat]:
    """Yield the heat map that explains a request; of a method of many passes, one after each batch of them."""
    method, values = request.call.method, request.call.values
    if method.compute_steps is not None:
        yield from method.compute_steps(evidence, **values)
    else:
        assert method.compute is not None
        yield PartialHeat(method.compute(evidence, **values), 1, 1)


def move_to_cpu(heats: Sequence[Tensor]) -> list[Tensor]:
    """Return the explanations' heat maps in single precision on the CPU; from a GPU in one copy, as each one waits."""
    detached = [heat.detach().float() for heat in heats]
    if all(heat.is_cpu for heat in detached):
        return detached
    parts = torch.cat([heat.flatten() for heat in detached]).cpu().split([heat.numel() for heat in detached])
    return [part.view(heat.shape).clone() for part, heat in zip(parts, detached, strict=True)]  # each owns its memory


def _make_attribution(evidence: Evidence, request: Request, heat: Tensor, notes: tuple[str, ...]) -> Attribution:
    """Return the attribution that explains a request, from its heat map."""
    method, model, run = request.call.method, evidence.model, evidence.run
    target, against = request.target.target, request.target.against
    return Attribution(
        heat=heat,
        target=None if target is None else target.record,
        against=None if against is None else against.record,
        label="" if target is None else target.label,
        method=method.name,
        parameters=dict(request.call.values),
        signed=request.is_signed,
        geometry=run.geometry,
        photo=run.photo,
        model=model.name,
        probability=None if target is None else target.find_probability(evidence.probabilities),
        score=None if target is None else evidence.explained_score,
        notes=(*run.notes, *_collect_notes(heat, evidence, request), *notes),
        patch_values=method.patch_values,
        against_label="" if against is None else against.label,
        class_specific=method.class_specific,
    )


def _collect_notes(heat: Tensor, evidence: Evidence, request: Request) -> Iterator[Note]:
    """Yield the notes of an explanation: what is wrong with its heat map on the CPU, or worth knowing about it."""
    method, target = request.call.method, request.target.target
    lowest, highest = (value.item() for value in heat.aminmax()) if heat.numel() else (0.0, 0.0)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        yield make_note("map.not-finite")
    elif lowest == highest == 0:
        layer = _find_layer_without_gradient(evidence, request)
        label = "the target" if target is None else target.label
        yield make_note("map.no-gradient", layer=layer) if layer else make_note("map.empty", label=label)
    for layer in request.call.layers:
        share = evidence.model.layer_share(layer)
        if share is not None and share < COMPLETE_SHARE:
            yield make_note("map.partial-layer", layer=layer, share=format_percent(share))
    yield from request.target.list_notes(
        evidence, method.name, request.call.score_kind, class_specific=method.class_specific
    )
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
