"""Attention made explicit and ReLUs that can follow a backward rule, without a change to the network.

Fused attention never shows its weights to a hook, so `scaled_dot_product_attention` and friends are intercepted by a
`TorchFunctionMode`, which PyTorch keeps per thread.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vizlib.capture.recording import GRAPH_SOURCE, Recording
from vizlib.core.errors import ModelError

RELU_FUNCTIONS = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
SOFTMAX_FUNCTIONS = {F.softmax, torch.softmax, Tensor.softmax}


class FunctionInterceptor(TorchFunctionMode):
    """Sees each torch function this thread calls; makes attention explicit and lets ReLUs obey a backward rule."""

    def __init__(
        self,
        recording: Recording,
        modules: Mapping[str, nn.Module],
        path: list[str] | None,
        silent: Mapping[str, Sequence[int]],
    ) -> None:
        super().__init__()
        self.recording, self.modules, self.module_path, self.ablated_heads = recording, modules, path, silent

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in RELU_FUNCTIONS:
            output = func(*args, **kwargs)
            if self.recording.rules and output.requires_grad:
                output.register_hook(self.recording.active_rule.on_relu_gradient)
            return output
        if self.module_path is not None:
            if func is F.scaled_dot_product_attention:
                return self._fused(*args, **kwargs)
            if func is F.multi_head_attention_forward:
                return self._multi_head(func, args, kwargs)
            if func in SOFTMAX_FUNCTIONS and self._inside_attention():
                weights = func(*args, **kwargs)
                return self._record(weights) if weights.ndim == 4 else weights  # "batch heads query key"
        return func(*args, **kwargs)

    def _record(self, weights: Tensor) -> Tensor:
        """Keep the weights, and give those to go on with: the same, but 0 for silent heads."""
        key = self._key()
        self.recording.attention[key] = weights
        return (
            weights.index_fill(1, self._heads(key, weights.shape[1], weights), 0)
            if key in self.ablated_heads
            else weights
        )

    def _key(self) -> str:
        """The name under which the attention that comes next is recorded."""
        name = self.module_path[-1] if self.module_path else ""
        count = 1
        while (key := name if count == 1 else f"{name}#{count}") in self.recording.attention:
            count += 1
        return key

    def _heads(self, key: str, count: int, like: Tensor) -> Tensor:
        if wrong := [head for head in self.ablated_heads[key] if not 0 <= head < count]:
            raise ModelError(f"{key} has no head {wrong[0]}; its heads are 0 to {count - 1}")
        return torch.tensor(self.ablated_heads[key], dtype=torch.long, device=like.device)

    def _inside_attention(self) -> bool:
        return bool(self.module_path) and "att" in type(self.modules[self.module_path[-1]]).__name__.lower()

    def _fused(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        """The definition in PyTorch's documentation of `scaled_dot_product_attention`, step by step."""
        if query.ndim != 4:  # not "batch heads tokens width": nothing we could name
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        scores = (query * scale) @ key.transpose(-2, -1)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        weights = self._record(scores.softmax(-1))
        if dropout_p:
            weights = F.dropout(weights, dropout_p)
        return weights @ value

    def _multi_head(self, func, args, kwargs):
        wanted, averaged = kwargs.get("need_weights", True), kwargs.get("average_attn_weights", True)
        key = self._key()
        if (
            key in self.ablated_heads
        ):  # its weights cannot be reached, but the projection need not read what it made of them
            args, kwargs = self._unread(key, inspect.signature(func).bind(*args, **kwargs).arguments)
        output, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
        if weights.ndim == 3:  # one photo without a batch axis
            weights = weights.unsqueeze(0)
        # The weights handed out are a view that nothing was computed from: the output was computed from its base.
        setattr(weights, GRAPH_SOURCE, weights._base)
        self.recording.attention[key] = weights
        if not wanted:
            return output, None
        return output, weights.mean(1) if averaged else weights

    def _unread(self, key: str, given: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """The call's arguments, with a projection that reads nothing from the silent heads."""
        projection, count = given["out_proj_weight"], given["num_heads"]  # "width, heads x width of a head"
        parts = projection.unflatten(1, (count, -1)).index_fill(1, self._heads(key, count, projection), 0)
        return (), {**given, "out_proj_weight": parts.flatten(1)}
