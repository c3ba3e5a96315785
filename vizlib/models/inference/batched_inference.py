"""Run one model again and again: batches sized from a memory budget, in a precision, from any layer onward."""

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
from vizlib.core.errors import MethodError
from vizlib.models.inference.folded_copy import ConvNormPairs, find_conv_norm_pairs, make_folded_copy
from vizlib.models.model import Model

DEFAULT_BUDGET_MB = 1024  # of memory for one batch, besides the model
MIN_BUDGET_MB, MAX_BUDGET_MB = 64, 65536
BUDGET_FILL_FRACTION = (
    0.75  # of the budget, by what a batch holds: an allocator loses up to half as much again between its blocks
)
FOLDED_COPY_BUDGET_FRACTION = 0.25  # of the budget, at most, for a copy of the weights that makes each pass quicker
MAX_BATCH_SIZE = 256  # inputs in one batch, however small they are
# Operations in one batch: enough to keep the machine busy, few enough that a person who says stop is heard soon.
MAX_BATCH_FLOPS = {"cpu": 100e9, "cuda": 20e12}


@dataclass(frozen=True)
class InputCost:
    """What a batch of one input costs: bytes and floating-point operations."""

    memory_bytes: int
    flops: int


class BatchedInference:
    """A model, and how its passes are made; nothing is kept but what they cost, and that on the model."""

    def __init__(
        self, model: Model, *, budget_mb: int = DEFAULT_BUDGET_MB, bfloat16: bool = False, use_folded_copy: bool = True
    ) -> None:
        """With `many` a quicker twin is made of the network first, which takes as long as a pass or two."""
        if not MIN_BUDGET_MB <= budget_mb <= MAX_BUDGET_MB:
            raise MethodError(
                f"budget_mb is memory in megabytes, from {MIN_BUDGET_MB} to {MAX_BUDGET_MB}, not {budget_mb!r}"
            )
        self.model, self.budget_bytes, self.bfloat16 = model, int(budget_mb * 1e6), bfloat16
        self._many = use_folded_copy
        self._twins: dict[frozenset[str], Model] = {}  # by the layers that give in it what they give in the network

    def logits(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        """The logits of one batch."""
        with self._autocast():
            return _full(self._quick().logits(_channels_last(images)))

    def logits_from_layer(
        self, image: Float[Tensor, "1 3 h w"], layer: str, outputs: Tensor
    ) -> Float[Tensor, "n classes"]:
        """The logits if a layer's output for `image` were each of `outputs` (stacked along the batch axis).

        The layers before run once and for one image only, to bring the pass to where the others begin.
        """
        return self._onward(image, layer, lambda: outputs, len(outputs))

    def logits_with_altered_layers(
        self, images: Float[Tensor, "n 3 rows columns"], changes: Mapping[str, Callable[[Tensor], Tensor]]
    ) -> Float[Tensor, "n classes"]:
        """The logits of one batch if layers handed on what is made of their outputs; the inputs may be smaller."""
        model = self._quick(*changes)
        with self._autocast(), contextlib.ExitStack() as undo:
            for layer, change in changes.items():
                undo.enter_context(alter_output(model.module, layer, change))
            return _full(model.logits(_channels_last(images)))

    def gradients(
        self, images: Float[Tensor, "n 3 h w"], score: Callable[[Tensor], Tensor], layer: str | None = None
    ) -> Tensor:
        """The gradient of each score of one batch: at its own pixels, or at a layer's output."""
        with self._autocast():
            images, logits, seen = self._quick(layer).forward(_channels_last(images), [layer] if layer else [])
            return self._slopes(logits, score, seen.activations[layer] if layer else images)

    def gradients_from_layer(
        self, image: Float[Tensor, "1 3 h w"], layer: str, outputs: Tensor, score: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The gradient of each score at a layer's output, were that for `image` each of `outputs` (`onward`)."""
        with self._autocast(), torch.inference_mode(False), torch.enable_grad():
            own = torch.bfloat16 if self.bfloat16 else outputs.dtype  # what the layer itself would hand on
            outputs = outputs.clone() if outputs.is_inference() else outputs
            outputs = outputs.to(own, memory_format=torch.channels_last).requires_grad_()
            model = self._quick(layer)
            with substitute_output(model.module, layer, lambda: outputs):
                _, logits, _ = model.forward(_channels_last(image), output_batch_size=len(outputs))
            return self._slopes(logits, score, outputs)

    def batch_size(self, *, gradient: bool = False, image: Tensor | None = None, layer: str | None = None) -> int:
        """How many inputs fit the budget, and are no more work than a person wants to wait for.

        With `layer` the inputs are outputs of that layer for `image`.
        """
        cost = self._cost(gradient, image, layer)
        work = MAX_BATCH_FLOPS.get(self._device().type, MAX_BATCH_FLOPS["cpu"])
        fit = (self.budget_bytes * BUDGET_FILL_FRACTION - self._weight) / cost.memory_bytes
        return max(1, min(int(fit), int(work / cost.flops), MAX_BATCH_SIZE))

    @staticmethod
    def split_batches(order: Tensor, size: int) -> tuple[Tensor, ...]:
        """Numbers in batches of about the same size: a last one of a single input would cost as much as two."""
        return order.tensor_split(math.ceil(len(order) / size)) if len(order) else ()

    def _quick(self, *layers: str | None) -> Model:
        """The model in as few operations as give the same numbers, at the layers too.

        Made anew for each `Passes`, as weights may change.
        """
        folded = {*self._pairs, *self._pairs.values()} if self._weight else ()
        kept = frozenset(layer for layer in layers if layer and layer in folded)
        if kept not in self._twins:
            module = self.model.eval_module()
            if self._weight:
                dtype = torch.bfloat16 if self.bfloat16 else None
                with torch.inference_mode(False):  # its weights may be met by a gradient
                    module = make_folded_copy(module, self._pairs, exact_layers=kept, dtype=dtype)
            self._twins[kept] = replace(self.model, module=module)
        return self._twins[kept]

    @cached_property
    def _weight(self) -> int:
        """How many bytes a quick twin holds besides the model; 0 where that is too much, or nothing is won."""
        if not self._many:
            return 0
        copied = (nn.Conv2d, nn.Linear) if self.bfloat16 else (nn.Conv2d,)
        weights: list[Any] = [part.weight for part in self.model.module.modules() if type(part) in copied]
        size = sum(weight.numel() * (2 if self.bfloat16 else weight.element_size()) for weight in weights)
        return (
            size
            if size <= self.budget_bytes * FOLDED_COPY_BUDGET_FRACTION
            and self.model.reference_tensor().dtype.itemsize >= 4
            else 0
        )

    @property
    def _pairs(self) -> ConvNormPairs:
        if "pairs" not in self.model._plan_cache:
            module = self.model.eval_module()
            blank = self.model.reference_tensor().new_zeros(1, 3, *self.model.preprocessing.input_size)
            with self.model.translate_errors():
                self.model._plan_cache["pairs"] = find_conv_norm_pairs(module, lambda: module(blank))
        return self.model._plan_cache["pairs"]

    def _cost(self, gradient: bool, image: Tensor | None, layer: str | None) -> InputCost:
        key = gradient, layer, self.bfloat16, bool(self._weight)
        if key not in self.model._plan_cache:
            self.model._plan_cache[key] = self._probe(gradient, image, layer)
        return self.model._plan_cache[key]

    def _probe(self, gradient: bool, image: Tensor | None, layer: str | None) -> InputCost:
        """What a batch of one input costs, the input itself included; with `layer` only what follows it counts."""
        self._quick(layer)  # whose weights are counted for themselves
        with _CostMeter() as meter:
            if image is not None and layer is not None:
                own = self.model.forward(image, [layer])[2].activations[layer].detach()

                def output() -> Tensor:
                    meter.restart()
                    return own.clone()

                self._onward(image, layer, output, 1)
            else:
                blank = self.model.reference_tensor().new_zeros(1, 3, *self.model.preprocessing.input_size)
                if gradient:
                    self.gradients(blank, lambda logits: logits[:, 0])
                else:
                    self.logits(blank)
        return InputCost(max(meter.peak_bytes, 1), max(meter.flops, 1))

    def _onward(self, image: Tensor, layer: str, outputs: Callable[[], Tensor], count: int) -> Tensor:
        model = self._quick(layer)
        with self._autocast(), substitute_output(model.module, layer, outputs):
            return _full(model.logits(_channels_last(image), output_batch_size=count))

    def _slopes(self, logits: Tensor, score: Callable[[Tensor], Tensor], of: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            return compute_gradients(score(_full(logits)).sum(), [of], retain_graph=False)[0]

    def _device(self) -> torch.device:
        return self.model.reference_tensor().device

    def _autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self._device().type, torch.bfloat16) if self.bfloat16 else contextlib.nullcontext()


def benefits_from_bfloat16(model: Model) -> bool:
    """Whether a model of single precision gains by computing in bfloat16 where it lies."""
    like = model.reference_tensor()
    return like.dtype == torch.float32 and supports_bfloat16(like.device)


def supports_bfloat16(device: torch.device) -> bool:
    """Whether a processor or GPU has instructions for bfloat16; one that has not takes many times longer with it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    can = getattr(torch.cpu, "get_capabilities", dict)()  # from PyTorch 2.9 on
    return device.type == "cpu" and bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def _channels_last(images: Tensor) -> Tensor:
    """The memory layout convolutions are quickest in; the values are the same."""
    return images.contiguous(memory_format=torch.channels_last)


def _full(logits: Tensor) -> Tensor:
    """Single precision at least: in half of it many classes tie."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


class _CostMeter(TorchDispatchMode):
    """Adds up the memory that is alive, and the floating-point operations, by PyTorch's own formulas."""

    def __init__(self) -> None:
        super().__init__()
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._start = 0  # how often it was started: what is freed of an earlier time does not count
        self.restart()

    def restart(self) -> None:
        """Begin at nothing."""
        self.live_bytes = self.peak_bytes = self.flops = 0
        self._start += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=output)
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known.add(storage)
            size = storage.nbytes()
            self.live_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
            weakref.finalize(storage, self._free, size, self._start)

    def _free(self, size: int, start: int) -> None:
        if start == self._start:
            self.live_bytes -= size
