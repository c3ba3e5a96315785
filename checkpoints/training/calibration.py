"""Calibration of a classifier's probabilities: temperature scaling and expected calibration error.

References:
    Guo et al.: On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15  # of the expected calibration error, as in the paper


def fit_temperature(logits: Tensor, labels: Tensor, lowest: float = 0.05, highest: float = 20.0) -> float:
    """Return the temperature by which logits must be divided for the lowest mean cross-entropy.

    The cross-entropy is a convex function of the inverse temperature, which is found by ternary search.

    Args:
        logits: Logits "photos classes".
        labels: Class of each photo "photos".
        lowest: Lowest temperature that is considered.
        highest: Highest temperature that is considered.
    """
    logits = logits.double()
    low, high = 1 / highest, 1 / lowest
    while high - low > 1e-6 * low:
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if F.cross_entropy(left * logits, labels) < F.cross_entropy(right * logits, labels):
            high = right
        else:
            low = left
    return 2 / (low + high)


def compute_calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error, from 0 to 1.

    The photos are put in `BINS` bins of equal width by the probability of their top class; the error is the mean over
    the photos of the difference between accuracy and mean probability of their bin.

    Args:
        logits: Logits "photos classes".
        labels: Class of each photo "photos".
    """
    top, predictions = logits.double().softmax(-1).max(-1)
    bins = (top * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, (predictions == labels).double() - top)
    return (gaps.abs().sum() / len(labels)).item()


def evaluate_calibration(logits: Tensor, labels: Tensor) -> dict:
    """Return the temperature that fits every second photo, and the calibration errors of the others."""
    temperature = fit_temperature(logits[::2], labels[::2])
    others, truth = logits[1::2], labels[1::2]
    return {
        "temperature": round(temperature, 3),
        "photos": len(truth),
        "error": round(compute_calibration_error(others, truth), 4),
        "error_with_temperature": round(compute_calibration_error(others / temperature, truth), 4),
    }
