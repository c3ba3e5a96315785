"""Class activation maps equal the formulas of their papers in explicit loops, and other libraries.

Where another library computes something else, a test states the difference, and that there is no other.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchcam.methods
import torchvision
from peer_maps import assert_same_map, pytorch_grad_cam_map
from pytorch_grad_cam import EigenCAM, EigenGradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from torch import nn

import vizlib
from vizlib.attribution.evidence import LayerEvidence
from vizlib.attribution.methods import cam

ROWS = {method.name: method for method in cam.METHODS}
NAMES = [name for name in ROWS if name != "grad-cam"]
WITH_RELU = [name for name in NAMES if "relu" in ROWS[name].parameters]

# ---------------------------------------------------------------------------------- the papers' formulas in slow loops


def cells(activation):
    channels, rows, columns = activation.shape
    return range(channels), [(i, j) for i in range(rows) for j in range(columns)]


def sum_channels(activation, weight):
    """Return the sum over channels of weight(channel, position) × activation."""
    channels, positions = cells(activation)
    heat = np.zeros(activation.shape[1:])
    for position in positions:
        heat[position] = sum(weight(k, position) * activation[(k, *position)] for k in channels)
    return heat


def slow_plus_plus(activation, gradient):
    """Chattopadhay et al. 2018, equations 5, 10 and 19: alpha = g² / (2 g² + sum(A) g³), w = sum alpha relu(g)."""
    channels, positions = cells(activation)
    weights = []
    for k in channels:
        total = sum(activation[(k, *position)] for position in positions)
        weight = 0.0
        for position in positions:
            g = gradient[(k, *position)]
            alpha = g**2 / (2 * g**2 + total * g**3) if g != 0 else 0.0
            weight += alpha * max(g, 0.0)
        weights.append(weight)
    return sum_channels(activation, lambda k, position: weights[k])


def slow_hires(activation, gradient):
    """Draelos and Carin 2020: the sum over channels of gradient × activation."""
    return sum_channels(activation, lambda k, position: gradient[(k, *position)])


def slow_layer(activation, gradient):
    """Jiang et al. 2021, equations 5 to 7: each activation weighted by its own gradient where that is positive."""
    return sum_channels(activation, lambda k, position: max(gradient[(k, *position)], 0.0))


def slow_xgrad(activation, gradient):
    """Fu et al. 2020, equation 8: w = sum (A / sum A) g."""
    channels, positions = cells(activation)
    weights = []
    for k in channels:
        total = sum(activation[(k, *position)] for position in positions)
        weights.append(sum(activation[(k, *p)] / total * gradient[(k, *p)] for p in positions) if total else 0.0)
    return sum_channels(activation, lambda k, position: weights[k])


def project_slowly(values, reference):
    """Muhammad and Yeasin 2020, equations 5 and 6: positions × channels on the first column of V, by NumPy's SVD."""
    channels, positions = cells(values)
    table = np.array([[values[(k, *position)] for k in channels] for position in positions])
    heat = (table @ np.linalg.svd(table)[2][0]).reshape(values.shape[1:])
    return heat * (1 if (heat * reference).sum() > 0 else -1)


def slow_eigen(activation, gradient):
    return project_slowly(activation, np.ones(activation.shape[1:]))


def slow_eigen_grad(activation, gradient):
    """The same of activation × gradient; the sign is that of HiResCAM, or where it cancels, of a positive sum."""
    contributions = slow_hires(activation, gradient)
    heat = project_slowly(activation * gradient, contributions)
    cancelled = abs((heat * contributions).sum()) < 1e-2 * (heat**2).sum()
    return project_slowly(activation * gradient, np.ones_like(heat)) if cancelled else heat


def slow_normgrad(activation, gradient):
    """Rebuffi et al. 2020, table 1: Frobenius norm of the outer product of activation and gradient at a position."""
    _, positions = cells(activation)
    heat = np.zeros(activation.shape[1:])
    for position in positions:
        a, g = activation[(slice(None), *position)], gradient[(slice(None), *position)]
        heat[position] = np.sqrt(sum((x * y) ** 2 for x in a for y in g))
    return heat


SLOW = {
    "grad-cam++": slow_plus_plus,
    "hires-cam": slow_hires,
    "layer-cam": slow_layer,
    "xgrad-cam": slow_xgrad,
    "eigen-cam": slow_eigen,
    "eigen-grad-cam": slow_eigen_grad,
    "normgrad": slow_normgrad,
}

# ------------------------------------------------------------------------------------------------------ small networks


