"""Steps about the limits of explanations: softmax, gradients, attention, and adversarial changes of the photo."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

import vizlib
from dashboard.components.captions import format_correlation
from dashboard.components.thumbnails import downsample_map
from dashboard.tabs.lessons.layer_lessons import format_number
from dashboard.tabs.lessons.lesson_context import LessonContext, find_resnet, find_transformer
from dashboard.tabs.lessons.pictures import (
    Lesson,
    build_attribution_picture,
    build_frames_picture,
    build_image_picture,
    build_map_picture,
    build_weighted_picture,
)
from vizlib import Attribution, ModelError, Prediction
from vizlib.analysis.adversarial import bypass_resizing, pgd
from vizlib.attribution.methods.gradient import reduce_channels
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.target import RUNNER_UP
from vizlib.core.text import format_percent, shorten_label
from vizlib.metrics import deletion
from vizlib.metrics.method_checks import compare_maps, iterate_randomised_maps
from vizlib.metrics.scored_photo import ScoredPhoto
from vizlib.render.color_scale import compute_limits

CONFIDENT_PROBABILITY = 0.999  # the softmax leaves hardly any gradient here
DELETION_STEPS = 5  # the first step deletes a fifth of the pixels
CLASS_METHODS = ("grad-cam", "attention-relevance", "saliency")  # class-specific, preferred first
RANDOMISED_METHODS = {  # by whether the model has attention: maps that keep or lose their order with random parameters
    True: ("raw-attention", "attention-rollout", "saliency", "input-x-gradient", "grad-cam", "attention-relevance"),
    False: ("guided-backprop", "guided-grad-cam", "saliency", "input-x-gradient", "grad-cam", "layer-cam"),
}
PRODUCT_CELLS = 112  # positions along a side of the map
PRODUCT_CODE = """\
a = torch.tensor([2.0, 3.0], requires_grad=True)
b = torch.tensor([6.0, 4.0], requires_grad=True)
Q = 3 * a**3 - b**2
Q.backward(gradient=torch.tensor([1.0, 1.0]))
"""
MAX_PIXEL_LEVELS = 2  # greatest change of a pixel, of 255 levels


def build_logit_lesson(context: LessonContext) -> Lesson:
    """Return the lesson about logits: an explanation of the logit beside one of the softmax probability."""
    best = context.service.predict(context.photo, context.model_name)[0]
    logit_map = context.explain("saliency", best.index).heat.numpy()
    probability_map = context.explain("saliency", best.index, score="probability").heat.numpy()
    confident_map = compute_confident_gradient(context, best.index)
    limits = compute_limits(logit_map, signed=False)
    probability = get_probability(best)
    facts = {
        "label": shorten_label(best.label),
        "p": f"{probability:.3f}",
        "factor": format_number(probability * (1 - probability)),
        "logit": format_number(float(logit_map.max())),
        "probability": format_number(float(probability_map.max())),
        "confident": format_number(float(confident_map.max())),
        "remaining": format_percent(float(probability_map.max() / (logit_map.max() or 1))),
        "confident_remaining": format_percent(float(confident_map.max() / (logit_map.max() or 1))),
    }
    return Lesson(
        [
            build_map_picture(logit_map, "logits.logit", facts, bare=True, limits=limits),
            build_map_picture(probability_map, "logits.chance", facts, bare=True, limits=limits),
            build_map_picture(confident_map, "logits.sure", facts, bare=True, limits=limits),
        ],
        ["logits.what", "logits.here", "logits.so"],
        facts,
        "why",
        "saliency",
        columns=3,
    )


def compute_confident_gradient(
    context: LessonContext, class_index: int, probability: float = CONFIDENT_PROBABILITY
) -> np.ndarray:
    """Return the size of the probability's gradient, for a lesson, at a confidence of `probability`.

    All logits are multiplied by the factor at which the class has that probability. The gradient is divided by the
    same factor, so that it can be compared with that of the unscaled logit.

    Args:
        context: Model and photo.
        class_index: The most probable class.
        probability: Probability to reach.

    Returns:
        Gradient size "h w": the maximum of the absolute value over the colour channels.
    """
    run = context.model.run(context.photo, rules=False)
    values = run.logits[0].detach().double()
    low, high = 1e-3, 1e6
    for _ in range(60):  # bisection on a logarithmic scale
        middle = math.sqrt(low * high)
        low, high = (low, middle) if (middle * values).softmax(-1)[class_index] > probability else (middle, high)
    (gradient,) = run.gradients(lambda logits: (high * logits).softmax(-1)[:, class_index], of=[run.image])
    return reduce_channels(gradient.float().cpu() / high, "max").numpy()


def build_gradient_lesson(context: LessonContext) -> Lesson:
    """Return the lesson about explanations by gradients: maps of two classes, and their correlations."""
    model, target, against = context.model, context.selection.target, context.selection.against
    other = context.service.resolve_against(
        context.photo, context.model_name, target, RUNNER_UP if against is None else against
    )
    other = target if other is None else other  # a model with a single class
    names = [shorten_label(model.labels[index]) for index in (target, other)]
    cam = find_class_method(context)
    facts = {"a": names[0], "b": names[1], "method": cam}
    guided = "guided-backprop" in vizlib.list_methods(model)
    methods = {"saliency": "saliency", **({"guided": "guided-backprop"} if guided else {}), "cam": cam}
    maps = {kind: [context.explain(method, index) for index in (target, other)] for kind, method in methods.items()}
    facts |= {kind: _format_map_correlation(*pair) for kind, pair in maps.items()}
    pictures = [
        build_attribution_picture(pair[i], f"gradients.{kind}", {"label": name, "method": cam}, bare=kind != "cam")
        for i, name in enumerate(names)
        for kind, pair in maps.items()
    ]
    return Lesson(
        pictures,
        ["gradients.what", *(["gradients.guide", "gradients.here"] if guided else ["gradients.smooth"])],
        facts,
        "why",
        "guided-backprop" if guided else "saliency",
        other_model="" if guided else find_resnet(context),
        columns=len(maps),
    )


def build_attention_lesson(context: LessonContext) -> Lesson:
    """Return the lesson that compares attention or activation with an explanation of a class, by deleting the top."""
    has_attention = context.has_attention_relevance
    relevant = context.explain("attention-relevance" if has_attention else find_class_method(context))
    attended = context.explain("raw-attention") if has_attention else compute_activation_map(context, relevant)
    predictions = context.service.predict(context.photo, context.model_name, 10**6)
    before = next(prediction for prediction in predictions if prediction.index == relevant.target)
    after = [compute_probability_without_top(context, attribution) for attribution in (attended, relevant)]
    kind = "attention" if has_attention else "energy"
    better = "neither" if abs(after[0] - after[1]) < 0.02 else "relevance" if after[1] < after[0] else "attention"
    facts = {
        "label": shorten_label(relevant.label),
        "method": relevant.method,
        "layer": context.model.cam_layer or "",
        "alike": _format_map_correlation(attended, relevant),
        "before": before.text,
        "attended": format_percent(after[0]),
        "relevant": format_percent(after[1]),
    }
    return Lesson(
        [
            build_attribution_picture(attended, f"{kind}.attended", facts),
            build_attribution_picture(relevant, f"{kind}.relevant", facts),
        ],
        [f"{kind}.what", f"{kind}.here", f"attention.{better}"],
        facts,
        "why",
        relevant.method,
        other_model="" if has_attention else find_transformer(context),
    )


def compute_activation_map(context: LessonContext, template: Attribution) -> Attribution:
    """Return activation as an explanation: its root mean square over the channels of Grad-CAM's layer."""
    layer = context.model.cam_layer or context.sample_stages()[-1]
    maps = context.service.get_activations(context.photo, context.model_name, layer).maps
    return replace(template, heat=maps.square().mean(0).sqrt(), method="activation", signed=False, patch_values=False)


