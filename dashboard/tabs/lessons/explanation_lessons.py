"""How far a picture is a reason: logits and the softmax, gradients, attention, and what no map can tell."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from PIL import Image

import vizlib
from dashboard.tabs.lessons.base import Asked, Lesson, alike, attributed, correlation, heat, number, still
from dashboard.tabs.lessons.layer_lessons import residual, transformer
from vizlib import Attribution
from vizlib.analysis.adversarial import bypass_resizing, pgd
from vizlib.attribution.methods.gradient import reduce_channels
from vizlib.attribution.request import RUNNER_UP
from vizlib.core.text import format_percent, shorten_label
from vizlib.metrics.faithfulness import deletion
from vizlib.render.color_scale import compute_limits

SURE = 0.999  # a probability at which hardly any gradient is left
FIFTH = 5  # one in so many pixels is taken away
OF_CLASS = ("grad-cam", "attention-relevance", "saliency")  # the first that fits a model answers for a class
LEVELS = 2  # of 255 that a pixel may be changed by


def logits(asked: Asked) -> Lesson:
    """Why pictures explain the logit: what the softmax leaves of the gradient as the model grows sure."""
    best = asked.study.predict(asked.photo, asked.name)[0]
    logit = asked.explained("saliency", best.index).heat.numpy()
    chance = asked.explained("saliency", best.index, score="probability").heat.numpy()
    sure = stretched(asked, best.index)
    limits = compute_limits(logit, signed=False)
    facts = {
        "label": shorten_label(best.label),
        "p": f"{best.probability:.3f}",
        "factor": number(best.probability * (1 - best.probability)),
        "logit": number(float(logit.max())),
        "chance": number(float(chance.max())),
        "sure": number(float(sure.max())),
        "left": format_percent(float(chance.max() / (logit.max() or 1))),
        "sure_left": format_percent(float(sure.max() / (logit.max() or 1))),
    }
    return Lesson(
        [
            heat(logit, "logits.logit", facts, bare=True, limits=limits),
            heat(chance, "logits.chance", facts, bare=True, limits=limits),
            heat(sure, "logits.sure", facts, bare=True, limits=limits),
        ],
        ["logits.what", "logits.here", "logits.so"],
        facts,
        "why",
        "saliency",
        columns=3,
    )


def stretched(asked: Asked, best: int, sure: float = SURE) -> np.ndarray:
    """The gradient's size at each pixel if all logits were stretched until the answer is `sure`, by that stretch.

    Divided by the stretch, as a stretched logit has a gradient larger by just that.
    """
    run = asked.model.run(asked.photo, rules=False)
    values = run.logits[0].detach().double()
    low, high = 1e-3, 1e6
    for _ in range(60):  # halving on a logarithmic scale
        middle = math.sqrt(low * high)
        low, high = (low, middle) if (middle * values).softmax(-1)[best] > sure else (middle, high)
    (gradient,) = run.gradients(lambda logits: (high * logits).softmax(-1)[:, best], of=[run.image])
    return reduce_channels(gradient.float().cpu() / high, "max").numpy()


def gradients(asked: Asked) -> Lesson:
    """Gradients and guided backpropagation for two classes, and how alike they are."""
    model, (_, _, target, against) = asked.model, asked.selection
    other = asked.study.resolve_against(asked.photo, asked.name, target, RUNNER_UP if against is None else against)
    other = target if other is None else other  # of a model that knows one class
    names = [shorten_label(model.labels[one]) for one in (target, other)]
    cam = of_class(asked)
    facts = {"a": names[0], "b": names[1], "method": cam}
    guided = "guided-backprop" in vizlib.list_methods(model)
    methods = {"saliency": "saliency", **({"guided": "guided-backprop"} if guided else {}), "cam": cam}
    maps = {kind: [asked.explained(method, one) for one in (target, other)] for kind, method in methods.items()}
    facts |= {kind: _alike(*pair) for kind, pair in maps.items()}
    pictures = [
        attributed(pair[i], f"gradients.{kind}", {"label": name, "method": cam}, bare=kind != "cam")
        for i, name in enumerate(names)
        for kind, pair in maps.items()
    ]
    return Lesson(
        pictures,
        ["gradients.what", *(["gradients.guide", "gradients.here"] if guided else ["gradients.smooth"])],
        facts,
        "why",
        "guided-backprop" if guided else "saliency",
        other="" if guided else residual(asked),
        columns=len(maps),
    )


def attention(asked: Asked) -> Lesson:
    """Where a model looks or responds beside what counts for the class, and what happens when either is taken away."""
    tokens = asked.relevance
    relevant = asked.explained("attention-relevance" if tokens else of_class(asked))
    attended = asked.explained("raw-attention") if tokens else energy(asked, relevant)
    before = {one.index: one for one in asked.study.predict(asked.photo, asked.name, 10**6)}[relevant.target]
    left = [without_warmest(asked, one) for one in (attended, relevant)]
    kind = "attention" if tokens else "energy"
    better = "neither" if abs(left[0] - left[1]) < 0.02 else "relevance" if left[1] < left[0] else "attention"
    facts = {
        "label": shorten_label(relevant.label),
        "method": relevant.method,
        "layer": asked.model.cam_layer or "",
        "alike": _alike(attended, relevant),
        "before": format_percent(before.probability),
        "attended": format_percent(left[0]),
        "relevant": format_percent(left[1]),
    }
    return Lesson(
        [
            attributed(attended, f"{kind}.attended", facts),
            attributed(relevant, f"{kind}.relevant", facts),
        ],
        [f"{kind}.what", f"{kind}.here", f"attention.{better}"],
        facts,
        "why",
        relevant.method,
        other="" if tokens else transformer(asked),
    )


def energy(asked: Asked, like: Attribution) -> Attribution:
    """How strongly the layer of class activation maps responds in each place, whatever the class."""
    layer = asked.model.cam_layer or asked.depths()[-1]
    maps = asked.study.get_activations(asked.photo, asked.name, layer)[0]
    return replace(like, heat=maps.square().mean(0).sqrt(), method="activation", signed=False, patches=False)


def without_warmest(asked: Asked, why: Attribution) -> float:
    """The probability of the class once the warmest fifth of what the model saw is grey."""
    return deletion(asked.model, why, steps=FIFTH).probability[1].item()


def limits(asked: Asked) -> Lesson:
    """What no map can tell: the same photo to any eye, with another answer and another map as fine as the first."""
    first, second = asked.study.predict(asked.photo, asked.name)[:2]
    plain = bypass_resizing(asked.model)
    before = asked.study.render_model_input(asked.photo, asked.name)
    after = pgd(asked.model, asked.photo, second.index, first.index, levels=LEVELS)
    answers = [plain.predict(one, top=len(plain.labels)) for one in (before, after)]
    method = of_class(asked)
    maps = [
        vizlib.explain(plain, photo, method=method, target=answer[0].index)
        for photo, answer in zip((before, after), answers, strict=True)
    ]
    change = np.asarray(after).astype(int) - np.asarray(before)
    most = int(np.abs(change).max())
    times = 120 // max(most, 1)
    facts = {
        "levels": str(most),
        "times": str(times),
        "a": shorten_label(answers[0][0].label),
        "b": shorten_label(answers[1][0].label),
        "method": method,
        "before": format_percent(answers[0][0].probability),
        "after": format_percent(answers[1][0].probability),
        "kept": format_percent(next(one.probability for one in answers[1] if one.index == answers[0][0].index)),
    }
    pictures = [
        attributed(why, f"limits.{name}", facts, photo=photo)
        for why, photo, name in zip(maps, (before, after), ("before", "after"), strict=True)
    ]
    pictures.insert(1, still(_coloured(128 + times * change), "limits.change", facts))
    turned = "limits.turned" if facts["a"] != facts["b"] else "limits.held"
    return Lesson(pictures, [turned, "limits.map", "limits.so"], facts, "why", method, columns=3)


def of_class(asked: Asked) -> str:
    """A method whose map depends on the class."""
    fitting = vizlib.list_methods(asked.model)
    return next(name for name in (*OF_CLASS, *fitting) if name in fitting)


def _alike(a: Attribution, b: Attribution) -> str:
    return correlation(alike(a.heat.numpy(), b.heat.numpy()))


def _coloured(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))
