"""The lessons: each step agrees with the library or with plain PyTorch on a real photo."""

from __future__ import annotations

import base64
import io
import math
import re
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bundled_models import load_bundled, resnet_by_default
from PIL import Image
from scipy.stats import spearmanr

import vizlib
from dashboard.components.captions import format_correlation
from dashboard.components.thumbnails import downsample_map
from dashboard.i18n.language import LANGUAGES
from dashboard.i18n.translate import get_page_texts
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.photo_key import compute_photo_key
from dashboard.state.selection import Selection
from dashboard.tabs import learn
from dashboard.tabs.lessons import explanation_lessons, layer_lessons
from dashboard.tabs.lessons.explanation_lessons import correlate_maps
from dashboard.tabs.lessons.layer_lessons import format_number
from vizlib.core.text import format_percent
from vizlib.models.randomised_copy import iterate_randomised_copies
from vizlib.render.color_scale import compute_limits
from vizlib.render.image_grid import GRID_GAP_PIXELS, draw_kernel_grid

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
compute_spearman: Any = spearmanr


def decode_map(picture) -> np.ndarray:
    packed = picture.value["map"]
    return np.frombuffer(base64.b64decode(packed["floats"]), "<f4").reshape(packed["shape"])


def decode_image(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


@pytest.fixture
def selection(service, cheetah, name) -> Selection:
    """The second most probable class of the cheetah photo."""
    return Selection(compute_photo_key(cheetah), name, service.predict(cheetah, name)[1].index)


@pytest.fixture
def compute_step(service, cheetah, selection):
    """Function that computes a step, given by its key, for the selected class."""
    return lambda step: learn.compute_lesson(service, cheetah, selection, list(learn.STEPS).index(step))


@pytest.fixture
def model(name):
    """The model, loaded independently of the page."""
    return load_bundled(name)


def test_hook_code_runs_and_records_the_displayed_output(compute_step, model, cheetah):
    lesson = compute_step("hook")
    network, photo = model.module, model.tensor(cheetah)
    assert len(lesson.code.splitlines()) == 5
    scope = {"network": network, "photo": photo}
    with torch.no_grad():
        exec(lesson.code, scope)
    assert not any(part._forward_hooks for part in network.modules())
    (output,) = scope["outputs"]
    assert lesson.facts["shape"] == " × ".join(map(str, output.shape))
    assert lesson.facts["count"] == f"{output.numel():,}"
    assert lesson.code.endswith(lesson.facts["shape"])
    maps = output[0] if output.ndim == 4 else output[0, 1:].T.reshape(192, 14, 14)  # without the class token
    spread = maps.flatten(1).std(1, correction=0)
    for picture, channel in zip(lesson.pictures, spread.argsort(descending=True)[:6].tolist(), strict=True):
        assert picture.facts == {"channel": str(channel)}
        assert np.allclose(decode_map(picture), maps[channel], atol=1e-4)
    assert len({tuple(picture.value["limits"]) for picture in lesson.pictures}) == 1


@resnet_by_default
def test_logit_step_shows_the_softmax_gradient_of_the_formula(compute_step, model, cheetah):
    lesson = compute_step("logits")
    image = model.tensor(cheetah).requires_grad_()
    logits = model.module(image)[0]
    of_each = [torch.autograd.grad(one, image, retain_graph=True)[0][0] for one in logits]
    values, best = logits.detach().double(), int(logits.argmax())

    def left(stretch: float) -> tuple[float, np.ndarray]:  # p_c * sum of p_j (dz_c - dz_j)
        chances = (values * stretch).softmax(0)
        mixed = sum(chance * (of_each[best] - other) for chance, other in zip(chances, of_each, strict=True))
        return chances[best].item(), (chances[best] * mixed).abs().amax(0).float().numpy()

    stretches = np.geomspace(0.1, 1000, 200_001)
    others = values - values[best]
    chances = 1 / np.exp(np.outer(stretches, others.numpy())).sum(1)
    sure = left(float(stretches[np.abs(chances - 0.999).argmin()]))
    assert sure[0] == pytest.approx(0.999, abs=1e-5)
    p, real = left(1.0)
    logit = of_each[best].abs().amax(0).numpy()
    for picture, expected in zip(lesson.pictures, (logit, real, sure[1]), strict=True):
        assert np.allclose(decode_map(picture), expected, rtol=0.02, atol=2e-3 * expected.max())
        assert picture.value["limits"] == list(compute_limits(decode_map(lesson.pictures[0]), signed=False))
    facts = lesson.facts
    assert (facts["p"], facts["factor"]) == (f"{p:.3f}", format_number(p * (1 - p)))
    assert facts["remaining"] == format_percent(float(real.max() / logit.max()))
    assert facts["confident_remaining"] == format_percent(float(sure[1].max() / logit.max()))
    assert sure[1].max() < 0.01 * logit.max() < real.max()


def test_kernel_step_shows_the_convolution_of_the_photo(compute_step, model, cheetah):
    lesson = compute_step("kernels")
    found = vizlib.kernels(model)
    layer = model.module.get_submodule(found.layer)
    responses = F.conv2d(model.tensor(cheetah), found.weights, layer.bias, layer.stride, layer.padding)[0].detach()
    selection = int(responses.flatten(1).std(1).argmax())
    grid, one, response = lesson.pictures
    assert np.allclose(decode_map(response), responses[selection], atol=1e-3)
    facts = lesson.facts
    assert (facts["kernel"], facts["kernels"]) == (str(selection), str(len(found.weights)))
    assert (facts["low"], facts["high"]) == (
        format_number(responses[selection].min().item()),
        format_number(responses[selection].max().item()),
    )
    assert facts["size"] == "{} × {}".format(*found.weights.shape[2:])
    side = found.weights.shape[-1]
    enlarged = decode_image(one.value["picture"])[..., :3]
    factor = len(enlarged) // side
    top = found.weights[selection].abs().max()
    expected = ((found.weights[selection] / top + 1) / 2 * 255).round().permute(1, 2, 0)
    assert np.array_equal(enlarged[factor // 2 :: factor, factor // 2 :: factor], expected)
    framed = decode_image(grid.value["picture"])[..., :3]
    across = math.isqrt(len(found.weights) - 1) + 1
    plain = np.asarray(draw_kernel_grid(found.weights.numpy(), cell=24, columns=across))
    rows, columns = np.nonzero((framed != plain[..., :3]).any(-1))
    inside = max(1, round(24 / side)) * side + GRID_GAP_PIXELS
    place = divmod(selection, across)
    assert rows.min() == pytest.approx(place[0] * inside, abs=2)
    assert columns.max() == pytest.approx((place[1] + 1) * inside, abs=4)


def test_activation_step_shows_stage_outputs_from_first_to_last(compute_step, model, cheetah):
    lesson = compute_step("activations")
    layers = [picture.facts["layer"] for picture in lesson.pictures]
    assert len(layers) == 4
    assert (layers[0], layers[-1]) == (model.stages[0], model.stages[-1])
    assert layers == sorted(layers, key=model.stages.index)
    run = model.run(cheetah, layers=layers)
    for picture, layer in zip(lesson.pictures, layers, strict=True):
        maps = model.spatial_map(run.activations[layer].detach())
        channel = int(picture.facts["channel"])
        assert maps.flatten(1).std(1)[channel] == pytest.approx(maps.flatten(1).std(1).max().item())
        assert np.allclose(decode_map(picture), maps[channel], atol=1e-3)
        assert picture.facts["grid"] == "{} × {}".format(*maps.shape[1:])
    shrinks = maps.shape[1:] != model.spatial_map(run.activations[layers[0]]).shape[1:]
    assert lesson.text_keys[1] == ("activations.smaller" if shrinks else "activations.same")
    assert lesson.facts["last_count"] == f"{len(maps):,}"


def test_gradient_step_shows_the_library_gradients_and_correlations(compute_step, model, cheetah, selection):
    lesson = compute_step("gradients")
    best = model.predict(cheetah, top=1)[0].index  # the most probable class besides the selected one
    methods = {"saliency": "saliency", "guided": "guided-backprop", "cam": "grad-cam"}
    if model.name == VIT:
        del methods["guided"]
        assert lesson.other_model == RESNET
    pictures = iter(lesson.pictures)
    maps_by_kind = {}
    for target in (selection.target, best):
        for kind, method in methods.items():
            maps_by_kind[kind, target] = vizlib.explain(model, cheetah, method=method, target=target).heat.numpy()
            picture = next(pictures)
            assert np.allclose(
                decode_map(picture), maps_by_kind[kind, target], rtol=1e-2, atol=1e-3 * maps_by_kind[kind, target].max()
            )
            assert picture.facts["label"] == model.labels[target]
    for kind in methods:
        pair = [maps_by_kind[kind, target].ravel() for target in (selection.target, best)]
        assert float(lesson.facts[kind].replace("−", "-")) == pytest.approx(np.corrcoef(*pair)[0, 1], abs=0.0051)


def test_gradient_step_uses_the_selected_contrast_class(service, cheetah, selection):
    other = next(
        i for i in range(10) if i not in (selection.target, service.predict(cheetah, selection.model)[0].index)
    )
    lesson = learn.compute_lesson(
        service, cheetah, selection._replace(against=other), list(learn.STEPS).index("gradients")
    )
    assert lesson.facts["b"] == service.catalog.get(selection.model).labels[other]


@pytest.mark.parametrize("name", [RESNET])
def test_receptive_field_step_measures_the_theoretical_sizes(compute_step):
    lesson = compute_step("patches")
    sizes = [43, 99, 192, 192]  # 7/2, pool 3/2, four 3/1; then 3/2 and three 3/1 a stage: 211 and 435 leave the input
    assert [picture.facts["width"] for picture in lesson.pictures] == [str(size) for size in sizes]
    assert (lesson.facts["first_width"], lesson.facts["last_width"], lesson.facts["whole"]) == ("43", "192", "192")
    assert lesson.other_model == VIT
    rows, columns = np.nonzero(decode_map(lesson.pictures[0]))
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (43, 43)
    middle = 24 * 4  # the 24th of 48 positions, 4 pixels apart
    assert rows.min() < middle < rows.max()


@pytest.mark.parametrize("name", [VIT])
def test_patch_step_shows_patches_and_position_similarities(compute_step, model, cheetah):
    lesson = compute_step("patches")
    cut, places = lesson.pictures
    tiles = decode_image(cut.value["picture"])[..., :3]
    denormalised = np.asarray(model.preprocessing.denormalise(model.tensor(cheetah)))
    for row, column in ((0, 0), (5, 9), (13, 13)):
        tile = tiles[row * 34 : row * 34 + 32 : 2, column * 34 : column * 34 + 32 : 2]
        assert np.array_equal(tile, denormalised[16 * row : 16 * row + 16, 16 * column : 16 * column + 16])
    embedding = model.module.pos_embed[0, 1:].detach().reshape(14, 14, -1)
    expected = F.cosine_similarity(embedding, embedding[4, 4], dim=-1)
    assert np.allclose(decode_map(places), expected, atol=1e-5)
    assert np.allclose(places.value["frame"], [4 / 14, 4 / 14, 5 / 14, 5 / 14])
    near = torch.stack([expected[3, 4], expected[5, 4], expected[4, 3], expected[4, 5]]).mean()
    assert lesson.facts["near"] == f"{near:.2f}"
    assert lesson.facts["far"] == f"{expected[13, 13]:.2f}".replace("-", "−")
    assert (lesson.facts["grid"], lesson.facts["size"]) == ("14 × 14", "16 × 16")


def test_attention_step_deletes_the_top_fifth_of_each_map(compute_step, model, cheetah, selection):
    lesson = compute_step("attention")
    methods = ("grad-cam",) if model.name == RESNET else ("raw-attention", "attention-relevance")
    maps = [vizlib.explain(model, cheetah, method=one, target=selection.target).heat for one in methods]
    if model.name == RESNET:
        output = model.run(cheetah, layers=["layer4"]).activations["layer4"][0].detach()
        maps.insert(0, (output**2).mean(0) ** 0.5)
    image = model.tensor(cheetah)
    with torch.no_grad():
        before = model.module(image).softmax(-1)[0, selection.target].item()
    after = []
    for map_, picture in zip(maps, lesson.pictures, strict=True):
        assert np.allclose(decode_map(picture), map_, rtol=1e-2, atol=1e-3 * map_.max().item())
        spread = F.interpolate(map_[None, None], image.shape[-2:], mode="bilinear")[0, 0]
        flat = spread.flatten().tolist()
        order = sorted(range(len(flat)), key=flat.__getitem__, reverse=True)
        mask = torch.ones(spread.numel())
        mask[order[: round(0.2 * len(order))]] = 0
        with torch.no_grad():
            after.append(model.module(image * mask.view(spread.shape)).softmax(-1)[0, selection.target].item())
    facts = lesson.facts
    assert facts["before"] == format_percent(before)
    shares = [float(facts[key].strip("< %")) for key in ("attended", "relevant")]
    assert shares == pytest.approx([100 * one for one in after], abs=0.51)
    assert float(facts["alike"].replace("−", "-")) == pytest.approx(
        np.corrcoef(maps[0].flatten(), maps[1].flatten())[0, 1], abs=0.0051
    )
    better = "relevance" if after[1] < after[0] - 0.02 else "attention" if after[0] < after[1] - 0.02 else "neither"
    assert lesson.text_keys[-1] == f"attention.{better}"


@resnet_by_default
def test_limits_step_shows_the_adversarial_photo_and_its_prediction(compute_step, model, cheetah):
    lesson = compute_step("limits")
    before, change, after = lesson.pictures
    photos = [decode_image(one.value["photo"]).astype(int) for one in (before, after)]
    differs = photos[1] - photos[0]
    assert str(np.abs(differs).max()) == lesson.facts["levels"] == "2"
    assert np.array_equal(decode_image(change.value["picture"]), 128 + int(lesson.facts["times"]) * differs)
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (model.preprocessing.mean, model.preprocessing.std))
    for photo, share, label in zip(photos, ("before", "after"), ("a", "b"), strict=True):
        image = (torch.tensor(photo).permute(2, 0, 1) / 255 - mean) / std
        with torch.no_grad():
            chances = model.module(image[None].float()).softmax(-1)[0]
        assert model.labels[int(chances.argmax())] == lesson.facts[label]
        assert format_percent(chances.max().item()) == lesson.facts[share]
    assert lesson.text_keys[0] == "limits.turned"
    assert lesson.facts["a"] != lesson.facts["b"]


def test_randomisation_step_shows_the_maps_of_randomised_networks(compute_step, model, cheetah, selection):
    lesson = compute_step("randomise")
    copies = list(iterate_randomised_copies(model, cascading=True, seed=0))
    assert list(lesson.frames[1:]) == [level.name for level, _ in copies]
    shown = {picture.facts["method"]: picture for picture in lesson.pictures}
    assert {"saliency", "grad-cam"} < shown.keys()
    for method in ("saliency", "grad-cam"):
        trained = vizlib.explain(model, cheetah, method, selection.target).heat
        packed = shown[method].value["map"]
        maps = np.frombuffer(base64.b64decode(packed["bytes"]), np.uint8).reshape(packed["shape"])
        for frame in (1, len(copies)):
            heat = vizlib.explain(copies[frame - 1][1], cheetah, method, selection.target).heat
            small = downsample_map(heat.numpy())
            expected = (small - small.min()) / ((small.max() - small.min()) / 255 or 1)  # Grad-CAM may be 0 everywhere
            assert np.abs(maps[frame] - expected).max() < 3  # of 255
            is_constant = small.max() == small.min()
            correlation = 0 if is_constant else compute_spearman(trained.abs().flatten(), heat.abs().flatten())[0]
            assert shown[method].frame_facts[frame]["value"] == format_correlation(correlation)
    first = {name: float(one.frame_facts[1]["value"].replace("−", "-")) for name, one in shown.items()}
    kept = "guided-backprop" if model.name == RESNET else "raw-attention"
    assert first[kept] == max(first.values()) > 0.8
    assert lesson.facts["kept_first"] == format_correlation(max(first.values()))
    assert lesson.facts["lost"] == min(first, key=first.__getitem__)
    assert min(first.values()) < 0.5


def test_product_step_shows_jacobians_and_the_gradients_of_two_classes(
    service, cheetah, compute_step, model, selection
):
    lesson = compute_step("product")
    a, b = np.array([2.0, 3.0]), np.array([6.0, 4.0])
    assert np.allclose(lesson.matrices["∂Q/∂a"], np.diag(9 * a**2))
    assert np.allclose(lesson.matrices["∂Q/∂b"], np.diag(-2 * b))
    assert lesson.code.endswith("# [36.0, 81.0], [-12.0, -8.0]")
    scope: dict[str, Any] = {"torch": torch}
    exec(lesson.code, scope)
    assert [scope[name].grad.tolist() for name in "ab"] == [[36.0, 81.0], [-12.0, -8.0]]
    best = model.predict(cheetah, top=1)[0].index
    image = model.tensor(cheetah).requires_grad_()
    logits = model.module(image)[0]
    shown = decode_map(lesson.pictures[0])
    for row, index in zip(shown, (selection.target, best), strict=True):
        (gradient,) = torch.autograd.grad(logits[index], image, retain_graph=True)
        expected = F.adaptive_avg_pool2d(gradient.sum(1), shown.shape[1:])[0]
        assert np.allclose(row, expected, atol=1e-3 * expected.abs().max().item())
    value = learn.compute_content(service, cheetah, selection, list(learn.STEPS).index("product"))
    assert value["product"]["weights"] == [f"v₁, of {lesson.facts['a']}", f"v₂, of {lesson.facts['b']}"]


def test_backward_step_shows_what_each_hook_is_handed(compute_step, service, cheetah, model, selection):
    lesson = compute_step("backward")
    before = lesson.facts["layer"]
    assert before == {RESNET: "layer4.1.bn1", VIT: "blocks.11.mlp.fc1"}[model.name]
    after = {RESNET: "layer4.1.act1", VIT: "blocks.11.mlp.act"}[model.name]
    run = model.run(cheetah, [before, after])
    (gradient,) = run.gradients(selection.target, of=[run.activations[after]])
    values = run.activations[before].detach()
    handed = []
    scope: dict[str, Any] = {"torch": torch, "values": values.requires_grad_(), "v": gradient}
    code = re.sub(r"lambda (.*?): None", r"lambda \1: handed.append((\1,))", lesson.code)
    exec(code, {**scope, "handed": handed})
    module, function, tensor = sorted(handed, key=lambda arguments: (-len(arguments), arguments is None))
    expected = {"tensor": tensor[0], "input": function[0][0], "output": function[1][0]}
    assert torch.equal(expected["input"], torch.where(values > 0, gradient, torch.zeros(())))
    assert torch.equal(module[1][0], function[0][0])
    assert torch.equal(module[2][0], function[1][0])
    assert torch.equal(tensor[0], gradient + expected["input"])
    for picture, name in zip(lesson.pictures, expected, strict=True):
        maps = model.spatial_map(expected[name])
        assert maps is not None
        assert np.allclose(decode_map(picture), maps.sum(0).detach().numpy(), atol=1e-4 * gradient.abs().max().item())
    assert "takes 1 positional argument but 2 were given" in lesson.facts["mistake"]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("step", learn.STEPS)
def test_step_texts_are_complete_in_their_language(service, cheetah, selection, step, language):
    index = list(learn.STEPS).index(step)
    value = learn.compute_content(service, cheetah, selection, index, language)
    texts = [
        *value["titles"],
        *value["paragraphs"],
        *value["labels"].values(),
        *[one["caption"] for one in value["pictures"]],
    ]
    assert not [text for text in texts if not text or re.search(r"[{}]|\b(None|nan|inf)\b", text)]
    assert 2 <= len(value["paragraphs"]) <= 4
    assert len(value["titles"]) == 11 == len(set(value["titles"]))
    assert value["step"] == index
    assert all(re.search("[가-힣]", text) for text in [*value["titles"], *value["paragraphs"]]) == (language == "ko")
    assert value["labels"]["see"].count(get_page_texts(language)[f"page.tab.{value['tab']}"]) == 1


@pytest.mark.slow
def test_every_lesson_text_is_used_by_some_step(service, cheetah, tower):
    used = {"title", "step", "steps", "previous", "next", "open-tab", "other", "code", "busy", "softmax-only"}
    used |= {"frame", "trained", "own", "product.first", "product.second", "product.label"}
    for photo, name in ((cheetah, RESNET), (cheetah, VIT), (tower, VIT)):
        selection = Selection(compute_photo_key(photo), name, service.predict(photo, name)[0].index)
        for step in range(len(learn.STEPS)):
            lesson = learn.compute_lesson(service, photo, selection, step)
            used |= {*lesson.text_keys, *(picture.caption_key for picture in lesson.pictures)}
    titles = {f"{topic}.title" for topic in (*learn.STEPS, *learn.TOPICS_WITHOUT_ATTENTION.values())}
    rare = {"attention.neither", "attention.attention", "limits.held"}  # on other photos
    known = {key.partition(".")[2] for key in get_page_texts("en") if key.startswith("learn.")}
    assert known == (used - {"title"}) | titles | rare


@pytest.mark.parametrize(
    ("left", "better"), [((0.2, 0.7), "attention"), ((0.7, 0.2), "relevance"), ((0.50, 0.51), "neither")]
)
def test_attention_step_names_the_map_whose_deletion_lowers_the_probability_more(
    service, cheetah, selection, monkeypatch, left, better
):
    responses = iter(left)
    monkeypatch.setattr(
        explanation_lessons, "compute_probability_without_top", lambda context, attribution: next(responses)
    )
    assert (
        explanation_lessons.build_attention_lesson(
            explanation_lessons.LessonContext(service, cheetah, selection)
        ).text_keys[-1]
        == f"attention.{better}"
    )


def test_limits_step_states_an_unchanged_prediction(service, cheetah, name, monkeypatch):
    monkeypatch.setattr(
        explanation_lessons, "pgd", lambda model, photo, *_, **__: service.render_model_input(photo, model.name)
    )
    context = explanation_lessons.LessonContext(service, cheetah, Selection("cheetah", name, 0))
    lesson = explanation_lessons.build_limits_lesson(context)
    assert lesson.text_keys[0] == "limits.held"
    assert lesson.facts["same_class"] == lesson.facts["before"] == lesson.facts["after"]
    assert lesson.facts["levels"] == "0"


def test_a_step_is_computed_once_for_each_class(service, cheetah, selection, monkeypatch):
    counted = []

    def step(context):
        counted.append(context.selection)
        return layer_lessons.build_hook_lesson(context)

    monkeypatch.setattr(learn, "STEPS", {"hook": step})
    service, selection = AnalysisService(service.catalog), selection._replace(target=9, against=7)
    other_target, no_contrast = selection._replace(target=8), selection._replace(against=None)
    for requested in (selection, selection, other_target, no_contrast, selection):
        learn.compute_lesson(service, cheetah, requested, 0)
    assert counted == [selection, other_target, no_contrast]


def test_learn_tab_without_photo_or_selection(service, cheetah):
    assert learn.compute_content(service, None, None, 3, "ko") == {"empty": get_page_texts("ko")["common.no-photo"]}
    assert learn.compute_content(service, None, Selection("gone", RESNET, 0)) == {
        "empty": get_page_texts("en")["common.no-photo"]
    }
    assert learn.compute_content(service, cheetah, None) == gr.skip()


@pytest.mark.parametrize("step", [-1, 11, 10**9])
def test_a_step_that_does_not_exist_gives_the_first(service, cheetah, selection, step):
    assert learn.compute_content(service, cheetah, selection, step)["step"] == 0


def test_correlate_maps_is_the_pearson_correlation_and_zero_for_a_constant_map():
    random = np.random.default_rng(0)
    a = random.normal(size=(7, 5))
    b = a + random.normal(size=(7, 5))
    assert correlate_maps(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert (correlate_maps(a, a), correlate_maps(a, -a)) == (pytest.approx(1), pytest.approx(-1))
    assert correlate_maps(a, np.ones((7, 5))) == 0


def test_format_number_and_format_correlation():
    assert [format_number(one) for one in (0.00858, -16.3, 10.25, 1234.0, 1.57e-5, 0.0, 2e-9, -3e5)] == [
        *("0.00858", "−16.3", "10.2", "1.23e+03", "0.0000157", "0", "2.0e−09", "−3.0e+05")
    ]
    assert [format_correlation(one) for one in (0.634, -0.674, 1.0, -0.001, 0.0)] == [
        "0.63",
        "−0.67",
        "1.00",
        "0.00",
        "0.00",
    ]
