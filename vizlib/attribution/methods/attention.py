"""Methods that read a transformer's attention weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.methods.base import SCORE, TWO_PASSES, Evidence, Method, Needs, Parameter
from vizlib.core.errors import MethodError, suggest_names
from vizlib.models.families import TokenLayout
from vizlib.models.model import Model

Query = str | tuple[int, int] | None


def resolve_query(tokens: TokenLayout, query: Query) -> list[int]:
    """The tokens meant by a name ("class"), a patch (row, column), or `None` for those the classifier reads.

    Raises: MethodError for a token this model does not have.
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
    """The row that stands for some tokens: their mean."""
    return like.new_zeros(like.shape[-1]).index_fill_(0, torch.tensor(indices, device=like.device), 1 / len(indices))


def reshape_to_grid(row: Float[Tensor, " token"], tokens: TokenLayout) -> Float[Tensor, "rows columns"]:
    """What a row says of the patches, laid out as they lie."""
    return row[tokens.num_prefix_tokens :].unflatten(0, tokens.grid)


def collect_attention_maps(evidence: Evidence) -> dict[str, Float[Tensor, "1 heads token token"]]:
    """The attention among all tokens, by layer; attention of other shape, such as a pooling head's, is left out.

    Raises: MethodError where there is none.
    """
    tokens = evidence.model.tokens
    found = {
        name: weights.detach()
        for name, weights in evidence.run.attention.items()
        if tokens is not None and weights.shape[-2:] == (tokens.num_tokens, tokens.num_tokens)
    }
    if not found:
        raise MethodError(f"{evidence.model.name} showed no attention among all of its tokens, so none can be followed")
    return found


def _raw_attention(evidence: Evidence, *, layer: str | None, head: int | str, query: Query) -> Tensor:
    found = collect_attention_maps(evidence)
    name = layer or list(found)[-1]
    if name not in found:
        raise MethodError(f"{name!r} computes no attention here; {suggest_names(str(name), found)}")
    weights = found[name][0]  # (heads, query, key)
    if head == "mean":
        chosen = weights.mean(0)
    elif head == "max":
        chosen = weights.amax(0)
    elif str(head).isdigit() and int(head) < len(weights):
        chosen = weights[int(head)]
    else:
        raise MethodError(f"{name} has heads 0 to {len(weights) - 1}, 'mean' and 'max', but no {head!r}")
    return reshape_to_grid(chosen[resolve_query(evidence.tokens, query)].mean(0), evidence.tokens)


def propagate_rollout(
    layers: list[Float[Tensor, "heads token token"]], rows: Float[Tensor, "... token"]
) -> Float[Tensor, "... token"]:
    """How much of each input token is in output tokens, if attention and the residual share evenly.

    `rows` say which output tokens: a row is followed back through the layers, and a one among zeros is one token. So
    each layer costs a product of a row and a matrix, where the paper multiplies matrices to the same end.
    """
    for weights in reversed(layers):
        mixed = weights.mean(0)
        rows = rows / (mixed.sum(-1) + 1)  # each row of (A + I) / 2 is made to sum to 1
        rows = rows + rows @ mixed
    return rows


def propagate_relevance(
    layers: list[Float[Tensor, "heads token token"]],
    gradients: list[Float[Tensor, "heads token token"]],
    rows: Float[Tensor, "... token"],
) -> Float[Tensor, "... token"]:
    """Equations 5 and 6 of Chefer et al. 2021b for self-attention: R = R + mean_heads((gradient * A)+) R.

    Only the `rows` of R that are asked for are worked out, from the last layer to the first, as in `rollout`.
    """
    for weights, gradient in zip(reversed(layers), reversed(gradients), strict=True):
        rows = rows + rows @ (gradient * weights).clamp_(min=0).mean(0)
    return rows


def _rollout(evidence: Evidence, *, query: Query) -> Tensor:
    layers = [weights[0] for weights in collect_attention_maps(evidence).values()]
    start = make_averaging_row(resolve_query(evidence.tokens, query), layers[0])
    return reshape_to_grid(propagate_rollout(layers, start), evidence.tokens)


