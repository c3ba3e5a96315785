"""Attention methods equal the formulas of their papers in explicit loops, and patches map to their pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from random_weights import randomise_weights
from torch import nn

import vizlib


def timm_vit(name="vit_tiny_patch16_224", **changes):
    settings = {"img_size": (16, 40), "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
    return randomise_weights(timm.create_model(name, **settings | changes))


def torchvision_vit():
    return randomise_weights(torchvision.models.VisionTransformer(24, 8, 3, 3, 24, 48, num_classes=5))


BUILDS = {  # network, input size, grid, number of prefix tokens, tokens that the classifier uses
    "plain": (timm_vit, (16, 40), (2, 5), 1, [0]),
    "tall": (lambda: timm_vit(img_size=(40, 16)), (40, 16), (5, 2), 1, [0]),
    "distilled": (lambda: timm_vit("deit_tiny_distilled_patch16_224"), (16, 40), (2, 5), 2, [0, 1]),
    "registers": (lambda: timm_vit(reg_tokens=2), (16, 40), (2, 5), 3, [0]),
    "no class token": (lambda: timm_vit(class_token=False, global_pool="avg"), (16, 40), (2, 5), 0, range(10)),
    "mean of patches": (lambda: timm_vit(global_pool="avg"), (16, 40), (2, 5), 1, range(1, 11)),
    "torchvision": (torchvision_vit, (24, 24), (3, 3), 1, [0]),
}


@pytest.fixture(params=BUILDS)
def case(request):
    build, size, grid, prefix, read = BUILDS[request.param]
    model = vizlib.wrap(build(), preprocessing={"input_size": (3, *size), "crop_pct": 1.0, "crop_mode": "squash"})
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return model, photo, grid, prefix, list(read)


def reference_forward(model, photo):
    """Return logits and attention of every layer, on one graph, by linear algebra without the capture of vizlib."""
    module, image = model.module, model.tensor(vizlib.open_image(photo))
    attention_maps = []

    def attend(qkv, heads):
        q, k, v = (part.unflatten(1, (heads, -1)).transpose(0, 1) for part in qkv.chunk(3, dim=-1))
        attention_maps.append((q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1))
        return (attention_maps[-1] @ v).transpose(0, 1).flatten(1)

    if hasattr(module, "blocks"):
        x = module.norm_pre(module._pos_embed(module.patch_embed(image)))[0]
        for block in module.blocks:
            x = x + block.attn.proj(attend(block.attn.qkv(block.norm1(x)), block.attn.num_heads))
            x = x + block.mlp(block.norm2(x))
        return module.forward_head(module.norm(x)[None])[0], attention_maps
    patches = module.conv_proj(image).flatten(2).transpose(1, 2)
    x = (torch.cat([module.class_token, patches], dim=1) + module.encoder.pos_embedding)[0]
    for layer in module.encoder.layers:
        attention = layer.self_attention
        qkv = layer.ln_1(x) @ attention.in_proj_weight.T + attention.in_proj_bias
        x = x + attention.out_proj(attend(qkv, attention.num_heads))
        x = x + layer.mlp(layer.ln_2(x))
    return module.heads(module.encoder.ln(x)[None, 0])[0], attention_maps


def reshape_to_grid(row, grid, prefix):
    heat = np.zeros(grid)
    for i in range(grid[0]):
        for j in range(grid[1]):
            heat[i, j] = row[prefix + i * grid[1] + j]
    return heat


def slow_product(a, b):
    size = len(a)
    out = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            out[i, j] = sum(a[i, k] * b[k, j] for k in range(size))
    return out


def slow_rollout(layers):
    """Abnar & Zuidema 2020, eq. 1: A = 0.5 W + 0.5 I with W the mean over heads, rows re-normalised, multiplied up."""
    total: Any = None  # an array from the first layer on
    for weights in layers:
        heads, size, _ = weights.shape
        step = np.zeros((size, size))
        for i in range(size):
            for j in range(size):
                step[i, j] = 0.5 * sum(weights[h, i, j] for h in range(heads)) / heads + 0.5 * (i == j)
            step[i] /= step[i].sum()
        total = step if total is None else slow_product(step, total)
    return total


def slow_relevance(layers, gradients):
    """Chefer et al. 2021b, eq. 5 and 6: A' = E_h((grad A * A)+); R = R + A' R, from R = I."""
    size = layers[0].shape[-1]
    total = np.eye(size)
    for weights, gradient in zip(layers, gradients, strict=True):
        heads = len(weights)
        mean = np.zeros((size, size))
        for i in range(size):
            for j in range(size):
                mean[i, j] = sum(max(gradient[h, i, j] * weights[h, i, j], 0.0) for h in range(heads)) / heads
        total = total + slow_product(mean, total)
    return total


def assert_close(heat, expected):
    assert expected.max() > expected.min()
    assert np.abs(heat.numpy() - expected).max() < 1e-6 * max(1.0, np.abs(expected).max())


def test_raw_attention_equals_one_row_of_the_weights_of_one_layer(case):
    model, photo, grid, prefix, read = case
    _, layers = reference_forward(model, photo)
    for index, name in enumerate(model.attention_layers):
        weights = layers[index].detach().numpy()
        heads = {"mean": weights.mean(0), "max": weights.max(0), 0: weights[0], 2: weights[2], "1": weights[1]}
        for head, selected in heads.items():
            attribution = vizlib.explain(model, photo, "raw-attention", layer=name, head=head)
            row = sum(selected[token] for token in read) / len(read)
            assert_close(attribution.heat, reshape_to_grid(row, grid, prefix))
    last = vizlib.explain(model, photo, "raw-attention")
    named = vizlib.explain(model, photo, "raw-attention", layer=model.attention_layers[-1], head="mean")
    assert torch.equal(last.heat, named.heat)


def test_query_selects_the_row_of_its_token(case):
    model, photo, grid, prefix, _ = case
    _, layers = reference_forward(model, photo)
    weights = layers[1].detach().numpy().mean(0)
    name = model.attention_layers[1]
    for index, token in enumerate(model.tokens.names):
        attribution = vizlib.explain(model, photo, "raw-attention", layer=name, query=token)
        assert_close(attribution.heat, reshape_to_grid(weights[index], grid, prefix))
    for row in range(grid[0]):
        for column in range(grid[1]):
            attribution = vizlib.explain(model, photo, "raw-attention", layer=name, query=(row, column))
            assert_close(attribution.heat, reshape_to_grid(weights[prefix + row * grid[1] + column], grid, prefix))


def test_rollout_equals_the_equation_of_the_paper(case):
    model, photo, grid, prefix, read = case
    _, layers = reference_forward(model, photo)
    slow = slow_rollout([weights.detach().numpy() for weights in layers])
    assert np.allclose(slow.sum(1), 1)
    row = sum(slow[token] for token in read) / len(read)
    assert_close(vizlib.explain(model, photo, "attention-rollout").heat, reshape_to_grid(row, grid, prefix))
    attribution = vizlib.explain(model, photo, "attention-rollout", query=(1, 1))
    assert_close(attribution.heat, reshape_to_grid(slow[prefix + grid[1] + 1], grid, prefix))


def test_rows_of_rollout_sum_to_one():
    from vizlib.attribution.methods.attention import propagate_rollout

    layers = [torch.rand(2, 7, 7, dtype=torch.float64).softmax(-1) for _ in range(5)]
    identity = torch.eye(7, dtype=torch.float64)
    result = propagate_rollout(layers, identity)
    assert torch.allclose(result.sum(-1), torch.ones(7, dtype=torch.float64))
    assert np.abs(result.numpy() - slow_rollout([weights.numpy() for weights in layers])).max() < 1e-12
    scaled = [weights * 0.7 for weights in layers]  # rows of weights after dropout do not sum to one
    assert torch.allclose(propagate_rollout(scaled, identity).sum(-1), torch.ones(7, dtype=torch.float64))
    assert (
        np.abs(
            propagate_rollout(scaled, identity).numpy() - slow_rollout([weights.numpy() for weights in scaled])
        ).max()
        < 1e-12
    )


@pytest.mark.parametrize(
    "options", [{}, {"against": 3, "relu": True}, {"score": "probability"}, {"query": (1, 0)}], ids=str
)
def test_relevance_equals_equations_5_and_6_with_explicit_gradients(case, options):
    model, photo, grid, prefix, read = case
    for target in (0, 4):
        logits, layers = reference_forward(model, photo)
        score = logits.softmax(-1)[target] if options.get("score") else logits[target]
        if "against" in options:
            score = score - logits[options["against"]]
        gradients = [gradient.numpy() for gradient in torch.autograd.grad(score, layers)]
        slow = slow_relevance([weights.detach().numpy() for weights in layers], gradients)
        tokens = [prefix + grid[1]] if "query" in options else read
        row = sum(slow[token] for token in tokens) / len(tokens)
        attribution = vizlib.explain(model, photo, "attention-relevance", target, **options)
        assert_close(attribution.heat, reshape_to_grid(row, grid, prefix))


def bright_patch_attender(size, registers=0):
    """Return a transformer in which every token attends only to the bright patch of a dark photo.

    The embedding of a patch is its brightness along one direction; keys are that direction, queries a constant.
    """
    generator = torch.Generator().manual_seed(0)
    module: Any = timm.create_model(
        "vit_tiny_patch16_224",
        **{"img_size": size, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5},
        reg_tokens=registers,
    )
    direction = torch.randn(24, generator=generator)
    direction = (direction - direction.mean()) / direction.std(correction=0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.patch_embed.proj.weight.copy_(direction.view(24, 1, 1, 1).expand(24, 3, 8, 8))
        for block in module.blocks:
            block.norm1.weight.fill_(1)
            block.attn.qkv.weight[24:48] = torch.eye(24)
            block.attn.qkv.weight[48:] = torch.eye(24)
            block.attn.qkv.bias[:24] = 3 * direction
        module.blocks[1].attn.proj.weight.copy_(torch.eye(24))  # only the last block passes its attention output on
        module.head.weight[2] = direction
    module.norm = nn.Identity()  # a normalisation would remove the magnitude
    return module.double().eval()


@pytest.mark.parametrize("registers", [0, 3])
@pytest.mark.parametrize(("rows", "columns"), [(2, 5), (5, 2), (3, 3)])
def test_attention_to_one_patch_is_largest_at_its_row_and_column_and_its_pixels_of_the_photo(rows, columns, registers):
    size = (rows * 8, columns * 8)
    model = vizlib.wrap(
        bright_patch_attender(size, registers),
        preprocessing={"input_size": (3, *size), "crop_pct": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3},
    )
    for row, column in [(0, columns - 1), (rows - 1, 0), (1, 1)]:
        photo = np.zeros((*size, 3), dtype=np.uint8)
        photo[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 255
        for method, options in [
            ("raw-attention", {}),
            ("raw-attention", {"query": (0, 0), "layer": "blocks.0.attn"}),
            ("attention-rollout", {}),
            ("attention-relevance", {"target": 2}),
        ]:
            attribution = vizlib.explain(model, photo, method, **options)
            assert attribution.heat.shape == (rows, columns)
            assert attribution.patch_values
            rest = attribution.heat.clone()
            rest[row, column] = 0
            assert attribution.heat[row, column] > 3 * rest.max(), (method, row, column)
            hot = attribution.project_to_photo() == attribution.heat[row, column].item()
            assert hot.sum() == 64
            assert hot[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].all()


def test_unknown_token_patch_head_or_layer_raises_method_error():
    model = vizlib.wrap(timm_vit(), preprocessing={"input_size": (3, 16, 40), "crop_pct": 1.0})
    photo = np.zeros((16, 40, 3), dtype=np.uint8)
    for options, words in [
        ({"query": "distillation"}, "no token 'distillation'"),
        ({"query": (2, 0)}, r"no patch \(2, 0\); the grid has 2 rows and 5 columns"),
        ({"query": (0, -1)}, "no patch"),
        ({"head": 3}, "heads 0 to 2"),
        ({"head": "median"}, "no 'median'"),
        ({"layer": "blocks.7.attn"}, "'blocks.7.attn' computes no attention here; did you mean"),
    ]:
        with pytest.raises(vizlib.MethodError, match=words):
            vizlib.explain(model, photo, "raw-attention", **options)


def test_transformer_methods_raise_method_error_for_other_networks():
    model = vizlib.wrap(timm.create_model("resnet18", num_classes=5).eval(), preprocessing={"input_size": (3, 64, 64)})
    for name in ("raw-attention", "attention-rollout", "attention-relevance"):
        assert name not in vizlib.list_methods(model)
        with pytest.raises(vizlib.MethodError, match="not a transformer vizlib knows"):
            vizlib.explain(model, np.zeros((64, 64, 3), dtype=np.uint8), name)


def test_attention_that_is_not_among_all_tokens_is_ignored():
    """The attention of a pooling head is 1 x tokens."""
    module = timm_vit(class_token=False, global_pool="map")
    model = vizlib.wrap(module, preprocessing={"input_size": (3, 16, 40), "crop_pct": 1.0, "crop_mode": "squash"})
    photo = np.random.default_rng(0).integers(0, 256, (16, 40, 3), dtype=np.uint8)
    run = model.run(photo, attention=True)
    assert run.attention["attn_pool"].shape == (1, 3, 1, 10)
    layers = [run.attention[f"blocks.{i}.attn"][0].detach().numpy() for i in range(3)]
    expected = slow_rollout(layers).mean(0)
    assert_close(vizlib.explain(model, photo, "attention-rollout").heat, reshape_to_grid(expected, (2, 5), 0))


def test_relevance_of_an_attention_pooling_head_starts_from_its_cross_attention():
    """Chefer et al. 2021b, eq. 10: the queries of the head read the tokens with E_h((grad A * A)+)."""
    module = timm_vit(class_token=False, global_pool="map")
    model = vizlib.wrap(module, preprocessing={"input_size": (3, 16, 40), "crop_pct": 1.0, "crop_mode": "squash"})
    photo = np.random.default_rng(0).integers(0, 256, (16, 40, 3), dtype=np.uint8)
    run = model.run(photo, attention=True)
    names = [*(f"blocks.{i}.attn" for i in range(3)), "attn_pool"]
    gradients = torch.autograd.grad(run.logits[0, 2], [run.attention[name] for name in names])
    weights = [run.attention[name][0].detach().numpy() for name in names]
    inner = slow_relevance(weights[:3], [gradient[0].numpy() for gradient in gradients[:3]])
    expected = np.zeros(10)
    for token in range(10):
        for head in range(3):
            row = max(gradients[3][0, head, 0, token].item() * weights[3][head, 0, token], 0.0) / 3
            expected += row * inner[token]
    assert_close(vizlib.explain(model, photo, "attention-relevance", 2).heat, reshape_to_grid(expected, (2, 5), 0))
    query = vizlib.explain(model, photo, "attention-relevance", 2, query=(0, 1)).heat
    assert_close(query, reshape_to_grid(inner[1], (2, 5), 0))


def test_contrast_of_relevance_subtracts_what_speaks_for_the_other_class(case):
    model, photo, grid, prefix, read = case
    logits, layers = reference_forward(model, photo)
    gradients = [gradient.numpy() for gradient in torch.autograd.grad(logits[1] - logits[3], layers)]
    weights = [layer.detach().numpy() for layer in layers]
    for_one = slow_relevance(weights, gradients)
    for_other = slow_relevance(weights, [-gradient for gradient in gradients])
    expected = sum((for_one - for_other)[token] for token in read) / len(read)
    attribution = vizlib.explain(model, photo, "attention-relevance", 1, 3)
    assert_close(attribution.heat, reshape_to_grid(expected, grid, prefix))
    assert attribution.signed
    plain = vizlib.explain(model, photo, "attention-relevance", 1, 3, relu=True)
    assert_close(plain.heat, reshape_to_grid(sum(for_one[token] for token in read) / len(read), grid, prefix))
    assert not plain.signed


def test_transformer_without_attention_among_its_tokens_raises_method_error():
    class NoAttention(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(dim, dim))

        def forward(self, x, **_):
            return self.inner(x)

    module: Any = timm_vit()
    for block in module.blocks:
        block.attn = NoAttention(24).double()
    model = vizlib.wrap(module, preprocessing={"input_size": (3, 16, 40), "crop_pct": 1.0})
    for name in ("raw-attention", "attention-rollout", "attention-relevance"):
        with pytest.raises(vizlib.MethodError):
            vizlib.explain(model, np.zeros((16, 40, 3), dtype=np.uint8), name)