def compute_probability_without_top(context: LessonContext, attribution: Attribution) -> float:
    """Return the probability of the class without an explanation's top fifth, which gets the mean colour."""
    return deletion(context.model, attribution, steps=DELETION_STEPS).score[1].item()


def build_limits_lesson(context: LessonContext) -> Lesson:
    """Return the lesson about adversarial changes: invisible changes of a photo, predictions and explanations."""
    first, second = context.service.predict(context.photo, context.model_name)[:2]
    model = bypass_resizing(context.model)
    before = context.service.render_model_input(context.photo, context.model_name)
    after = pgd(context.model, context.photo, second.index, first.index, levels=MAX_PIXEL_LEVELS)
    predictions = [model.predict(image, top=len(model.labels)) for image in (before, after)]
    method = find_class_method(context)
    maps = [
        vizlib.explain(model, image, method=method, target=rows[0].index)
        for image, rows in zip((before, after), predictions, strict=True)
    ]
    change = np.asarray(after).astype(int) - np.asarray(before)
    largest = int(np.abs(change).max())
    times = 120 // max(largest, 1)
    facts = {
        "levels": str(largest),
        "times": str(times),
        "a": shorten_label(predictions[0][0].label),
        "b": shorten_label(predictions[1][0].label),
        "method": method,
        "before": predictions[0][0].text,
        "after": predictions[1][0].text,
        "same_class": next(row.text for row in predictions[1] if row.index == predictions[0][0].index),
    }
    pictures = [
        build_attribution_picture(attribution, f"limits.{name}", facts, photo=image)
        for attribution, image, name in zip(maps, (before, after), ("before", "after"), strict=True)
    ]
    pictures.insert(1, build_image_picture(_to_image(128 + times * change), "limits.change", facts))
    text_key = "limits.turned" if facts["a"] != facts["b"] else "limits.held"
    return Lesson(pictures, [text_key, "limits.map", "limits.so"], facts, "why", method, columns=3)


