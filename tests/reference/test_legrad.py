"""LeGrad equals the equations of its paper in explicit loops on every kind of transformer, and torchcam."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from random_weights import randomise_weights

import vizlib


def timm_vit(name="vit_tiny_patch16_224", **changes):
    settings = {"img_size": (16, 24), "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2, "num_classes": 5}
    return randomise_weights(timm.create_model(name, **settings | changes))


def torchvision_vit():
    return randomise_weights(torchvision.models.VisionTransformer(24, 8, 3, 2, 12, 24, num_classes=5))


BUILDS = {  # network, grid, number of prefix tokens
    "plain": (timm_vit, (2, 3), 1),
    "distilled": (lambda: timm_vit("deit_tiny_distilled_patch16_224"), (2, 3), 2),
    "registers": (lambda: timm_vit(reg_tokens=2), (2, 3), 3),
    "mean of patches": (lambda: timm_vit(global_pool="avg"), (2, 3), 1),
    "no class token": (lambda: timm_vit(class_token=False, global_pool="avg"), (2, 3), 0),
    "torchvision": (torchvision_vit, (3, 3), 1),
}


@pytest.fixture(params=BUILDS)
def case(request):
    build, grid, prefix = BUILDS[request.param]
    size = (8 * grid[0], 8 * grid[1])
    model = vizlib.wrap(build(), preprocessing={"input_size": (3, *size), "crop_pct": 1.0, "crop_mode": "squash"})
    return model, photo(size), grid, prefix


def photo(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def reference_forward(model, pixels):
    """Return attention and output tokens of each block, on one graph, by linear algebra."""
    module, image = model.module, model.tensor(vizlib.open_image(pixels))
    blocks = []

    def attend(qkv, heads):
        q, k, v = (part.unflatten(1, (heads, -1)).transpose(0, 1) for part in qkv.chunk(3, dim=-1))
        weights = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1)
        return weights, (weights @ v).transpose(0, 1).flatten(1)

    if hasattr(module, "blocks"):
        x = module.norm_pre(module._pos_embed(module.patch_embed(image)))[0]
        for block in module.blocks:
            weights, output = attend(block.attn.qkv(block.norm1(x)), block.attn.num_heads)
            x = x + block.attn.proj(output)
            x = x + block.mlp(block.norm2(x))
            blocks.append((weights, x))
        return blocks
    patches = module.conv_proj(image).flatten(2).transpose(1, 2)
    x = (torch.cat([module.class_token, patches], dim=1) + module.encoder.pos_embedding)[0]
    for layer in module.encoder.layers:
        attention = layer.self_attention
        weights, output = attend(layer.ln_1(x) @ attention.in_proj_weight.T + attention.in_proj_bias, 2)
        x = x + attention.out_proj(output)
        x = x + layer.mlp(layer.ln_2(x))
        blocks.append((weights, x))
    return blocks


def classify_token(module, token):
    """Return the logits that the last normalisation and the head of the network compute for one token."""
    if not hasattr(module, "blocks"):
        return module.heads.head(module.encoder.ln(token))
    token = module.fc_norm(module.norm(token))
    if hasattr(module, "head_dist"):
        return (module.head(token) + module.head_dist(token)) / 2  # a distilled network averages two heads
    return module.head(token)


def slow_legrad(model, pixels, score, grid, prefix):
    """Bousselham et al. 2024, equations 5 to 8: s = classifier(mean token); ReLU(ds/dA), the mean over heads, queries
    and blocks, laid out on the grid.
    """
    blocks = reference_forward(model, pixels)
    heat = np.zeros(grid)
    for weights, tokens in blocks:
        total = torch.zeros_like(tokens[0])
        for token in tokens:
            total = total + token
        (gradient,) = torch.autograd.grad(
            score(classify_token(model.module, total / len(tokens))), weights, retain_graph=True
        )
        heads, queries, _ = gradient.shape
        for row in range(grid[0]):
            for column in range(grid[1]):
                key = prefix + row * grid[1] + column
                positive_sum = sum(max(gradient[h, q, key].item(), 0.0) for h in range(heads) for q in range(queries))
                heat[row, column] += positive_sum / (heads * queries) / len(blocks)
    return heat


SCORES = {
    "logit": ({"target": 2}, lambda logits: logits[2]),
    "probability": ({"target": 1, "score": "probability"}, lambda logits: logits.softmax(-1)[1]),
    "against": ({"target": 2, "against": 4}, lambda logits: logits[2] - logits[4]),
}


@pytest.mark.parametrize("score", SCORES)
def test_legrad_equals_the_equations_of_the_paper_with_explicit_gradients(case, score):
    model, pixels, grid, prefix = case
    options, score_of = SCORES[score]
    expected = slow_legrad(model, pixels, score_of, grid, prefix)
    assert expected.min() >= 0
    assert expected.max() > expected.min()
    attribution = vizlib.explain(model, pixels, "legrad", **options)
    assert attribution.patch_values
    assert attribution.heat.shape == grid
    assert np.abs(attribution.heat.numpy() - expected).max() < 1e-6 * expected.max()


def test_legrad_equals_torchcam_over_all_blocks_of_a_torchvision_transformer():
    gradient = pytest.importorskip("torchcam.methods.gradient", reason="torchcam is not installed")
    model = vizlib.wrap(torchvision_vit(), preprocessing={"input_size": (3, 24, 24), "crop_pct": 1.0})
    pixels = photo((24, 24), seed=3)
    module: Any = model.module
    with gradient.LeGrad(module, list(module.encoder.layers)) as extractor:
        logits = model.module(model.tensor(vizlib.open_image(pixels)))
        for target in range(5):
            expected = extractor(target, logits, normalized=False, retain_graph=True)[0][0]
            heat = vizlib.explain(model, pixels, "legrad", target).heat
            assert (heat - expected).abs().max() < 1e-6 * expected.max()


def test_networks_without_tokens_raise_method_error():
    model = vizlib.wrap(timm.create_model("resnet18", num_classes=5).eval(), preprocessing={"input_size": (3, 64, 64)})
    assert "legrad" not in vizlib.list_methods(model)
    with pytest.raises(vizlib.MethodError, match="not a transformer vizlib knows"):
        vizlib.explain(model, photo((64, 64)), "legrad")


def test_given_run_must_hold_every_block_and_attention():
    model = vizlib.wrap(timm_vit(), preprocessing={"input_size": (3, 16, 24), "crop_pct": 1.0})
    pixels = photo((16, 24))
    with pytest.raises(vizlib.MethodError, match="does not hold attention"):
        vizlib.explain(model, pixels, "legrad", run=model.run(pixels, layers=model.stages))
    with pytest.raises(vizlib.MethodError, match=r"does not hold blocks\.0, blocks\.1"):
        vizlib.explain(model, pixels, "legrad", run=model.run(pixels, layers=["blocks.2"], attention=True))
    run = model.run(pixels, layers=model.stages, attention=True)
    attribution = vizlib.explain(model, pixels, "legrad", 2, run=run)
    assert torch.equal(attribution.heat, vizlib.explain(model, pixels, "legrad", 2).heat)
