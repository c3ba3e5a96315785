"""How far to trust an attribution: is it faithful, does it depend on the model, is it stable?"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from vizlib.attribution.measurement import TRUST_PARTS, Measurement, Trust, TrustPart, compute_share_beaten
from vizlib.attribution.methods.registry import METHODS as ATTRIBUTION_METHODS
from vizlib.attribution.request import MANY_PASSES
from vizlib.attribution.result import Attribution
from vizlib.core.errors import VizlibError, suggest_names
from vizlib.core.text import Note, format_number, format_percent, make_note, shorten_label
from vizlib.metrics.measuring import RANDOM_MAPS, is_constant, make_measurement
from vizlib.metrics.method_groups import group_by_score_kind, iterate_methods_together
from vizlib.metrics.metric import MetricValues
from vizlib.metrics.perturbation_curves import CurveProgress, Perturbation, compute_areas, iterate_curves
from vizlib.metrics.reference_maps import make_random_maps, make_reference_maps
from vizlib.metrics.registry import get_metric
from vizlib.metrics.scored_photo import ScoredPhoto, check_model
from vizlib.models.inference.batched_inference import DEFAULT_BUDGET_MB
from vizlib.models.model import Model

CURVE_STEPS = 10  # of the deletion and insertion curves
DELETION, INSERTION = Perturbation(False, "mean"), Perturbation(True, "blur")
HALF = 0.5  # from this share on a sentence states the good case


class TrustStep(NamedTuple):
    """The result of `trust_stream` after some of its passes; that of the last step is `trust`'s.

    Attributes:
        trust: What is measured so far.
        fraction: How much of the work is done, 0 to 1.
    """

    trust: Trust
    fraction: float


class TrustAllStep(NamedTuple):
    """The result of `trust_all_stream` after some of its passes; that of the last step is `trust_all`'s.

    Attributes:
        trusts: What is measured so far, by the names of the attributions.
        fraction: How much of the work is done, 0 to 1.
    """

    trusts: Mapping[str, Trust]
    fraction: float


def trust(
    model: Model,
    attribution: Attribution,
    *,
    parts: Sequence[str] | None = None,
    random_maps: int = RANDOM_MAPS,
    seed: int = 0,
    precision: str = "auto",
    budget_mb: int = DEFAULT_BUDGET_MB,
) -> Trust:
    """Return three measurements of how far an attribution can be trusted, each beside what knows nothing of the model.

    - faithfulness: do the places that the map marks change the score more than places that random maps mark? Its share
      is the fraction of random maps whose insertion area minus deletion area is lower.
    - dependence: does the map change when the network's parameters are randomised, level by level from the output? Its
      share is 1 minus the mean absolute rank correlation with the map of the trained network.
    - stability: does the map stay the same under noise that one hardly sees? Its share is 1 minus the largest relative
      change, as a fraction of the change when the values of the map are shuffled.

    Three high shares do not prove a map right; one low share shows that it must not be read as an explanation.

    Args:
        model: The model that the attribution explains.
        attribution: The attribution, whose photo is used.
        parts: Which of `"faithfulness"`, `"dependence"` and `"stability"` to measure; by default all, and of a method
            that makes many passes the first alone, as the others would run it many times.
        random_maps: How many random maps the attribution is compared with.
        seed: Seed of all random numbers.
        precision: `"auto"` for bfloat16 where the processor supports it and a check passes, or `"float32"`.
        budget_mb: Memory for one batch, in megabytes.

    Returns:
        The measurements; `attribution.with_trust(...)` adds them to the attribution, so that files and reports state
        them.

    Raises:
        VizlibError: For an unknown part, no random maps, or a map of another model.
        ModelError: If the network cannot be run or copied.

    References:
        Petsiuk, Das, Saenko: RISE: randomized input sampling for explanation of black-box models, BMVC 2018,
        arXiv:1806.07421 (deletion and insertion).
        Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim: Sanity checks for saliency maps, NeurIPS 2018,
        arXiv:1810.03292 (randomised parameters).
        Yeh, Hsieh, Suggala, Inouye, Ravikumar: On the (in)fidelity and sensitivity of explanations, NeurIPS 2019,
        arXiv:1901.09392 (max-sensitivity).

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> attribution = vizlib.explain(model, get_image("tower.jpg"), "grad-cam")
        >>> result = vizlib.trust(model, attribution, random_maps=4)
        >>> list(result.parts)
        ['faithfulness', 'dependence', 'stability']
    """
    steps = trust_stream(
        model, attribution, parts=parts, random_maps=random_maps, seed=seed, precision=precision, budget_mb=budget_mb
    )
    *_, last = steps
    return last.trust


def trust_stream(
    model: Model,
    attribution: Attribution,
    *,
    parts: Sequence[str] | None = None,
    random_maps: int = RANDOM_MAPS,
    seed: int = 0,
    precision: str = "auto",
    budget_mb: int = DEFAULT_BUDGET_MB,
) -> Generator[TrustStep, None, None]:
    """Yield what `trust` measures after each batch of passes: stability first, then dependence, then faithfulness.

    Nothing is computed between two steps, so iteration can stop at any of them. The arguments are those of `trust`.

    Args:
        model: As in `trust`, like all further arguments.
        attribution: The attribution.
        parts: What to measure.
        random_maps: How many random maps the attribution is compared with.
        seed: Seed of all random numbers.
        precision: Precision of the passes.
        budget_mb: Memory for one batch.

    Yields:
        Steps with what is measured so far, and how much of the work is done.

    Raises:
        VizlibError: As `trust`, before the first pass.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> attribution = vizlib.explain(model, get_image("tower.jpg"), "grad-cam")
        >>> steps = list(vizlib.metrics.trust_stream(model, attribution, parts=["stability"]))
        >>> steps[-1].fraction
        1.0
    """
    name = attribution.method
    steps = trust_all_stream(
        model,
        {name: attribution},
        parts=parts,
        random_maps=random_maps,
        seed=seed,
        precision=precision,
        budget_mb=budget_mb,
    )
    return (TrustStep(step.trusts[name], step.fraction) for step in steps)


def trust_all(
    model: Model,
    attributions: Mapping[str, Attribution],
    *,
    parts: Sequence[str] | None = None,
    random_maps: int = RANDOM_MAPS,
    seed: int = 0,
    precision: str = "auto",
    budget_mb: int = DEFAULT_BUDGET_MB,
) -> dict[str, Trust]:
    """Return how far each of several attributions of one photo and class can be trusted, from passes that they share.

    Args:
        model: The model that the attributions explain.
        attributions: The attributions, such as the result of `explain_all`.
        parts: As in `trust`, like all further arguments.
        random_maps: How many random maps each attribution is compared with.
        seed: Seed of all random numbers.
        precision: Precision of the passes.
        budget_mb: Memory for one batch.

    Returns:
        What `trust` returns, by the names of the attributions.

    Raises:
        VizlibError: As `trust`, or for attributions of different photos or classes.
        ModelError: If the network cannot be run or copied.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> maps = vizlib.explain_all(model, get_image("tower.jpg"))
        >>> chosen = {name: maps[name] for name in ("saliency", "grad-cam")}
        >>> found = vizlib.metrics.trust_all(model, chosen, parts=["stability"])
        >>> found["grad-cam"].stability.share > found["saliency"].stability.share
        True
    """
    steps = trust_all_stream(
        model, attributions, parts=parts, random_maps=random_maps, seed=seed, precision=precision, budget_mb=budget_mb
    )
    *_, last = (TrustAllStep({}, 1.0), *steps)
    return dict(last.trusts)


def trust_all_stream(
    model: Model,
    attributions: Mapping[str, Attribution],
    *,
    parts: Sequence[str] | None = None,
    random_maps: int = RANDOM_MAPS,
    seed: int = 0,
    precision: str = "auto",
    budget_mb: int = DEFAULT_BUDGET_MB,
) -> Generator[TrustAllStep, None, None]:
    """Yield what `trust_all` measures after each batch of passes; nothing is computed between two steps.

    Args:
        model: As in `trust_all`, like all further arguments.
        attributions: The attributions.
        parts: What to measure.
        random_maps: How many random maps each attribution is compared with.
        seed: Seed of all random numbers.
        precision: Precision of the passes.
        budget_mb: Memory for one batch.

    Yields:
        Steps with what is measured so far, and how much of the work is done; none without attributions.

    Raises:
        VizlibError: As `trust_all`, before the first pass.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> maps = {"grad-cam": vizlib.explain(model, get_image("tower.jpg"), "grad-cam")}
        >>> [step.fraction for step in vizlib.metrics.trust_all_stream(model, maps, parts=["stability"])]
        [0.5, 1.0]
    """
    if parts is not None and not parts:
        raise VizlibError(f"parts= names nothing to measure; give some of {', '.join(TRUST_PARTS)}")
    for part in parts or ():
        if part not in TRUST_PARTS:
            raise VizlibError(f"there is no part {part!r} of trust; {suggest_names(str(part), TRUST_PARTS)}")
    if not (isinstance(random_maps, int) and random_maps >= 1):
        raise VizlibError(f"an attribution is compared with at least 1 random map, not {random_maps!r}")
    chosen = {name: _choose_parts(attribution, parts) for name, attribution in attributions.items()}
    photo = None
    for name, attribution in attributions.items():
        if photo is None:
            photo = ScoredPhoto.make(model, attribution, precision=precision, budget_mb=budget_mb)
            continue
        first = photo.attribution
        check_model(model, attribution)
        same_classes = (attribution.target, attribution.against) == (first.target, first.against)
        if not same_classes or not _show_same_photo(attribution, first):
            raise VizlibError(f"{name} explains another photo or class than {first.method}; measure them one by one")
    if photo is None:
        return _end_at_once()
    return _trust_steps(photo, dict(attributions), chosen, random_maps, seed)


def _end_at_once() -> Generator[TrustAllStep, None, None]:
    """Yield no step of trust."""
    yield from ()


def _show_same_photo(one: Attribution, other: Attribution) -> bool:
    """Return whether two attributions hold one photo."""
    a, b = one.photo, other.photo
    return a is b or (a.size == b.size and a.mode == b.mode and a.tobytes() == b.tobytes())


def _choose_parts(attribution: Attribution, parts: Sequence[str] | None) -> tuple[list[str], tuple[str, ...]]:
    """Return which parts are measured, and a note on those that are not."""
    if is_constant(attribution.heat):
        return [], (make_note("trust.constant-map"),)
    method = ATTRIBUTION_METHODS.get(attribution.method)
    if parts is not None:
        return [part for part in TRUST_PARTS if part in parts], ()
    if method is not None and method.cost != MANY_PASSES:
        return list(TRUST_PARTS), ()
    return ["faithfulness"], (make_note("trust.many-passes", method=attribution.method),)


class _Stage(NamedTuple):
    """A part of trust of some attributions, which share passes.

    Attributes:
        part: Name of the part.
        work: Its rough share of the time.
        steps: The part of each attribution after each batch of passes, and how much of the stage is done.
    """

    part: str
    work: float
    steps: Iterator[tuple[dict[str, TrustPart], float]]


def _trust_steps(
    photo: ScoredPhoto,
    attributions: dict[str, Attribution],
    chosen: dict[str, tuple[list[str], tuple[str, ...]]],
    random_maps: int,
    seed: int,
) -> Generator[TrustAllStep, None, None]:
    """Yield what is measured after each batch of passes."""
    measured: dict[str, dict[str, TrustPart]] = {name: {} for name in attributions}

    def make_step(fraction: float) -> TrustAllStep:
        trusts = {name: Trust(**found, notes=chosen[name][1]) for name, found in measured.items()}
        return TrustAllStep(trusts, fraction)

    def select(part: str) -> dict[str, Attribution]:
        return {name: one for name, one in attributions.items() if part in chosen[name][0]}

    stages = [
        *_list_method_stages(photo, "stability", "max-sensitivity", select("stability"), seed),
        *_list_method_stages(photo, "dependence", "parameter-randomisation", select("dependence"), seed),
        *_list_curve_stages(photo, select("faithfulness"), random_maps, seed),
    ]
    total, before = sum(stage.work for stage in stages), 0.0
    if not stages:
        yield make_step(1.0)
    for stage in stages:
        for results, fraction in stage.steps:
            for name, result in results.items():
                measured[name][stage.part] = result
            yield make_step((before + fraction * stage.work) / total)
        before += stage.work


def _list_method_stages(
    photo: ScoredPhoto, part: str, metric: str, attributions: dict[str, Attribution], seed: int
) -> Iterator[_Stage]:
    """Yield the stages of a metric that runs the methods again: one for each kind of score that they explain."""
    row, describe = get_metric(metric), _describe_stability if part == "stability" else _describe_dependence
    values = row.resolve_parameters(photo.model, {"seed": seed})

    def measure_group(group: Mapping[str, Any]) -> Iterator[tuple[dict[str, TrustPart], float]]:
        for results, fraction in iterate_methods_together(photo, group, row, values):
            yield {name: describe(measurement) for name, measurement in results.items()}, fraction

    for group in group_by_score_kind(photo.model, attributions):
        yield _Stage(part, 1.0 if part == "stability" else 2.0, measure_group(group))


def _describe_dependence(measurement: Measurement) -> TrustPart:
    """Return the part of trust that says whether a map depends on what the network has learned."""
    similarities = [value for _, value in measurement.curve]
    share = _clip(1 - measurement.value)
    code = "trust.depends" if share >= HALF else "trust.hardly-depends"
    sentence = _make_sentence(
        code,
        share,
        levels=len(similarities),
        first=_format_two_decimals(similarities[0]),
        mean=_format_two_decimals(measurement.value),
        shuffled=_format_two_decimals(measurement.references["shuffled"]),
    )
    return TrustPart(share, sentence, (measurement,))


def _describe_stability(measurement: Measurement) -> TrustPart:
    """Return the part of trust that says whether a map stays the same under noise."""
    shuffled = float(np.mean(measurement.random_values))
    share = _clip(1 - measurement.value / shuffled) if shuffled > 0 else math.nan
    code = "trust.stable" if share >= HALF else "trust.unstable"
    sentence = _make_sentence(code, share, change=format_percent(measurement.value), shuffled=format_percent(shuffled))
    return TrustPart(share, sentence, (measurement,))


def _list_curve_stages(
    photo: ScoredPhoto, attributions: dict[str, Attribution], random_maps: int, seed: int
) -> Iterator[_Stage]:
    """Yield the stages of deletion and insertion: one for each resolution, as reference maps have that of the map."""
    groups: dict[tuple[int, int], dict[str, Attribution]] = {}
    for name, one in attributions.items():
        groups.setdefault((one.heat.shape[0], one.heat.shape[1]), {})[name] = one
    for size, group in groups.items():
        work = 4.0 * (len(group) + random_maps) / (1 + random_maps)
        yield _Stage("faithfulness", work, _measure_faithfulness(photo, group, size, random_maps, seed))


def _measure_faithfulness(
    photo: ScoredPhoto, group: dict[str, Attribution], size: tuple[int, int], random_maps: int, seed: int
) -> Iterator[tuple[dict[str, TrustPart], float]]:
    """Yield the part of trust that says whether the score depends on what maps mark, and how much is done."""
    references = make_reference_maps(photo.image, size)
    others = [*references.values(), *make_random_maps(random_maps, size, seed)]
    heats = torch.stack([*(one.heat for one in group.values()), *others])
    for progress in iterate_curves(photo, heats, (DELETION, INSERTION), CURVE_STEPS):
        parts = {
            name: _describe_faithfulness(one, progress, number, len(group), list(references))
            for number, (name, one) in enumerate(group.items())
        }
        yield {name: part for name, part in parts.items() if part is not None}, progress.done / progress.total


def _describe_faithfulness(
    attribution: Attribution, progress: CurveProgress, number: int, count: int, references: list[str]
) -> TrustPart | None:
    """Return the part of trust of the curves so far; `None` before there is a random map to compare with.

    Args:
        attribution: The attribution.
        progress: The curves of all attributions, then of the reference maps, then of the random maps.
        number: Which of the attributions it is, from 0.
        count: How many attributions there are.
        references: Names of the reference maps.
    """
    scores = torch.cat([progress.scores[:, number : number + 1], progress.scores[:, count:]], 1)
    areas = compute_areas(scores)  # (deletion, insertion) × maps
    first_random = 1 + len(references)
    if not areas[:, : first_random + 1].isfinite().all():
        return None
    fractions = [step / CURVE_STEPS for step in range(CURVE_STEPS + 1)]
    measurements = tuple(
        make_measurement(
            get_metric(name),
            MetricValues(values, curve=list(zip(fractions, own[0].tolist(), strict=True)), notes=progress.notes),
            references,
            {"steps": CURVE_STEPS, "baseline": perturbation.baseline, "sign": "signed"},
        )
        for name, perturbation, own, values in zip(
            ("deletion", "insertion"), (DELETION, INSERTION), scores, areas, strict=True
        )
    )
    lead = areas[1] - areas[0]
    others = lead[first_random:]
    others = others[others.isfinite()]
    beaten = compute_share_beaten(lead[0].item(), others.tolist(), higher_is_better=True)
    deletion, insertion = measurements
    sentence = make_note(
        "trust.faithful" if beaten > HALF else "trust.unfaithful",
        label=_name_explained(attribution),
        beaten=f"{beaten * len(others):g}",
        count=len(others),
        deletion=_format_two_decimals(deletion.value),
        random_deletion=_format_two_decimals(float(np.mean(deletion.random_values))),
        insertion=_format_two_decimals(insertion.value),
        random_insertion=_format_two_decimals(float(np.mean(insertion.random_values))),
    )
    return TrustPart(beaten, sentence, measurements)


def _make_sentence(code: str, share: float, **facts: object) -> Note:
    """Return the sentence of a part of trust, or that it has no value."""
    if not math.isfinite(share):
        return make_note("trust.not-defined")
    return make_note(code, **facts)


def _name_explained(attribution: Attribution) -> str:
    """Return the label of what an attribution explains; of a contrast both."""
    against = f" − {shorten_label(attribution.against_label)}" if attribution.against_label else ""
    return shorten_label(attribution.label) + against


def _format_two_decimals(value: float) -> str:
    """Return a number of a sentence with two decimals and a real minus sign, or 3 digits where it is large."""
    return format_number(value) if abs(value) >= 10 else f"{value + 0.0:.2f}".replace("-", "−")


def _clip(value: float) -> float:
    """Return a share within 0 and 1; NaN stays."""
    return value if math.isnan(value) else min(max(value, 0.0), 1.0)
