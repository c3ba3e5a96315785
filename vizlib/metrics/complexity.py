"""Metrics of complexity: whether a map marks few places or many."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.metrics.metric import Heats, Metric, MetricValues
from vizlib.metrics.scored_photo import ScoredPhoto


def compute_gini_index(heats: Heats) -> Float[Tensor, " maps"]:
    """Return the Gini index of the absolute values of maps.

    Args:
        heats: Raw values.

    Returns:
        Values from 0 (all equal) to 1 - 1 / n (a single one of n is not 0); NaN for a map of zeros.

    References:
        Chalasani, Chen, Chowdhury, Jha, Wu: Concise explanations of neural networks using adversarial training,
        ICML 2020, section 3.1, arXiv:1810.06583.
    """
    values = heats.double().abs().flatten(1).sort(1).values
    count = values.shape[1]
    ranks = torch.arange(1, count + 1, dtype=torch.float64, device=values.device)
    return ((2 * ranks - count - 1) * values).sum(1) / (count * values.sum(1))


def _sparseness(photo: ScoredPhoto, heats: Heats) -> Iterator[MetricValues]:
    """Yield the Gini index of each map."""
    yield MetricValues(compute_gini_index(heats))


METRICS = (
    Metric(
        name="sparseness",
        paper="Chalasani et al.: Concise Explanations of Neural Networks using Adversarial Training, ICML 2020",
        paper_url="https://arxiv.org/abs/1810.06583",
        equation=(
            r"\frac{\sum_{k=1}^{n} (2k - n - 1)\, |H|_{(k)}}{n \sum_{k=1}^{n} |H|_{(k)}}, \quad |H|_{(1)} \le "
            r"|H|_{(2)} \le \dots"
        ),
        means="A high value means that few places carry most of the map, which is easier to read.",
        does_not_mean="It compares the map with nothing: a sharp wrong map scores well.",
        range=(0.0, 1.0),
        higher_is_better=True,
        compute=_sparseness,
        needs_score=False,
    ),
)
