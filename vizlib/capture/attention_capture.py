"""Compute attention explicitly, so that its weights can be recorded, and set backward rules on ReLUs.

Fused attention never exposes its weights to a hook, so `scaled_dot_product_attention` and related functions are
intercepted with a `TorchFunctionMode`, which PyTorch keeps per thread. The network itself is not changed.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vizlib.core.errors import ModelError

if TYPE_CHECKING:
    from vizlib.capture.recorder import Recording

# Attribute of a recorded tensor that is not on the graph: the tensor with the same values that is.
GRAPH_SOURCE = "_vizlib_source"

RELU_FUNCTIONS = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
ATTENTION_NAMES = ("att", "mhsa", "gpsa")  # parts of the class names of attention modules: "Attention", "E_MHSA"
SOFTMAX_FUNCTIONS = {F.softmax, torch.softmax, Tensor.softmax}


class FunctionInterceptor(TorchFunctionMode):
    """Intercepts this thread's torch functions to record attention weights, and to set backward rules on ReLUs.

    Args:
        recording: Receives the attention weights; its backward rule is set on the ReLUs.
        modules: The network's modules by dotted name.
        module_path: Names of the running modules, outermost first; `None` if attention is not recorded.
        ablated_heads: Attention module -> indices of the heads whose weights are set to 0.
    """

    def __init__(
        self,
        recording: Recording,
        modules: Mapping[str, nn.Module],
        module_path: list[str] | None,
        ablated_heads: Mapping[str, Sequence[int]],
    ) -> None:
        super().__init__()
        self.recording, self.modules = recording, modules
        self.module_path, self.ablated_heads = module_path, ablated_heads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Compute attention explicitly where it is fused, and call any other function unchanged."""
        kwargs = kwargs or {}
        if func in RELU_FUNCTIONS:
            self.recording.num_relus += 1
            output = func(*args, **kwargs)
            if self.recording.rules and output.requires_grad:
                output.register_hook(self.recording.active_rule.on_relu_gradient)
            return output
        if self.module_path is not None:
            if func is F.scaled_dot_product_attention:
                return self._compute_fused(*args, **kwargs)
            if func is F.multi_head_attention_forward:
                return self._compute_multi_head(func, args, kwargs)
            if func in SOFTMAX_FUNCTIONS and self._is_inside_attention():
                weights = func(*args, **kwargs)
                return self._record(weights) if weights.ndim == 4 else weights  # "batch heads query key"
        return func(*args, **kwargs)

    def _record(self, weights: Tensor) -> Tensor:
        """Record attention weights and return those to continue with: the same, but 0 for ablated heads."""
        name = self._next_name()
        self.recording.attention[name] = weights
        if name in self.ablated_heads:
            return weights.index_fill(1, self._ablated_indices(name, weights.shape[1], weights), 0)
        return weights

    def _next_name(self) -> str:
        """Return the name under which the next attention is recorded."""
        module_name = self.module_path[-1] if self.module_path else ""
        count = 1
        while (name := module_name if count == 1 else f"{module_name}#{count}") in self.recording.attention:
            count += 1
        return name

    def _ablated_indices(self, name: str, num_heads: int, like: Tensor) -> Tensor:
        """Return the indices of the ablated heads of one attention."""
        if invalid := [head for head in self.ablated_heads[name] if not 0 <= head < num_heads]:
            raise ModelError(f"{name} has no head {invalid[0]}; its heads are 0 to {num_heads - 1}")
        return torch.tensor(self.ablated_heads[name], dtype=torch.long, device=like.device)

    def _is_inside_attention(self) -> bool:
        """Return whether the running module is an attention module."""
        if not self.module_path:
            return False
        name = type(self.modules[self.module_path[-1]]).__name__.lower()
        return any(part in name for part in ATTENTION_NAMES)

    def _compute_fused(
        self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        """Compute `scaled_dot_product_attention` step by step, as PyTorch's documentation defines it."""
        if query.ndim != 4:  # not "batch heads tokens width", so the weights' axes are unknown
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

    def _compute_multi_head(self, func, args, kwargs):
        """Call `multi_head_attention_forward` with weights per head, and record them."""
        need_weights, average_weights = kwargs.get("need_weights", True), kwargs.get("average_attn_weights", True)
        name = self._next_name()
        if name in self.ablated_heads:  # the weights are out of reach inside, so the projection ignores those heads
            args, kwargs = self._zero_projection(name, inspect.signature(func).bind(*args, **kwargs).arguments)
        output, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
        if weights.ndim == 3:  # one photo without a batch axis
            weights = weights.unsqueeze(0)
        # The returned weights are a view that the output does not depend on: it was computed from the view's base.
        setattr(weights, GRAPH_SOURCE, weights._base)
        self.recording.attention[name] = weights
        if not need_weights:
            return output, None
        return output, weights.mean(1) if average_weights else weights

    def _zero_projection(self, name: str, arguments: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Return the call's arguments with an output projection that ignores the ablated heads."""
        projection, num_heads = arguments["out_proj_weight"], arguments["num_heads"]  # "width, heads x head width"
        per_head = projection.unflatten(1, (num_heads, -1))
        per_head = per_head.index_fill(1, self._ablated_indices(name, num_heads, projection), 0)
        return (), {**arguments, "out_proj_weight": per_head.flatten(1)}
