"""Attribution by the attention weights of a transformer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.evidence import (
    ATTENTION,
    ATTENTION_GRADIENTS,
    BLOCK_ATTENTION_GRADIENTS,
    Evidence,
    RequiredSignals,
)
from vizlib.attribution.request import SCORE_PARAMETER, TWO_PASSES, Method, Parameter
from vizlib.core.errors import MethodError, suggest_names
from vizlib.models.families.layouts import TokenLayout, WindowLayout
from vizlib.models.model import Model

Query = str | tuple[int, int] | None  # a token name, row and column of a patch, or the tokens the classifier uses


def resolve_query(tokens: TokenLayout, query: Query) -> list[int]:
    """Return the indices of the tokens whose attention is shown.

    Args:
        tokens: Layout of the tokens of the model.
        query: Name of a token such as `"class"`, row and column of a patch, or `None` for the tokens that the
            classifier uses.

    Raises:
        MethodError: If the model has no such token.
    """
    rows, columns = tokens.grid
    if query is None:
        return list(tokens.classifier_tokens) or list(range(tokens.num_prefix_tokens, tokens.num_tokens))
    if isinstance(query, str):
        if query not in tokens.names:
            hint = suggest_names(query, tokens.names) if tokens.names else "it has only patches, named (row, column)"
            raise MethodError(f"this model has no token {query!r}; {hint}")
        return [tokens.names.index(query)]
    row, column = (int(value) for value in query)
    if not (0 <= row < rows and 0 <= column < columns):
        raise MethodError(f"there is no patch {(row, column)}; the grid has {rows} rows and {columns} columns")
    return [tokens.num_prefix_tokens + row * columns + column]


def make_averaging_row(indices: list[int], like: Float[Tensor, "... token"]) -> Float[Tensor, " token"]:
    """Return the row vector whose product with an attention matrix is the mean of the given rows of it."""
    return like.new_zeros(like.shape[-1]).index_fill_(0, torch.tensor(indices, device=like.device), 1 / len(indices))


def reshape_to_grid(row: Float[Tensor, " token"], tokens: TokenLayout) -> Float[Tensor, "rows columns"]:
    """Return attention to the patch tokens as a map, without that to the prefix tokens."""
    return row[tokens.num_prefix_tokens :].unflatten(0, tokens.grid)


def collect_attention_maps(evidence: Evidence) -> dict[str, Float[Tensor, "1 heads token token"]]:
    """Return the attention weights among all tokens, by layer.

    Attention of another shape, such as that of a pooling head, is left out.

    Raises:
        MethodError: If the run holds no attention among all tokens.
    """
    tokens = evidence.model.tokens
    attention_maps = {
        layer: weights.detach()
        for layer, weights in evidence.run.attention.items()
        if tokens is not None and weights.shape[-2:] == (tokens.num_tokens, tokens.num_tokens)
    }
    if not attention_maps:
        raise MethodError(f"{evidence.model.name} computed no attention among all of its tokens in any layer")
    return attention_maps


def collect_window_attention(evidence: Evidence) -> dict[str, Float[Tensor, "windows heads position position"]]:
    """Return the attention weights within windows, by layer.

    Raises:
        MethodError: If the run holds no attention within the windows that the model's family has.
    """
    shapes = {name: layout.positions.shape for name, layout in evidence.model.attention_windows.items()}
    found = {
        layer: weights.detach()
        for layer, weights in evidence.run.attention.items()
        if layer in shapes and (len(weights), weights.shape[-1]) == shapes[layer]
    }
    if not found:
        raise MethodError(f"{evidence.model.name} computed no attention within the windows of its family in any layer")
    return found


def list_attention_layers(evidence: Evidence) -> tuple[str, ...]:
    """Return the layers whose attention weights can be shown on the photo."""
    windowed = bool(evidence.model.attention_windows)
    return tuple(collect_window_attention(evidence) if windowed else collect_attention_maps(evidence))


def stitch_windows(
    weights: Float[Tensor, "windows position position"], layout: WindowLayout, query: Query
) -> Float[Tensor, "rows columns"]:
    """Return the attention weights from the query to each position of the grid; 0 outside the windows of the query.

    Args:
        weights: Attention weights of one head within each window.
        layout: Where the windows are.
        query: Row and column of a position of the grid, or `None` for the mean over all positions.
    """
    positions = layout.positions.to(weights.device)
    queries = resolve_query(TokenLayout((), layout.grid, ()), query)
    chosen = torch.isin(positions, torch.tensor(queries, device=weights.device)).to(weights.dtype)
    received = (chosen.unsqueeze(1) @ weights).flatten() / len(queries)
    sums = received.new_zeros(1 + layout.grid[0] * layout.grid[1])  # the first is that of the padding
    return sums.index_add(0, 1 + positions.flatten(), received)[1:].unflatten(0, layout.grid)


def _select_head(weights: Float[Tensor, "... heads query key"], layer: str, head: int | str) -> Tensor:
    """Return the attention weights of one head, or their mean or maximum over all heads."""
    count = weights.shape[-3]
    if head == "mean":
        return weights.mean(-3)
    if head == "max":
        return weights.amax(-3)
    if str(head).isdigit() and int(head) < count:
        return weights.select(-3, int(head))
    raise MethodError(f"{layer} has heads 0 to {count - 1}, 'mean' and 'max', but no {head!r}")


def _raw_attention(evidence: Evidence, *, layer: str | None, head: int | str, query: Query) -> Tensor:
    """Return the attention weights from the query to each patch, or of windowed attention each position, in one layer.

    References:
        Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, et al. An Image is Worth 16x16 Words: Transformers for Image
        Recognition at Scale. ICLR 2021. arXiv:2010.11929
    """
    windows = evidence.model.attention_windows
    attention_maps = collect_window_attention(evidence) if windows else collect_attention_maps(evidence)
    layer = layer or list(attention_maps)[-1]
    if layer not in attention_maps:
        raise MethodError(f"{layer!r} computes no attention here; {suggest_names(str(layer), attention_maps)}")
    selected = _select_head(attention_maps[layer], layer, head)
    if windows:
        return stitch_windows(selected, windows[layer], query)
    return reshape_to_grid(selected[0, resolve_query(evidence.tokens, query)].mean(0), evidence.tokens)


def propagate_rollout(
    layers: list[Float[Tensor, "heads token token"]], rows: Float[Tensor, "... token"]
) -> Float[Tensor, "... token"]:
    """Return how much each input token contributes to output tokens by attention rollout.

    Attention, averaged over heads, and the residual connection are assumed to contribute equally. Rows are propagated
    from the last layer to the first: a product of vector and matrix per layer, where the paper multiplies matrices.

    Args:
        layers: Attention weights, from the first layer to the last.
        rows: Weights of the output tokens, for example a one-hot row for one token.

    References:
        Abnar, Zuidema. Quantifying Attention Flow in Transformers. ACL 2020, equation 1. arXiv:2005.00928
    """
    for weights in reversed(layers):
        mean = weights.mean(0)
        rows = rows / (mean.sum(-1) + 1)  # normalises each row of (A + I) / 2 to the sum 1
        rows = rows + rows @ mean
    return rows


def propagate_relevance(
    layers: list[Float[Tensor, "heads token token"]],
    gradients: list[Float[Tensor, "heads token token"]],
    rows: Float[Tensor, "... token"],
) -> Float[Tensor, "... token"]:
    """Return the relevance of each input token to output tokens, from attention weights and their gradients.

    For self-attention the relevance matrix is R = R + mean over heads((gradient * A)+) R, starting from the identity.
    Only the given combination of its rows is computed, from the last layer to the first, as in `propagate_rollout`.

    Args:
        layers: Attention weights, from the first layer to the last.
        gradients: Gradients of the score at these weights.
        rows: Weights of the output tokens, for example a one-hot row for one token.

    References:
        Chefer, Gur, Wolf. Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
        Transformers. ICCV 2021, equations 5 and 6. arXiv:2103.15679
    """
    for weights, gradient in zip(reversed(layers), reversed(gradients), strict=True):
        rows = rows + rows @ (gradient * weights).clamp_(min=0).mean(0)
    return rows


def _rollout(evidence: Evidence, *, query: Query) -> Tensor:
    """Return the attention rollout from the query to each patch."""
    layers = [weights[0] for weights in collect_attention_maps(evidence).values()]
    rows = make_averaging_row(resolve_query(evidence.tokens, query), layers[0])
    return reshape_to_grid(propagate_rollout(layers, rows), evidence.tokens)


def _relevance(evidence: Evidence, *, query: Query, relu: bool, **_) -> Tensor:
    """Return the relevance of each patch to the query, from attention weights and their gradients.

    Without `relu` the relevance to the negative score is subtracted, whose gradients are the negative ones: in a
    contrast, patches that are evidence for the other class are then negative.
    """
    attention_maps = collect_attention_maps(evidence)
    gradients = {name: evidence.attention_gradients[name] for name in evidence.run.attention}
    heat = _propagate_from_query(evidence, attention_maps, gradients, query)
    if relu:
        return heat
    negative = {name: -gradient for name, gradient in gradients.items()}
    return heat - _propagate_from_query(evidence, attention_maps, negative, query)


def _propagate_from_query(
    evidence: Evidence, attention_maps: Mapping[str, Tensor], gradients: Mapping[str, Tensor], query: Query
) -> Float[Tensor, "rows columns"]:
    """Return the relevance of each patch to the query, for the gradients of some score."""
    layers = [weights[0] for weights in attention_maps.values()]
    inner = [gradients[name][0] for name in attention_maps]
    rows = _weigh_pooled_tokens(evidence, gradients) if query is None else None
    if rows is None:
        rows = make_averaging_row(resolve_query(evidence.tokens, query), layers[0])
    return reshape_to_grid(propagate_relevance(layers, inner, rows), evidence.tokens)


def _weigh_pooled_tokens(evidence: Evidence, gradients: Mapping[str, Tensor]) -> Float[Tensor, " token"] | None:
    """Return the relevance of each token to the output of an attention pooling head; `None` without one.

    The head is a cross-attention of learned queries to the tokens, so its relevance is the mean over heads and queries
    of (gradient * A)+, by equation 10 of the paper.
    """
    if evidence.tokens.classifier_tokens:
        return None
    maps = collect_attention_maps(evidence)
    for name, weights in reversed(list(evidence.run.attention.items())):
        if name not in maps and weights.shape[-1] == evidence.tokens.num_tokens:
            return (gradients[name] * weights.detach()).clamp(min=0)[0].mean((0, 1))
    return None


def _legrad(evidence: Evidence, **_) -> Tensor:
    """Return the mean over blocks, heads and queries of the positive gradients at the attention weights.

    The score of a block is that of the classifier for the mean of the output tokens of the block.

    References:
        Bousselham, Boggust, Chaybouti, Strobelt, Kuehne. LeGrad: An Explainability Method for Vision Transformers via
        Feature Formation Sensitivity. ICCV 2025, equations 5 to 8. arXiv:2404.03214
    """
    block_rows = [gradient.clamp(min=0).mean((0, 1, 2)) for gradient in evidence.block_attention_gradients.values()]
    return reshape_to_grid(torch.stack(block_rows).mean(0), evidence.tokens)


def _check_block_classifier(model: Model) -> str | None:
    """Return why LeGrad, which reads gradients at attention, does not apply to a model, or `None` where it does."""
    if model.tokens is None or model.family is None or model.family.classify_tokens is None:
        return "it applies the classifier to the tokens of each block, and this model is not a transformer vizlib knows"
    if model.target_function is not None or model.output is not None:
        return "it applies the classifier to the tokens of each block, so it explains a class, not a function"
    return None


def _check_attention(model: Model) -> str | None:
    """Return why methods that read attention weights do not apply to a model, or `None` where they do."""
    if model.tokens is None:
        return "it reads attention between patches, and this model is not a transformer vizlib knows"
    return None


def _check_raw_attention(model: Model) -> str | None:
    """Return why raw attention does not apply to a model, or `None` where it does: also within windows."""
    return None if model.attention_windows else _check_attention(model)


QUERY = Parameter(
    None,
    "the query: a token name, a patch (row, column), or by default the tokens that the classifier uses",
    lambda m: m.tokens.names if m.tokens else (),
    allows_others=True,
)
RELEVANCE_RELU = Parameter(
    None,
    "keep only what raises the score; by default yes, unless two classes are compared",
    (True, False),
    resolve_default=lambda is_contrast: not is_contrast,
)
ATTENTION_LAYER = Parameter(
    None, "the attention layer; by default the last", lambda m: m.attention_layers, allows_others=True
)

METHODS = (
    Method(
        name="raw-attention",
        paper="Dosovitskiy et al.: An Image is Worth 16x16 Words, ICLR 2021",
        paper_url="https://arxiv.org/abs/2010.11929",
        equation=(
            r"H_j = \frac{1}{N} \sum_h A^{(l)}_{hqj}, "
            r"\quad A^{(l)}_h = \operatorname{softmax}\left( \frac{Q_h K_h^{\top}}{\sqrt{d}} \right)"
        ),
        shows="Bright patches are those to which the selected token attends in this layer.",
        does_not_show="Attention weights do not show how the information is used, and do not depend on the class.",
        signals=lambda model, values: RequiredSignals(frozenset({ATTENTION})),
        compute=_raw_attention,
        unsupported_reason=_check_raw_attention,
        parameters={
            "layer": ATTENTION_LAYER,
            "head": Parameter(
                "mean", "one head by index, or the mean or maximum over all heads", ("mean", "max"), allows_others=True
            ),
            "query": QUERY,
        },
        class_specific=False,
        patch_values=True,
        list_layers=list_attention_layers,
    ),
    Method(
        name="attention-rollout",
        paper="Abnar, Zuidema: Quantifying Attention Flow in Transformers, ACL 2020",
        paper_url="https://arxiv.org/abs/2005.00928",
        equation=(
            r"H_j = \left( \tilde{A}^{(L)} \cdots \tilde{A}^{(1)} \right)_{qj}, "
            r"\quad \tilde{A}^{(l)} = \operatorname{normalise}\left( \frac{1}{N} \sum_h A^{(l)}_h + I \right)"
        ),
        shows="Bright patches contribute most to the output when attention is propagated through all layers.",
        does_not_show="It weights all heads equally and does not depend on the class: it shows salience, not reasons.",
        signals=lambda model, values: RequiredSignals(frozenset({ATTENTION})),
        compute=_rollout,
        unsupported_reason=_check_attention,
        parameters={"query": QUERY},
        class_specific=False,
        patch_values=True,
    ),
    Method(
        name="attention-relevance",
        paper="Chefer, Gur, Wolf: Generic Attention-model Explainability, ICCV 2021",
        paper_url="https://arxiv.org/abs/2103.15679",
        equation=(
            r"H_j = R^{(L)}_{qj}, "
            r"\quad R^{(l)} = R^{(l-1)} + \frac{1}{N} \sum_h "
            r"\operatorname{ReLU}\left( \frac{\partial s}{\partial A^{(l)}_h} \odot A^{(l)}_h \right) R^{(l-1)}, "
            r"\quad R^{(0)} = I"
        ),
        shows="Bright patches are those whose attention, propagated through all layers, raises the class score.",
        does_not_show="It propagates attention only: what the MLP blocks compute is not included.",
        signals=lambda model, values: RequiredSignals(frozenset({ATTENTION_GRADIENTS})),
        compute=_relevance,
        unsupported_reason=_check_attention,
        parameters={"query": QUERY, "relu": RELEVANCE_RELU, "score": SCORE_PARAMETER},
        is_signed=lambda values: values.get("relu") is False,
        patch_values=True,
    ),
    Method(
        name="legrad",
        paper="Bousselham et al.: LeGrad, ICCV 2025",
        paper_url="https://arxiv.org/abs/2404.03214",
        equation=(
            r"H_j = \frac{1}{L} "
            r"\sum_l \frac{1}{N T} "
            r"\sum_{h,i} \operatorname{ReLU}\left( \frac{\partial s^{(l)}}{\partial A^{(l)}_{hij}} \right)"
        ),
        shows="Bright patches are where more attention, in any block, would raise the class score of that block.",
        does_not_show="It applies the classifier to every block, though it was trained on the last block only.",
        signals=lambda model, values: RequiredSignals(frozenset({BLOCK_ATTENTION_GRADIENTS}), model.stages),
        compute=_legrad,
        unsupported_reason=_check_block_classifier,
        parameters={"score": SCORE_PARAMETER},
        patch_values=True,
        cost=TWO_PASSES,
    ),
)
