"""Attribution by the similarity of each patch to a prompt, of networks whose classes are prompts."""

from __future__ import annotations

from torch import Tensor

from vizlib.attribution.evidence import Evidence, RequiredSignals
from vizlib.attribution.request import Method
from vizlib.models.model import Model


def _patch_similarity(evidence: Evidence, **_) -> Tensor:
    """Return the score of each patch token as if it were the class token, less the mean over the patches.

    References:
        Li, Wang, Duan, Li. CLIP Surgery for Better Explainability with Enhancement in Open-Vocabulary Tasks. 2023.
        arXiv:2304.05653, section 3.1
    """
    model, tokens = evidence.model, evidence.tokens
    assert model.family is not None
    assert model.family.classify_tokens is not None
    patches = evidence.run.activations[model.stages[-1]][0, tokens.num_prefix_tokens :].detach()
    scores = evidence.score(model.family.classify_tokens(model.eval_module(), patches)).detach()
    return (scores - scores.mean()).unflatten(0, tokens.grid)


def _check_prompts(model: Model) -> str | None:
    """Return why the similarity of patches and a prompt does not apply to a model, or `None` where it does."""
    if model.prompt_source is None:
        return "it compares patches with a prompt, and the classes of this model are no prompts"
    if model.tokens is None or model.family is None or model.family.classify_tokens is None:
        return "it compares patches with a prompt as the class token is, and this image tower has none"
    return None


METHODS = (
    Method(
        name="patch-similarity",
        paper="Li et al.: CLIP Surgery, 2023",
        paper_url="https://arxiv.org/abs/2304.05653",
        equation=r"H_j = s(z_j) - \frac{1}{N} \sum_i s(z_i)",
        shows="Warm patches are more similar to the prompt than the average patch is, as if each were the whole image.",
        does_not_show=(
            "It misleads where only the class token was trained to match texts, as in CLIP: other patches are often "
            "the more similar ones."
        ),
        signals=lambda model, values: RequiredSignals(layers=(model.stages[-1],)),
        compute=_patch_similarity,
        unsupported_reason=_check_prompts,
        is_signed=lambda values: True,
        patch_values=True,
    ),
)