def _relevance(evidence: Evidence, *, query: Query, **_) -> Tensor:
    found = collect_attention_maps(evidence)
    layers, gradients = ([of[name][0] for name in found] for of in (found, evidence.attention_gradients))
    start = make_averaging_row(resolve_query(evidence.tokens, query), layers[0])
    return reshape_to_grid(propagate_relevance(layers, gradients, start), evidence.tokens)


def _legrad(evidence: Evidence, **_) -> Tensor:
    # Equations 6 to 8: what is positive, averaged over heads and queries, and over the blocks.
    kept = [gradient.clamp(min=0).mean((0, 1, 2)) for gradient in evidence.local_gradients.values()]
    return reshape_to_grid(torch.stack(kept).mean(0), evidence.tokens)


def _check_block_classifier(model: Model) -> str | None:
    if model.tokens is None or model.family is None or model.family.classify_tokens is None:
        return "it asks the classifier about each block's tokens, and this model is no transformer vizlib knows"
    return None


def _check_attention(model: Model) -> str | None:
    if model.tokens is None:
        return "it follows attention between patches, and this model is no transformer vizlib knows"
    return None


QUERY = Parameter(
    None,
    "the query: a token name, a patch (row, column), or by default the tokens that the classifier uses",
    lambda m: m.tokens.names if m.tokens else (),
    allows_others=True,
)
ATTENTION_LAYER = Parameter(
    None, "the attention layer; by default the last", lambda m: m.attention_layers, allows_others=True
)

METHODS = (
    Method(
        name="raw-attention",
        paper="Dosovitskiy et al.: An Image is Worth 16x16 Words, ICLR 2021",
        shows="Bright patches are those to which the selected token attends in this layer.",
        does_not_show="Attention weights do not show how the information is used, and do not depend on the class.",
        needs=lambda model, knobs: Needs(attention=True),
        compute=_raw_attention,
        unsupported_reason=_check_attention,
        parameters={
            "layer": ATTENTION_LAYER,
            "head": Parameter(
                "mean", "one head by index, or the mean or maximum over all heads", ("mean", "max"), allows_others=True
            ),
            "query": QUERY,
        },
        class_specific=False,
        patches=True,
        everywhere=True,
    ),
    Method(
        name="attention-rollout",
        paper="Abnar, Zuidema: Quantifying Attention Flow in Transformers, ACL 2020",
        shows="Bright patches contribute most to the output when attention is propagated through all layers.",
        does_not_show="It weights all heads equally and does not depend on the class: it shows salience, not reasons.",
        needs=lambda model, knobs: Needs(attention=True),
        compute=_rollout,
        unsupported_reason=_check_attention,
        parameters={"query": QUERY},
        class_specific=False,
        patches=True,
    ),
    Method(
        name="attention-relevance",
        paper="Chefer, Gur, Wolf: Generic Attention-model Explainability, ICCV 2021",
        shows="Bright patches are those whose attention, propagated through all layers, raises the class score.",
        does_not_show="It propagates attention only: what the MLP blocks compute is not included.",
        needs=lambda model, knobs: Needs(attention=True, attention_gradients=True),
        compute=_relevance,
        unsupported_reason=_check_attention,
        parameters={"query": QUERY, "score": SCORE},
        patches=True,
    ),
    Method(
        name="legrad",
        paper="Bousselham et al.: LeGrad, ICCV 2025",
        shows="Bright patches are where more attention, in any block, would raise the class score of that block.",
        does_not_show="It applies the classifier to every block, though it was trained on the last block only.",
        needs=lambda model, knobs: Needs(
            layers=model.stages, layer_gradients=False, attention=True, local_gradients=True
        ),
        compute=_legrad,
        unsupported_reason=_check_block_classifier,
        parameters={"score": SCORE},
        patches=True,
        cost=TWO_PASSES,
    ),
)
