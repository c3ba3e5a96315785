"""How far to trust an attribution: is it faithful, does it depend on the model, is it stable?"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vizlib.attribution.measurement import TRUST_PARTS, Measurement, Trust, TrustPart, compute_share_beaten
from vizlib.attribution.methods.registry import METHODS as ATTRIBUTION_METHODS
from vizlib.attribution.request import MANY_PASSES
from vizlib.attribution.result import Attribution
from vizlib.core.errors import VizlibError, suggest_names
from vizlib.core.text import Note, format_number, format_percent, make_note, shorten_label
from vizlib.metrics.measuring import RANDOM_MAPS, MeasurementStep, is_constant, measure_stream
from vizlib.metrics.perturbation_curves import CurveProgress, Perturbation, compute_areas, iterate_curves
from vizlib.metrics.reference_maps import make_random_maps, make_reference_maps
from vizlib.metrics.scored_photo import ScoredPhoto
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
    if parts is not None and not parts:
        raise VizlibError(f"parts= names nothing to measure; give some of {', '.join(TRUST_PARTS)}")
    for part in parts or ():
        if part not in TRUST_PARTS:
            raise VizlibError(f"there is no part {part!r} of trust; {suggest_names(str(part), TRUST_PARTS)}")
    if not (isinstance(random_maps, int) and random_maps >= 1):
        raise VizlibError(f"an attribution is compared with at least 1 random map, not {random_maps!r}")
    chosen, notes = _choose_parts(attribution, parts)
    photo = ScoredPhoto.make(model, attribution, precision=precision, budget_mb=budget_mb)
    return _trust_steps(photo, chosen, notes, random_maps, seed)


def _choose_parts(attribution: Attribution, parts: Sequence[str] | None) -> tuple[list[str], tuple[str, ...]]:
    """Return which parts are measured, and a note on those that are not."""
    method = ATTRIBUTION_METHODS.get(attribution.method)
    if parts is not None:
        return [part for part in TRUST_PARTS if part in parts], ()
    if method is not None and method.cost != MANY_PASSES:
        return list(TRUST_PARTS), ()
    return ["faithfulness"], (make_note("trust.many-passes", method=attribution.method),)


def _trust_steps(
    photo: ScoredPhoto, parts: list[str], notes: tuple[str, ...], random_maps: int, seed: int
) -> Generator[TrustStep, None, None]:
    """Yield what is measured after each batch of passes."""
    model, attribution = photo.model, photo.attribution
    if is_constant(attribution.heat):
        yield TrustStep(Trust(notes=(make_note("trust.constant-map"),)), 1.0)
        return
    options = {"precision": photo.precision, "budget_mb": photo.budget_mb}
    measured: dict[str, TrustPart] = {}
    work = {"stability": 1.0, "dependence": 2.0, "faithfulness": 4.0}  # rough shares of the time
    total, before = sum(work[part] for part in parts), 0.0
    for part in (name for name in work if name in parts):
        if part == "faithfulness":
            steps: Iterator[tuple[TrustPart | None, float]] = _measure_faithfulness(photo, random_maps, seed)
        elif part == "dependence":
            stream = measure_stream(model, attribution, "parameter-randomisation", seed=seed, **options)
            steps = _summarise_steps(stream, _describe_dependence)
        else:
            stream = measure_stream(model, attribution, "max-sensitivity", seed=seed, **options)
            steps = _summarise_steps(stream, _describe_stability)
        for result, fraction in steps:
            if result is not None:
                measured[part] = result
            done = (before + fraction * work[part]) / total
            yield TrustStep(Trust(**measured, notes=notes), done)
        before += work[part]


def _summarise_steps(
    stream: Iterator[MeasurementStep], describe: Callable[[Measurement], TrustPart]
) -> Iterator[tuple[TrustPart | None, float]]:
    """Yield a part of trust for each step of a measurement, and how much of its work is done."""
    for step in stream:
        yield describe(step.measurement), step.done / step.total


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


def _measure_faithfulness(photo: ScoredPhoto, random_maps: int, seed: int) -> Iterator[tuple[TrustPart | None, float]]:
    """Yield the part of trust that says whether the score depends on what a map marks, and how much is done."""
    heat = photo.attribution.heat
    size = heat.shape[0], heat.shape[1]
    references = make_reference_maps(photo.image, size)
    heats = torch.stack([heat, *references.values(), *make_random_maps(random_maps, size, seed)])
    for progress in iterate_curves(photo, heats, (DELETION, INSERTION), CURVE_STEPS):
        part = _describe_faithfulness(photo, progress, list(references))
        yield part, progress.done / progress.total


def _describe_faithfulness(photo: ScoredPhoto, progress: CurveProgress, references: list[str]) -> TrustPart | None:
    """Return the part of trust of the curves so far; `None` before there is a random map to compare with."""
    areas = compute_areas(progress.scores)  # (deletion, insertion) × maps
    first_random = 1 + len(references)
    if not areas[:, : first_random + 1].isfinite().all():
        return None
    measurements = tuple(
        _make_curve_measurement(name, perturbation, scores, values, references, progress.notes)
        for name, perturbation, scores, values in zip(
            ("deletion", "insertion"), (DELETION, INSERTION), progress.scores[:, 0], areas, strict=True
        )
    )
    lead = areas[1] - areas[0]
    others = lead[first_random:]
    others = others[others.isfinite()]
    beaten = compute_share_beaten(lead[0].item(), others.tolist(), higher_is_better=True)
    deletion, insertion = measurements
    sentence = make_note(
        "trust.faithful" if beaten > HALF else "trust.unfaithful",
        label=_name_explained(photo.attribution),
        beaten=f"{beaten * len(others):g}",
        count=len(others),
        deletion=_format_two_decimals(deletion.value),
        random_deletion=_format_two_decimals(float(np.mean(deletion.random_values))),
        insertion=_format_two_decimals(insertion.value),
        random_insertion=_format_two_decimals(float(np.mean(insertion.random_values))),
    )
    return TrustPart(beaten, sentence, measurements)


def _make_curve_measurement(
    name: str,
    perturbation: Perturbation,
    scores: Tensor,
    areas: Tensor,
    references: list[str],
    notes: tuple[str, ...],
) -> Measurement:
    """Return the measurement of one kind of curve."""
    value, *others = areas.tolist()
    fractions = [step / CURVE_STEPS for step in range(CURVE_STEPS + 1)]
    return Measurement(
        metric=name,
        value=value,
        higher_is_better=perturbation.inserts,
        random_values=tuple(other for other in others[len(references) :] if math.isfinite(other)),
        references=dict(zip(references, others, strict=False)),
        parameters={"steps": CURVE_STEPS, "baseline": perturbation.baseline, "sign": "signed"},
        curve=tuple(zip(fractions, scores.tolist(), strict=True)),
        notes=notes,
    )


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
