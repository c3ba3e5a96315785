"""Heat maps of changed versions of one photo, given as tensors, for metrics that run a method again."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vizlib.attribution.evidence import gather_batch_evidence
from vizlib.attribution.explain import compute_steps, move_to_cpu, use_own_types
from vizlib.attribution.request import MethodCall, combine_signals
from vizlib.attribution.target import TargetSpec
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.model import Model
from vizlib.models.run import Run


def explain_images(
    model: Model,
    images: Float[Tensor, "n 3 h w"],
    photo: Image.Image,
    calls: Sequence[MethodCall],
    spec: TargetSpec,
) -> list[list[Tensor]]:
    """Return the heat map of every call for every image, all for the same classes.

    Args:
        model: The model.
        images: Inputs of the model: versions of the photo.
        photo: The photo, which the evidence of each image refers to.
        calls: Methods with values for their parameters; all explain the same kind of score.
        spec: What is explained.

    Returns:
        For each image the heat "rows columns" of each call, in single precision on the CPU.

    Raises:
        ModelError: If the network fails.
    """
    signals = combine_signals(calls)
    requests = [call.for_target(spec) for call in calls]
    size = 1
    if len(images) > 1:
        inference = BatchedInference(model, use_folded_copy=False)  # the maps are those of the network itself
        size = inference.batch_size(gradient=signals.needs_graph, image=images[:1])
    score = spec.make_score(calls[0].score_kind)
    heats: list[list[Tensor]] = []
    for batch in images.split(size):
        image, logits, recording = model.forward(batch, **signals.run_kwargs)
        geometry = model.preprocessing.geometry(photo)
        run = Run(image, logits, recording.activations, recording.attention, geometry, photo, (), recording)
        count = len(batch)
        for evidence in gather_batch_evidence(model, run, [photo] * count, [score] * count, signals):
            with use_own_types(evidence):
                results = [list(compute_steps(evidence, request))[-1].heat for request in requests]
            heats.append(move_to_cpu(results))
    return heats
