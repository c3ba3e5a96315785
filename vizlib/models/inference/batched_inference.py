"""Run one model on many inputs: batches sized from a memory budget, in a precision, from any layer."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vizlib.capture import alter_output, compute_gradients, substitute_output
from vizlib.capture.module_watch import watch_modules
from vizlib.core.errors import MethodError, ModelError
from vizlib.models.evaluation_copy import make_copy_check
from vizlib.models.inference.folded_copy import ConvNormPairs, find_conv_norm_pairs, make_folded_copy
from vizlib.models.model import Model

DEFAULT_BUDGET_MB = 1024  # memory of one batch, without the model
MIN_BUDGET_MB, MAX_BUDGET_MB = 64, 65536
# Fraction of the budget that tensors may fill: an allocator loses up to half as much again between its blocks.
BUDGET_FILL_FRACTION = 0.75
FOLDED_COPY_BUDGET_FRACTION = 0.25  # largest fraction of the budget for the weights of a folded copy
MAX_BATCH_SIZE = 256
# Largest difference between the logits of a folded copy and the network's, as a fraction of the largest logit. Rounding
# is below 1e-5 in single precision and about 0.01 in bfloat16; a copy that reads other weights is far above both.
MAX_FOLDED_ERROR, MAX_FOLDED_ERROR_BFLOAT16 = 1e-3, 0.1
# Floating-point operations of one batch: enough to keep the hardware busy, few enough that stopping takes effect soon.
MAX_BATCH_FLOPS = {"cpu": 100e9, "cuda": 20e12}


@dataclass(frozen=True)
class InputCost:
    """What one input of a batch costs in memory and operations.

    Attributes:
        memory_bytes: Peak memory of its tensors.
        flops: Floating-point operations.
    """

    memory_bytes: int
    flops: int


class BatchedInference:
    """Runs one model on many inputs, in batches that fit a memory budget.

    The passes run on a folded copy of the network where that saves operations (see `folded_copy`). Measured costs are
    kept in the model's plan cache; nothing else outlives the object. Make a new object for each explanation, as weights
    may change in between.

    Args:
        model: The model to run; it is not changed.
        budget_mb: Memory of one batch in megabytes, without the model.
        bfloat16: Compute under autocasting to bfloat16; logits are returned in single precision.
        use_folded_copy: Make a folded copy first, which takes as long as one or two passes.

    Raises:
        MethodError: For a budget out of range.
    """

    def __init__(
        self, model: Model, *, budget_mb: int = DEFAULT_BUDGET_MB, bfloat16: bool = False, use_folded_copy: bool = True
    ) -> None:
        if not MIN_BUDGET_MB <= budget_mb <= MAX_BUDGET_MB:
            raise MethodError(
                f"budget_mb is memory in megabytes, from {MIN_BUDGET_MB} to {MAX_BUDGET_MB}, not {budget_mb!r}"
            )
        self.model: Model = model
        self.budget_bytes: int = int(budget_mb * 1e6)
        self.bfloat16: bool = bfloat16
        self._use_folded_copy = use_folded_copy
        self._folded_models: dict[frozenset[str], Model] = {}  # by the layers whose output is that of the network

    def logits(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        """Return the logits of one batch."""
        return _to_single_precision(self._folded_model().logits(_to_channels_last(images)))

    def logits_from_layer(
        self, image: Float[Tensor, "1 3 h w"], layer: str, outputs: Tensor
    ) -> Float[Tensor, "n classes"]:
        """Return the logits if a layer's output for `image` is replaced by each of the given outputs.

        The layers before it run once, on `image` alone.

        Args:
            image: The model's input.
            layer: Name of the layer.
            outputs: Outputs of the layer, stacked along the batch axis.
        """
        return self._run_from_layer(image, layer, lambda: outputs, len(outputs))

    def logits_with_altered_layers(
        self, images: Float[Tensor, "n 3 rows columns"], changes: Mapping[str, Callable[[Tensor], Tensor]]
    ) -> Float[Tensor, "n classes"]:
        """Return the logits of one batch with the outputs of some layers transformed.

        Args:
            images: Model inputs; they may be smaller than the model's input size.
            changes: Layer name -> function that maps the layer's output to its replacement.
        """
        model = self._folded_model(*changes)
        with contextlib.ExitStack() as hooks:
            for layer, transform in changes.items():
                hooks.enter_context(alter_output(model.module, layer, transform))
            return _to_single_precision(model.logits(_to_channels_last(images)))

    def gradients(
        self, images: Float[Tensor, "n 3 h w"], score: Callable[[Tensor], Tensor], layer: str | None = None
    ) -> Tensor:
        """Return the gradient of each input's score, at the input itself or at a layer's output.

        Args:
            images: One batch.
            score: Maps logits "n classes" to one score per input.
            layer: Name of the layer; `None` means the input.
        """
        images, logits, recording = self._folded_model(layer).forward(
            _to_channels_last(images), [layer] if layer else []
        )
        return self._score_gradients(logits, score, recording.activations[layer] if layer else images)

    def gradients_from_layer(
        self, image: Float[Tensor, "1 3 h w"], layer: str, outputs: Tensor, score: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the gradient of each score at a layer's output, replaced as in `logits_from_layer`.

        Args:
            image: The model's input.
            layer: Name of the layer.
            outputs: Outputs of the layer, stacked along the batch axis.
            score: Maps logits "n classes" to one score per output.
        """
        with torch.inference_mode(False), torch.enable_grad():
            layer_dtype = torch.bfloat16 if self.bfloat16 else outputs.dtype  # as the layer itself returns it
            outputs = outputs.clone() if outputs.is_inference() else outputs
            outputs = outputs.to(layer_dtype, memory_format=torch.channels_last).requires_grad_()
            model = self._folded_model(layer)
            with substitute_output(model.module, layer, lambda: outputs):
                _, logits, _ = model.forward(_to_channels_last(image), output_batch_size=len(outputs))
            return self._score_gradients(logits, score, outputs)

    def batch_size(self, *, gradient: bool = False, image: Tensor | None = None, layer: str | None = None) -> int:
        """Return how many inputs fit into one batch: by memory, by operations, and at most `MAX_BATCH_SIZE`.

        Args:
            gradient: Whether the batch needs a backward pass.
            image: Input whose passes are measured; by default a blank one.
            layer: The inputs are outputs of this layer for `image`, from which the passes are continued.
        """
        cost = self._input_cost(gradient, image, layer)
        max_flops = MAX_BATCH_FLOPS.get(self._device().type, MAX_BATCH_FLOPS["cpu"])
        by_memory = (self.budget_bytes * BUDGET_FILL_FRACTION - self._folded_copy_bytes) / cost.memory_bytes
        return max(1, min(int(by_memory), int(max_flops / cost.flops), MAX_BATCH_SIZE))

    @staticmethod
    def split_batches(indices: Tensor, size: int) -> tuple[Tensor, ...]:
        """Split indices into batches of about equal size, at most `size`: a last batch of one costs as much as two."""
        return indices.tensor_split(math.ceil(len(indices) / size)) if len(indices) else ()

    def _folded_model(self, *layers: str | None) -> Model:
        """Return the model for batches on its folded copy; the given layers keep the outputs of the original."""
        pairs = self._conv_norm_pairs if self._folded_copy_bytes else {}
        folded_layers = {*pairs, *pairs.values()}
        exact_layers = frozenset(layer for layer in layers if layer and layer in folded_layers)
        if exact_layers not in self._folded_models:
            self._folded_models[exact_layers] = self._make_folded_model(pairs, exact_layers)
        return self._folded_models[exact_layers]

    def _make_folded_model(self, pairs: ConvNormPairs, exact_layers: frozenset[str]) -> Model:
        """Return the model on a folded copy; on the network itself where a copy does not have the same logits."""
        dtype = torch.bfloat16 if self.bfloat16 else None
        network = replace(self.model, module=self.model.eval_module(), autocast_dtype=dtype)
        if not self._folded_copy_bytes:
            return network
        try:
            with torch.inference_mode(False):  # inference tensors could not take part in a gradient later
                module = make_folded_copy(network.module, pairs, exact_layers=exact_layers, dtype=dtype)
        except ModelError:  # a `forward` set on an instance may refer to the original
            return network
        folded = replace(network, module=module)
        key = "folded copy", self.model.structure_key(), exact_layers, dtype
        same = self.model._plan_cache.get_or_compute(key, lambda: self._have_same_outputs(network, folded))
        return folded if same else network

    def _have_same_outputs(self, network: Model, folded: Model) -> bool:
        """Return whether batches may use a folded copy: its own modules give the network's outputs for noise."""
        image = network.make_random_image()
        try:
            expected = self.model.output_tensors(image)
            with watch_modules(make_copy_check(folded.module)):
                outputs = folded.output_tensors(_to_channels_last(image))
        except ModelError:
            return False
        if [tensor.shape for tensor in outputs] != [tensor.shape for tensor in expected]:
            return False
        tolerance = MAX_FOLDED_ERROR_BFLOAT16 if self.bfloat16 else MAX_FOLDED_ERROR
        pairs = zip(map(_to_single_precision, outputs), map(_to_single_precision, expected), strict=True)
        return all(
            bool((output - other).abs().max() <= tolerance * other.abs().max().clamp(min=1e-6))
            for output, other in pairs
            if other.numel()
        )

    @cached_property
    def _folded_copy_bytes(self) -> int:
        """Size of a folded copy's own weights in bytes; 0 if none is made: too large, or nothing to gain."""
        if not self._use_folded_copy:
            return 0
        copied_types = (nn.Conv2d, nn.Linear) if self.bfloat16 else (nn.Conv2d,)
        weights: list[Any] = [part.weight for part in self.model.module.modules() if type(part) in copied_types]
        size = sum(weight.numel() * (2 if self.bfloat16 else weight.element_size()) for weight in weights)
        fits = size <= self.budget_bytes * FOLDED_COPY_BUDGET_FRACTION
        return size if fits and self.model.reference_tensor().dtype.itemsize >= 4 else 0

    @property
    def _conv_norm_pairs(self) -> ConvNormPairs:
        """The convolutions that a folded copy for batches fuses with their batch normalisation."""
        return self.model._plan_cache.get_or_compute(("conv_norm_pairs", self.model.structure_key()), self._find_pairs)

    def _find_pairs(self) -> ConvNormPairs:
        """Return the convolutions that a folded copy for batches fuses with their batch normalisation."""
        module = self.model.eval_module()
        blank = self.model.reference_tensor().new_zeros(1, 3, *self.model.preprocessing.input_size)
        with self.model.network_context():
            return find_conv_norm_pairs(module, lambda: module(blank))

    def _input_cost(self, gradient: bool, image: Tensor | None, layer: str | None) -> InputCost:
        """Return what one input of a batch costs, measured once per kind of pass."""
        key = "cost", gradient, layer, self.bfloat16, bool(self._folded_copy_bytes)
        return self.model._plan_cache.get_or_compute(key, lambda: self._measure_cost(gradient, image, layer))

    def _measure_cost(self, gradient: bool, image: Tensor | None, layer: str | None) -> InputCost:
        """Measure a batch of one input, the input included; with `layer` only what follows the layer counts."""
        self._folded_model(layer)  # made before the measurement, as its weights are counted separately
        with _CostMeter() as meter:
            if image is not None and layer is not None:
                activation = self.model.forward(image, [layer])[2].activations[layer].detach()

                def make_output() -> Tensor:
                    meter.restart()
                    return activation.clone()

                self._run_from_layer(image, layer, make_output, 1)
            else:
                if image is None:
                    image = self.model.reference_tensor().new_zeros(1, 3, *self.model.preprocessing.input_size)
                if gradient:
                    self.gradients(image, lambda logits: logits[:, 0])
                else:
                    self.logits(image)
        return InputCost(max(meter.peak_bytes, 1), max(meter.flops, 1))

    def _run_from_layer(self, image: Tensor, layer: str, make_outputs: Callable[[], Tensor], count: int) -> Tensor:
        """Return the logits of a batch whose outputs of one layer are replaced, on the folded copy."""
        model = self._folded_model(layer)
        with substitute_output(model.module, layer, make_outputs):
            return _to_single_precision(model.logits(_to_channels_last(image), output_batch_size=count))

    def _score_gradients(self, logits: Tensor, score: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
        """Return the gradient of the sum of a batch's scores at a tensor."""
        with torch.inference_mode(False), torch.enable_grad():
            return compute_gradients(score(_to_single_precision(logits)).sum(), [tensor], retain_graph=False)[0]

    def _device(self) -> torch.device:
        """Device on which batches are computed."""
        return self.model.reference_tensor().device


def benefits_from_bfloat16(model: Model) -> bool:
    """Return whether batches gain from bfloat16: single precision, on a device that computes bfloat16 in hardware."""
    reference = model.reference_tensor()
    return reference.dtype == torch.float32 and supports_bfloat16(reference.device)


def supports_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes batches in bfloat16 by instructions; without them it is many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # available from PyTorch 2.9
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _to_channels_last(images: Tensor) -> Tensor:
    """Return the batch in the memory layout that convolutions compute fastest in."""
    return images.contiguous(memory_format=torch.channels_last)


def _to_single_precision(logits: Tensor) -> Tensor:
    """Return the logits of a batch in single precision at least: in half precision many classes tie."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


class _CostMeter(TorchDispatchMode):
    """Measures what a batch costs: peak memory of live tensors, and operations by PyTorch's own formulas.

    Attributes:
        live_bytes: Memory of the tensors allocated since the last restart that are alive.
        peak_bytes: Largest value of `live_bytes`.
        flops: Floating-point operations since the last restart.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counted: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._restarts = 0  # memory allocated before the last restart is not subtracted when it is freed
        self.restart()

    def restart(self) -> None:
        """Set the memory and operation counts of a batch to 0."""
        self.live_bytes = self.peak_bytes = self.flops = 0
        self._restarts += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._count_storage(tensor.untyped_storage())
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=output)
        return output

    def _count_storage(self, storage: torch.UntypedStorage) -> None:
        """Count the memory of a tensor's storage until it is freed."""
        if storage not in self._counted:
            self._counted.add(storage)
            size = storage.nbytes()
            self.live_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
            weakref.finalize(storage, self._on_freed, size, self._restarts)

    def _on_freed(self, size: int, restarts: int) -> None:
        """Subtract the memory of a freed storage."""
        if restarts == self._restarts:
            self.live_bytes -= size
