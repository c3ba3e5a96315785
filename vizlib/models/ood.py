"""Out-of-distribution score: flags photos whose logits are unlike those of a model's calibration data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vizlib.core.errors import ModelError
from vizlib.core.text import make_note

# Name -> function from logits "... classes" to scores "..."; a low score means out of distribution.
OOD_SCORES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "energy": lambda logits: logits.logsumexp(-1),
    "max-logit": lambda logits: logits.amax(-1),
    "max-probability": lambda logits: logits.softmax(-1).amax(-1),
    "negative-entropy": lambda logits: (logits.softmax(-1) * logits.log_softmax(-1)).sum(-1),
}
OUTPUT_KINDS_OF_SCORES: Mapping[str, tuple[str, ...]] = {  # kinds of outputs that a score is a formula of
    "energy": ("softmax",),
    "max-logit": ("softmax", "sigmoid"),
    "max-probability": ("softmax",),
    "negative-entropy": ("softmax",),
}


@dataclass(frozen=True)
class OodScore:
    """A score of the logits with a calibrated threshold below which a photo counts as out of distribution.

    Attributes:
        score: Key of `OOD_SCORES`.
        threshold: Lowest score that counts as in distribution.
        coverage: Share of `data`, from 0 to 1, that scores at least `threshold`.
        data: Name of the calibration photos, for example "Imagenette's validation photos".

    References:
        Energy: W. Liu, X. Wang, J. Owens, Y. Li. Energy-based Out-of-distribution Detection. NeurIPS 2020.
            arXiv:2010.03759.
        Max logit: D. Hendrycks et al. Scaling Out-of-Distribution Detection for Real-World Settings. ICML 2022.
            arXiv:1911.11132.
        Max probability: D. Hendrycks, K. Gimpel. A Baseline for Detecting Misclassified and Out-of-Distribution
            Examples in Neural Networks. ICLR 2017. arXiv:1610.02136.
        Negative entropy: B. Lakshminarayanan, A. Pritzel, C. Blundell. Simple and Scalable Predictive Uncertainty
            Estimation using Deep Ensembles. NeurIPS 2017. arXiv:1612.01474.
    """

    score: str
    threshold: float
    coverage: float
    data: str

    @classmethod
    def from_sidecar(cls, content: Mapping[str, object]) -> OodScore | None:
        """Return the score that a sidecar's `ood` entry describes, `None` if the entry is empty.

        Args:
            content: The fields of this class; further keys are ignored.

        Raises:
            ModelError: For a missing field, or one of another type.
        """
        if not content:
            return None
        score, data = content.get("score"), content.get("data")
        threshold, coverage = (
            parse_finite_number(content.get("threshold")),
            parse_finite_number(content.get("coverage")),
        )
        if not isinstance(score, str) or score not in OOD_SCORES:
            raise ModelError(
                f"the sidecar's ood entry has the score {score!r}, expected one of {', '.join(OOD_SCORES)}"
            )
        if threshold is None or coverage is None or not 0 <= coverage <= 1:
            raise ModelError("the sidecar's ood entry needs a number as threshold, and one from 0 to 1 as coverage")
        if not isinstance(data, str):
            raise ModelError("the sidecar's ood entry needs data, the name of the photos it was calibrated on")
        return cls(score, threshold, coverage, data)

    def applies_to(self, output_kind: str) -> bool:
        """Return whether the score is defined for a kind of outputs, a row of `vizlib.models.output_kind`."""
        return output_kind in OUTPUT_KINDS_OF_SCORES[self.score]

    def compute(self, logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
        """Return the score of each row of logits; lower means less like the calibration data."""
        return OOD_SCORES[self.score](logits.detach().float())

    def ood_note(self, logits: Float[Tensor, " classes"]) -> str | None:
        """Return a note if the score is below the threshold; `None` otherwise, and for a score of NaN."""
        value = float(self.compute(logits))
        if not value < self.threshold:
            return None
        return make_note(
            "model.out-of-distribution",
            score=self.score.replace("-", " "),
            value=f"{value:.3g}",
            coverage=f"{100 * self.coverage:.0f}",
            data=self.data,
            threshold=f"{self.threshold:.3g}",
            classes=len(logits),
        )


def parse_finite_number(value: object) -> float | None:
    """Return a JSON value, such as the threshold of an out-of-distribution score, as a finite float, else `None`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
