"""Whether a photo is like those a network was measured on; a softmax must name a class, whatever it is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vizlib.core.errors import ModelError

OOD_SCORES: Mapping[str, Callable[[Tensor], Tensor]] = {  # logits "... classes" -> "..."; low means unlike
    "energy": lambda logits: logits.logsumexp(-1),  # Liu et al.: Energy-based Out-of-distribution Detection, 2020
    "max-logit": lambda logits: logits.amax(-1),  # Hendrycks et al.: Scaling Out-of-Distribution Detection, 2022
    "max-probability": lambda logits: logits.softmax(-1).amax(-1),  # Hendrycks, Gimpel: A Baseline, 2017
}


@dataclass(frozen=True)
class OodScore:
    """A score of the logits, and how low it may be before a photo counts as unlike the ones a network knows."""

    score: str  # a name in SCORES
    threshold: float
    coverage: float  # the share of `data` that scores at least the threshold
    data: str  # the photos it was calibrated on, as a noun: "Imagenette's validation photos"

    @classmethod
    def from_sidecar(cls, content: Mapping[str, object]) -> OodScore | None:
        """Read the sidecar's `familiarity`, which may say more; `None` where it says nothing.

        Raises: ModelError for a field that is missing or of another kind.
        """
        if not content:
            return None
        score, data = content.get("score"), content.get("data")
        threshold, kept = parse_finite_number(content.get("threshold")), parse_finite_number(content.get("kept"))
        if not isinstance(score, str) or score not in OOD_SCORES:
            raise ModelError(
                f"the sidecar's ood entry has the score {score!r}, expected one of {', '.join(OOD_SCORES)}"
            )
        if threshold is None or kept is None or not 0 <= kept <= 1:
            raise ModelError("the sidecar's ood entry needs a number as threshold, and one from 0 to 1 as share kept")
        if not isinstance(data, str):
            raise ModelError("the sidecar's ood entry needs data, the name of the photos it was calibrated on")
        return cls(score, threshold, kept, data)

    def compute(self, logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
        """The score of each row of logits; the lower, the less a photo is like the known ones."""
        return OOD_SCORES[self.score](logits.detach().float())

    def ood_note(self, logits: Float[Tensor, " classes"]) -> str | None:
        """A sentence about a photo that scores too low; `None` for a familiar one, or for a score that is no number."""
        found = float(self.compute(logits))
        if not found < self.threshold:
            return None
        return (
            f"This photo is unlike those the model knows: its {self.score.replace('-', ' ')} is {found:.3g}, and "
            f"{100 * self.coverage:.0f} % of {self.data} reach {self.threshold:.3g}. "
            f"Perhaps it shows none of the {len(logits)} classes."
        )


def parse_finite_number(value: object) -> float | None:
    """A finite number out of JSON, else `None`; JSON's true is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