class Small(nn.Module):
    """The output of `body` is not negative, as that of the stages of a ResNet; that of `conv` has both signs."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 5, stride=3), nn.ReLU())
        self.conv = nn.Conv2d(6, 4, 3)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.conv(self.body(x)).square().mean((2, 3)))


VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 5}
SWIN: dict[str, Any] = {
    "patch_size": 4,
    "embed_dim": 6,
    "depths": (1, 2),
    "num_heads": (1, 2),
    "window_size": 4,
    "num_classes": 5,
}


def torchvision_swin():
    return torchvision.models.SwinTransformer([4, 4], 6, [2, 2], [1, 2], [4, 4], num_classes=5)


def patches_to_map(prefix, output):
    """Return the patch tokens at their rows and columns, without the prefix tokens."""
    return torch.stack([torch.stack([output[0, prefix + 4 * i + j] for j in range(4)]) for i in range(4)])


def channels_first_to_last(output):
    return output[0].permute(1, 2, 0)


def drop_batch(output):
    return output[0]


# name -> build, size of the input, layer, its output -> rows × columns × channels
NETWORKS = {
    "after a ReLU": (Small, (24, 30), "body", channels_first_to_last),
    "before any": (Small, (24, 30), "conv", channels_first_to_last),
    "class token": (lambda: timm.models.VisionTransformer(**VIT), (32, 32), "blocks.0", partial(patches_to_map, 1)),
    "registers": (
        lambda: timm.models.VisionTransformer(**VIT, reg_tokens=3),
        *((32, 32), "blocks.0", partial(patches_to_map, 4)),
    ),
    "distilled": (
        lambda: timm.models.deit.VisionTransformerDistilled(**VIT),
        *((32, 32), "blocks.0", partial(patches_to_map, 2)),
    ),
    "ViT of torchvision": (
        lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 8, 16, num_classes=5),
        *((32, 32), "encoder.layers.encoder_layer_0", partial(patches_to_map, 1)),
    ),
    "Swin": (lambda: timm.models.SwinTransformer(32, **SWIN), (32, 32), "layers.0", drop_batch),
    "Swin's norm": (lambda: timm.models.SwinTransformer((64, 32), **SWIN), (64, 32), "norm", drop_batch),
    "Swin 2": (lambda: timm.models.SwinTransformerV2(32, **SWIN), (32, 32), "layers.0", drop_batch),
    "Swin of torchvision": (torchvision_swin, (40, 32), "features.1", drop_batch),
}


@pytest.fixture(scope="module", params=NETWORKS)
def layer_output(request):
    """A small network, a photo, a layer, and its activation and gradient computed by PyTorch alone."""
    build, size, layer, to_channels_last = NETWORKS[request.param]
    torch.manual_seed(1)
    module = build().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)  # many initial values are 0 or 1, which would hide errors
    model = vizlib.wrap(module, preprocessing={"input_size": (3, *size), "crop_pct": 1.0, "crop_mode": "squash"})
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    outputs = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _part, _inputs, output: outputs.append(output))
    score = module(model.tensor(vizlib.open_image(photo)).requires_grad_())[0, 3]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, outputs)
    pair = (to_channels_last(tensor).detach().permute(2, 0, 1).numpy() for tensor in (outputs[0], gradient))
    return model, photo, layer, *pair


@pytest.mark.parametrize("name", NAMES)
def test_map_equals_the_formula_of_its_paper_in_explicit_loops(name, layer_output):
    model, photo, layer, activation, gradient = layer_output
    assert gradient.any()
    expected = SLOW[name](activation, gradient)
    for relu in (True, False) if name in WITH_RELU else (None,):
        parameters: dict[str, Any] = {} if relu is None else {"relu": relu}
        attribution = vizlib.explain(model, photo, name, 3, layer=layer, **parameters)
        expected_heat = np.maximum(expected, 0) if relu else expected
        assert attribution.heat.shape == expected_heat.shape
        assert np.abs(attribution.heat.numpy() - expected_heat).max() < 1e-6 * np.abs(expected).max()
        assert attribution.signed == (relu is False)


@pytest.mark.parametrize("name", NAMES)
def test_reference_map_of_a_small_network_is_not_constant(name, layer_output):
    *_, activation, gradient = layer_output
    heat = SLOW[name](activation, gradient)
    assert np.ptp(heat) > 1e-3 * np.abs(heat).max() > 0


def test_explain_all_equals_each_method_alone_at_every_stage(layer_output):
    model, photo, *_ = layer_output
    all_attributions = vizlib.explain_all(model, photo, 3)
    for name in NAMES:
        assert set(all_attributions[name].by_layer) == set(model.stages)
        for layer, attribution in all_attributions[name].by_layer.items():
            single = vizlib.explain(model, photo, name, 3, layer=layer)
            largest = max(single.heat.abs().max().item(), 1e-9)  # the last block can have no gradient
            assert (attribution.heat - single.heat).abs().max() < 1e-6 * largest, (name, layer)


def test_methods_without_gradient_do_not_depend_on_the_class_and_all_others_do(layer_output):
    model, photo, layer, *_ = layer_output
    assert not ROWS["eigen-cam"].class_specific
    for name, row in ROWS.items():
        values = {"layer": layer, **({"relu": False} if "relu" in row.parameters else {})}
        heat, other_heat = (vizlib.explain(model, photo, name, target, **values).heat for target in (0, 1))
        assert torch.equal(heat, other_heat) == (not row.class_specific), name
        assert bool(row.signals(model, {"layer": layer}).signals) == row.class_specific, name
    assert vizlib.explain(model, photo, "eigen-cam", layer=layer).heat.sum() > 0


def test_contrast_map_keeps_evidence_for_the_other_class(layer_output):
    model, photo, layer, *_ = layer_output
    for name in ("hires-cam", "xgrad-cam"):  # linear in the gradient
        target, against = (vizlib.explain(model, photo, name, t, layer=layer, relu=False).heat for t in (3, 1))
        contrast = vizlib.explain(model, photo, name, 3, against=1, layer=layer)
        assert contrast.signed
        largest = max(target.abs().max(), against.abs().max())
        assert (contrast.heat - (target - against)).abs().max() < 1e-6 * largest


def vit_with_mean_pooling(**changes):
    return timm.models.VisionTransformer(**VIT, global_pool="avg", **changes)


# default layer of most methods, and of those that multiply activation by gradient
NORMED_LAYERS = {
    "class token": (NETWORKS["class token"][0], "blocks.0", "blocks.1.norm1"),
    "distilled": (NETWORKS["distilled"][0], "blocks.0", "blocks.1.norm1"),
    "mean of patches": (partial(vit_with_mean_pooling, fc_norm=False), "blocks.1", "norm"),
    "mean of patches, then normed": (vit_with_mean_pooling, "blocks.1", "blocks.1"),
    "attention pooling": (
        lambda: timm.models.VisionTransformer(**VIT, global_pool="map", class_token=False),
        *("blocks.1", "norm"),
    ),
    "ViT of torchvision": (
        NETWORKS["ViT of torchvision"][0],
        *("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1.ln_1"),
    ),
    "Swin": (NETWORKS["Swin"][0], "layers.1", "norm"),
    "Swin of torchvision": (torchvision_swin, "features.3", "norm"),
}


@pytest.mark.parametrize("name", NORMED_LAYERS)
def test_methods_that_multiply_by_the_gradient_use_the_layer_after_a_normalisation(name):
    """A normalisation removes the length of each position, so that activation times gradient cancels before it."""
    build, default_layer, normed_layer = NORMED_LAYERS[name]
    torch.manual_seed(0)
    module = build().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    model = vizlib.wrap(module, preprocessing={"input_size": (3, 32, 32), "crop_pct": 1.0})
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert model.cam_layer == default_layer
    for method in ("hires-cam", "xgrad-cam", "eigen-grad-cam"):
        assert ROWS[method].signals(model, {}).layers == (normed_layer,)
    for method in ("grad-cam++", "layer-cam", "eigen-cam", "normgrad"):
        assert ROWS[method].signals(model, {}).layers == (default_layer,)
    for layer in {default_layer, normed_layer}:
        activation, gradient = activation_and_gradient(model, photo, layer, 3)
        gross = (activation * gradient).abs().sum(0).max().item()
        net = vizlib.explain(model, photo, "hires-cam", 3, relu=False, layer=layer).heat.abs().max().item()
        assert (net > 0.03 * gross) == (layer == normed_layer)
        assert net > 0.03 * gross or net < 1e-3 * gross
    default = vizlib.explain(model, photo, "hires-cam", 3, relu=False).heat
    assert torch.equal(default, vizlib.explain(model, photo, "hires-cam", 3, relu=False, layer=normed_layer).heat)


def test_eigen_grad_cam_has_a_positive_sum_where_contributions_cancel():
    activation, gradient = [[1.0, 2.0, 1.0], [1.0, 2.0, 1.0]], [[1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]
    for sign in (1, -1):
        heat = cam._eigen_grad_cam(make_features(activation, (sign * np.array(gradient)).tolist()))
        assert heat.tolist() == pytest.approx([2**0.5, 2 * 2**0.5, -(2**0.5)])


def make_features(activation, gradient):
    return LayerEvidence(torch.tensor(activation).double()[:, None], torch.tensor(gradient).double()[:, None])


@pytest.mark.parametrize("is_gpu", [False, True])
def test_grad_cam_plus_plus_uses_alpha_zero_where_its_denominator_is_zero(monkeypatch, is_gpu):
    if is_gpu:
        monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _: False))
    # The first channel sums to -1: the denominator is 2 - 1 × 2 = 0.
    features = make_features([[1.0, -2.0], [3.0, 1.0]], [[2.0, 1.0], [1.0, 0.0]])
    weights = [0 + 1 / (2 - 1), 1 / (2 + 4)]
    expected = [weights[0] * 1 + weights[1] * 3, weights[0] * -2 + weights[1] * 1]
    assert cam._grad_cam_plus_plus(features).tolist() == pytest.approx(expected, abs=1e-12)
    features_with_nan = make_features([[1.0, -2.0]], [[float("nan"), 1.0]])
    assert not cam._grad_cam_plus_plus(features_with_nan).isfinite().any()  # a NaN in the gradient is not hidden


def test_xgrad_cam_gives_weight_zero_to_a_channel_that_sums_to_zero():
    features = make_features([[1.0, -1.0], [0.0, 0.0], [2.0, 2.0]], [[2.0, 1.0], [5.0, 5.0], [1.0, 0.0]])
    assert cam._xgrad_cam(features).tolist() == pytest.approx([0.5 * 2, 0.5 * 2], abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_activations_are_summed_in_single_precision(name):
    torch.manual_seed(0)
    activation, gradient = torch.rand(8, 6, 6), torch.randn(8, 6, 6)
    formula = getattr(cam, "_" + name.replace("++", "_plus_plus").replace("-", "_"))
    half = LayerEvidence(activation.bfloat16(), gradient.bfloat16())
    same = LayerEvidence(activation.bfloat16().float(), gradient.bfloat16().float())
    assert torch.equal(formula(half), formula(same))
    assert formula(half).dtype == torch.float32


# ------------------------------------------------------------------------------------------- peers, on real networks


STAGES = ["layer1", "layer2", "layer3", "layer4"]


def reshape_tokens(tensor):
    return tensor[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)


def torchcam_map(method, model, layer, image, target):
    """Return the map of torchcam, clipped at 0 and not rescaled."""
    module = copy.deepcopy(model.module)
    with method(module, layer) as peer:
        (heat,) = peer(target, module(image), normalized=False)
    return heat[0].detach()


def activation_and_gradient(model, photo, layer, target):
    """Return the activation and the gradient of a layer, in double precision."""
    run = model.run(photo, layers=[layer])
    (gradient,) = run.gradients(target, of=[run.activations[layer]])
    return model.spatial_map(run.activations[layer].detach()).double(), model.spatial_map(gradient).double()


@pytest.mark.parametrize("layer", STAGES)
@pytest.mark.parametrize(("name", "peer"), [("hires-cam", HiResCAM), ("layer-cam", LayerCAM), ("xgrad-cam", XGradCAM)])
def test_every_stage_equals_pytorch_grad_cam(name, peer, layer, resnet, cheetah):
    for target in (resnet.predict(cheetah, top=1)[0].index, 281):
        expected = pytorch_grad_cam_map(peer, resnet, layer, resnet.tensor(cheetah), target)[0]
        assert_same_map(vizlib.explain(resnet, cheetah, name, target, layer=layer, relu=False).heat, expected)


@pytest.mark.parametrize("layer", STAGES)
@pytest.mark.parametrize(
    ("name", "peer"), [("layer-cam", torchcam.methods.LayerCAM), ("xgrad-cam", torchcam.methods.XGradCAM)]
)
def test_every_stage_equals_torchcam(name, peer, layer, resnet, cheetah):
    target = resnet.predict(cheetah, top=1)[0].index
    expected = torchcam_map(peer, resnet, layer, resnet.tensor(cheetah), target)
    assert_same_map(vizlib.explain(resnet, cheetah, name, layer=layer).heat, expected)


@pytest.mark.parametrize(("name", "peer"), [("hires-cam", HiResCAM), ("layer-cam", LayerCAM), ("xgrad-cam", XGradCAM)])
def test_map_of_a_transformer_equals_pytorch_grad_cam(name, peer, deit, cheetah):
    target = deit.predict(cheetah, top=1)[0].index
    expected = pytorch_grad_cam_map(peer, deit, "blocks.11.norm1", deit.tensor(cheetah), target, reshape_tokens)[0]
    heat = vizlib.explain(deit, cheetah, name, layer="blocks.11.norm1", relu=False).heat
    assert_same_map(heat, expected)
    if name != "layer-cam":
        assert torch.equal(vizlib.explain(deit, cheetah, name, relu=False).heat, heat)  # the default


def grad_cam_plus_plus_with_eps(activation, gradient, eps):
    """Equation 19 as pytorch-grad-cam writes it."""
    below = 2 * gradient**2 + activation.sum((1, 2), keepdim=True) * gradient**3 + eps
    alpha = torch.where(gradient != 0, gradient**2 / below, 0)
    return ((alpha * gradient.clamp(min=0)).sum((1, 2))[:, None, None] * activation).sum(0)


@pytest.mark.parametrize("layer", STAGES)
def test_grad_cam_plus_plus_equals_pytorch_grad_cam_without_its_epsilon(layer, resnet, cheetah):
    """Most gradients of a ResNet are so small that 1e-6 matters beside their squares: maps are 0.3 to 20 % too low."""
    target = resnet.predict(cheetah, top=1)[0].index
    activation, gradient = activation_and_gradient(resnet, cheetah, layer, target)
    peer = torch.as_tensor(pytorch_grad_cam_map(GradCAMPlusPlus, resnet, layer, resnet.tensor(cheetah), target)[0])
    heat = vizlib.explain(resnet, cheetah, "grad-cam++", layer=layer).heat
    assert_same_map(peer, grad_cam_plus_plus_with_eps(activation, gradient, 1e-6))
    assert_same_map(heat, grad_cam_plus_plus_with_eps(activation, gradient, 0))
    assert 0.75 < (peer.max() / heat.max()).item() < 0.999


@pytest.mark.parametrize("layer", STAGES)
def test_grad_cam_plus_plus_of_torchcam_lacks_the_denominator(layer, resnet, cheetah):
    """It divides a copy (`alpha[mask].div_`), so that alpha remains the squared gradient."""
    target = resnet.predict(cheetah, top=1)[0].index
    activation, gradient = activation_and_gradient(resnet, cheetah, layer, target)
    peer = torchcam_map(torchcam.methods.GradCAMpp, resnet, layer, resnet.tensor(cheetah), target)
    weights = gradient.clamp(min=0).pow(3).sum((1, 2))
    assert_same_map(peer, (weights[:, None, None] * activation).sum(0))


@pytest.mark.parametrize("layer", STAGES)
@pytest.mark.parametrize(("name", "peer"), [("eigen-cam", EigenCAM), ("eigen-grad-cam", EigenGradCAM)])
def test_eigen_maps_equal_pytorch_grad_cam_without_its_centring(name, peer, layer, resnet, cheetah):
    """The paper projects the activations themselves; pytorch-grad-cam subtracts the mean of each channel first.

    Its map is different: except at the last stage, the correlation with ours is 0.06 to 0.69, and half is negative.
    """
    target = resnet.predict(cheetah, top=1)[0].index
    activation, gradient = activation_and_gradient(resnet, cheetah, layer, target)
    matrix = (activation if name == "eigen-cam" else activation * gradient).flatten(1).T.numpy()
    peer_heat = pytorch_grad_cam_map(peer, resnet, layer, resnet.tensor(cheetah), target)[0]
    parameters: dict[str, Any] = {"relu": False} if name in WITH_RELU else {}
    heat = vizlib.explain(resnet, cheetah, name, layer=layer, **parameters).heat

    def project_on_first(table):
        return (table @ np.linalg.svd(table, full_matrices=False)[2][0]).reshape(heat.shape)

    uncentred, centred = project_on_first(matrix), project_on_first(matrix - matrix.mean(0))
    reference = np.ones_like(uncentred) if name == "eigen-cam" else matrix.sum(1).reshape(heat.shape)
    assert_same_map(heat, uncentred * np.sign((uncentred * reference).sum()))
    assert_same_map(torch.as_tensor(peer_heat), centred * np.sign((centred * peer_heat).sum()), 1e-3)
    if name == "eigen-cam":  # contributions have means near 0 in early stages, where centring has little effect
        centred = centred * np.sign((centred * uncentred).sum())
        assert np.abs(np.abs(uncentred) - centred).max() > 0.3 * np.ptp(uncentred)
