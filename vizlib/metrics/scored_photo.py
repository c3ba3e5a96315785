"""What metrics read of an attribution: its photo as input of the model, and the score that it explains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from vizlib.attribution.evidence import Evidence
from vizlib.attribution.methods.baselines import make_baseline
from vizlib.attribution.methods.scoring import PRECISION_PARAMETER, MakeInputs, ScoredBatch, score_inputs
from vizlib.attribution.result import Attribution, FunctionName
from vizlib.attribution.target import ClassSelector, TargetSpec
from vizlib.core.errors import VizlibError
from vizlib.models.inference.batched_inference import DEFAULT_BUDGET_MB
from vizlib.models.model import Model

SIGNS = ("positive", "signed", "absolute")


class ScoreChanges(NamedTuple):
    """The scores of changed photos after some of their passes.

    Attributes:
        whole: Score of the unchanged photo.
        changed: Scores of the changed photos; NaN where they are not computed yet.
        done: How many of these are computed.
        notes: What is worth knowing about the precision.
    """

    whole: float
    changed: Float[Tensor, " total"]
    done: int
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ScoredPhoto:
    """A photo, a model, and the score of what an attribution explains, for metrics that score changed photos.

    Attributes:
        attribution: The attribution.
        evidence: Model, run and score of the photo.
        spec: What is explained.
        score_kind: What of an output is scored: `"probability"`, `"logit"` or `"value"`.
        precision: `"auto"` for bfloat16 where a check passes, or `"float32"`.
        budget_mb: Memory for one batch, in megabytes.
    """

    attribution: Attribution
    evidence: Evidence
    spec: TargetSpec
    score_kind: str
    precision: str = "auto"
    budget_mb: int = DEFAULT_BUDGET_MB

    @classmethod
    def make(
        cls,
        model: Model,
        attribution: Attribution,
        *,
        score: str | None = None,
        precision: str = "auto",
        budget_mb: int = DEFAULT_BUDGET_MB,
        needs_score: bool = True,
    ) -> ScoredPhoto:
        """Return what metrics read of an attribution, from one forward pass.

        Args:
            model: The model that the attribution explains.
            attribution: The attribution.
            score: What of an output is scored; by default the probability where there is one, else the output.
            precision: As in the attributes.
            budget_mb: As in the attributes.
            needs_score: Whether a score is read, so that a map that depends on no class is refused.

        Raises:
            VizlibError: For an attribution of another model, one that explains nothing that the model returns, or an
                unknown score or precision.
            ModelError: If the model cannot be run.
        """
        check_model(model, attribution, needs_score=needs_score)
        if precision not in (precisions := PRECISION_PARAMETER.list_choices(model)):
            expected = " or ".join(map(repr, precisions))
            raise VizlibError(f"the precision is {expected}, not {precision!r}")
        run = model.run(attribution.photo, graph=False)
        spec = resolve_explained(model, run.logits, attribution)
        kind = score or model.output_row.scores[-1]
        if kind not in model.output_row.scores:
            expected = ", ".join(map(repr, model.output_row.scores))
            raise VizlibError(f"the score of {model.name} is one of {expected}, not {kind!r}")
        return cls(attribution, Evidence(model, run, spec.make_score(kind)), spec, kind, precision, budget_mb)

    @property
    def model(self) -> Model:
        """The model."""
        return self.evidence.model

    @property
    def image(self) -> Float[Tensor, "1 3 h w"]:
        """The photo as input of the model."""
        return self.evidence.run.image.detach()

    @property
    def score(self) -> float:
        """The score of the unchanged photo."""
        return self.evidence.explained_score

    def make_baseline(self, name: str, seed: int = 0) -> Float[Tensor, "1 3 h w"]:
        """Return a baseline in the shape of the image: the mean colour, black, white, the blurred photo, or noise."""
        return make_baseline(name, self.evidence, seed)

    def iterate_scores(self, make_inputs: MakeInputs, total: int, *, in_order: bool = False) -> Iterator[ScoredBatch]:
        """Yield the scores of changed photos, batch by batch.

        Args:
            make_inputs: From the indices of a batch to its inputs.
            total: How many inputs there are.
            in_order: Score them in the order of their indices, not shuffled.
        """
        return score_inputs(
            self.evidence,
            make_inputs,
            total,
            precision=self.precision,
            budget_mb=self.budget_mb,
            in_order=in_order,
        )

    def iterate_changes(self, make_inputs: MakeInputs, total: int) -> Iterator[ScoreChanges]:
        """Yield the scores of the unchanged photo and of changed ones, which the same passes compute.

        So both have the same precision, and their difference holds no offset.

        Args:
            make_inputs: From the indices of changed photos to their inputs.
            total: How many changed photos there are.
        """

        def make_all(indices: Int[Tensor, " n"]) -> Tensor:
            """Return the unchanged photo for index 0, and the changed photos after it."""
            if 0 not in indices:
                return make_inputs(indices - 1)
            others = indices[indices > 0] - 1
            changed = make_inputs(others) if len(others) else self.image[:0]
            images = torch.cat([self.image, changed])
            order = (indices > 0).cumsum(0) * (indices > 0)
            return images[order.to(images.device)]

        scores = torch.full((total + 1,), torch.nan, dtype=torch.float64, device="cpu")
        for batch in self.iterate_scores(make_all, total + 1, in_order=True):
            scores[batch.indices] = batch.scores.double().cpu()
            yield ScoreChanges(scores[0].item(), scores[1:], max(batch.done - 1, 1), batch.notes)

    def resize_to_input(self, heats: Float[Tensor, "maps rows columns"]) -> Float[Tensor, "maps h w"]:
        """Return maps interpolated bilinearly to the pixels of the model input."""
        return resize_maps(heats, (self.image.shape[-2], self.image.shape[-1]))


def check_model(model: Model, attribution: Attribution, *, needs_score: bool = True) -> None:
    """Raise an error if a map is not one of a model, or explains nothing whose score can be computed.

    Args:
        model: The model.
        attribution: The attribution.
        needs_score: Whether a map that depends on no class is refused.

    Raises:
        VizlibError: For a map of another model or preprocessing, of a function that the model does not hold, or of no
            target.
    """
    if attribution.model != model.name:
        raise VizlibError(f"this map explains {attribution.model}, and the given model is {model.name}")
    if attribution.geometry != model.preprocessing.geometry(attribution.photo):
        raise VizlibError(f"this map was made with another preprocessing than that of the given {model.name}")
    function = model.target_function
    if isinstance(attribution.target, FunctionName):
        if function is None or function.name != attribution.target:
            raise VizlibError(
                f"this map explains the function {str(attribution.target)!r} of the output: give the model that holds "
                "it, model.with_target(function)"
            )
    elif function is not None:
        raise VizlibError(f"the model holds the function {function.name!r}, which this map does not explain")
    elif attribution.target is None and needs_score:
        raise VizlibError("the metric needs the score of a class, and this map depends on no class")


def resolve_explained(model: Model, logits: Float[Tensor, "1 outputs"], attribution: Attribution) -> TargetSpec:
    """Return what an attribution explains, as a function of the outputs of its model.

    Args:
        model: The model.
        logits: Outputs for the photo.
        attribution: The attribution.

    Raises:
        TargetError: For a class that the model does not have.
    """
    if model.target_function is not None or attribution.target is None:
        return TargetSpec.resolve(model, logits, None, None, required=False)
    against = cast(ClassSelector, attribution.against)  # a record of one class or complement
    return TargetSpec.resolve(model, logits, attribution.target, against)


def resize_maps(heats: Float[Tensor, "maps rows columns"], size: tuple[int, int]) -> Float[Tensor, "maps h w"]:
    """Return maps interpolated bilinearly.

    Args:
        heats: Raw values.
        size: (height, width) of the result.
    """
    return F.interpolate(heats[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]


def apply_sign(heats: Float[Tensor, "maps rows columns"], sign: str) -> Float[Tensor, "maps rows columns"]:
    """Return maps as a metric reads them: their positive part, as they are, or their absolute values.

    Args:
        heats: Raw values.
        sign: One of `SIGNS`.
    """
    return heats.clamp(min=0) if sign == "positive" else heats.abs() if sign == "absolute" else heats