def build_randomisation_lesson(context: LessonContext) -> Lesson:
    """Return the lesson about maps that do not depend on the network: a slider replaces its parameters, level by level.

    References:
        Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim: Sanity checks for saliency maps, NeurIPS 2018,
        arXiv:1810.03292.
    """
    model = context.model
    fitting = vizlib.list_methods(model)
    names = [name for name in RANDOMISED_METHODS[context.has_attention_relevance] if name in fitting]
    names = names or [find_class_method(context)]
    attributions = [context.explain(name) for name in names]
    calls = [METHODS.resolve_method(model, name, {}) for name in names]
    photo = ScoredPhoto.make(model, attributions[0], needs_score=False)
    frames, maps, values = [""], [[one.heat for one in attributions]], [[1.0] * len(names)]
    for level, heats in iterate_randomised_maps(photo, calls, cascading=True, seed=0):
        frames.append(level)
        maps.append([heat.nan_to_num(0, 0, 0) for heat in heats])
        values.append([compare_maps(one.heat, heat, "absolute") for one, heat in zip(attributions, heats, strict=True)])
    pictures = []
    for number, (name, attribution) in enumerate(zip(names, attributions, strict=True)):
        small = np.stack([downsample_map(heats[number].numpy()) for heats in maps])
        facts = [{"method": name, "value": format_correlation(row[number])} for row in values]
        signed, smooth = attribution.signed, not attribution.patch_values
        pictures.append(build_frames_picture(small, "randomise.map", facts, signed=signed, smooth=smooth))
    first = values[min(1, len(values) - 1)]
    kept, lost = int(np.nanargmax(first)), int(np.nanargmin(first))
    facts = {
        "levels": str(len(frames) - 1),
        "classifier": frames[min(1, len(frames) - 1)],
        "kept": names[kept],
        "lost": names[lost],
        "kept_first": format_correlation(first[kept]),
        "lost_first": format_correlation(first[lost]),
        "kept_last": format_correlation(values[-1][kept]),
        "lost_last": format_correlation(values[-1][lost]),
    }
    text_keys = ["randomise.what", "randomise.here", "randomise.so"]
    return Lesson(pictures, text_keys, facts, "why", names[kept], columns=3, frames=frames)


def build_product_lesson(context: LessonContext) -> Lesson:
    """Return the lesson about `backward(gradient=v)`: products of v and a Jacobian, of two numbers and on the photo."""
    a, b = (torch.tensor(values, requires_grad=True) for values in ([2.0, 3.0], [6.0, 4.0]))
    output = 3 * a**3 - b**2  # as in the code that is shown
    total = torch.autograd.grad(output, (a, b), grad_outputs=torch.ones(2), retain_graph=True)
    rows = [torch.autograd.grad(output, (a, b), grad_outputs=unit, retain_graph=True) for unit in torch.eye(2)]
    matrices = {f"∂Q/∂{name}": [row[i].tolist() for row in rows] for i, name in enumerate("ab")}
    model, target = context.model, context.selection.target
    against = context.selection.against
    other = context.service.resolve_against(
        context.photo, context.model_name, target, RUNNER_UP if against is None else against
    )
    classes = (target, target if other is None else other)  # a model with a single class
    gradients = [
        context.service.get_gradient(context.photo, context.model_name, None, weights={index: 1.0}, check=False)
        for index in classes
    ]
    maps = np.stack([downsample_map(one.heat(reduction="sum").numpy(), PRODUCT_CELLS) for one in gradients])
    facts = {name: shorten_label(model.labels[index]) for name, index in zip("ab", classes, strict=True)}
    return Lesson(
        [build_weighted_picture(maps, "product.map", facts)],
        ["product.what", "product.here", "product.so"],
        facts,
        "why",
        "saliency",
        code=PRODUCT_CODE + "a.grad, b.grad  # " + ", ".join(str(gradient.tolist()) for gradient in total),
        columns=1,
        weight_keys=("product.first", "product.second"),
        matrices=matrices,
    )


def find_class_method(context: LessonContext) -> str:
    """Return a method whose explanations depend on the class and that fits the model; else any that fits."""
    fitting = vizlib.list_methods(context.model)
    return next(name for name in (*CLASS_METHODS, *fitting) if name in fitting)


def _format_map_correlation(a: Attribution, b: Attribution) -> str:
    """Return the correlation of two explanations' maps as a lesson shows it."""
    return format_correlation(correlate_maps(a.heat.numpy(), b.heat.numpy()))


def _to_image(values: np.ndarray) -> Image.Image:
    """Return pixel values, clipped to 0 to 255, as a picture of a lesson about explanations."""
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def correlate_maps(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Pearson correlation of two explanations in a lesson, -1 to 1; 0 where one map is constant."""
    a, b = (np.asarray(values, dtype=float).ravel() for values in (a, b))
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else 0.0


def get_probability(prediction: Prediction) -> float:
    """Return the probability of a prediction, for a lesson about explanations.

    Raises:
        ModelError: If the model predicts values instead of classes; the lessons about classes are not shown for it.
    """
    if prediction.probability is None:
        raise ModelError(f"this step needs the probability of a class, and {prediction.label} is a value")
    return prediction.probability
