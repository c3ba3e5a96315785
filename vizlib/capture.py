"""Watch one forward pass of a network without touching it: the only file that hooks.

Forward hooks keep each layer's output and hand on a clone, so an in-place follower cannot overwrite what was kept.
They return at once in every thread but the one that opened the block. Fused attention never shows its weights to a
hook, so `scaled_dot_product_attention` and friends are intercepted by a `TorchFunctionMode`, which PyTorch keeps per
thread. Nothing is written to the network: no `.grad`, no flag, no mode.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vizlib.errors import ModelError, did_you_mean

RELU = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax}
RULES = ("guided",)
SOURCE = "_vizlib_source"  # on a recorded tensor beside the graph: the same values, on the graph


class _Rule:
    """The backward rule in force. A ReLU's tensor hook holds this and no more.

    A hook that held the recording would close a circle through the graph, where Python's collector cannot see it: every
    run would stay in memory for good. The lock keeps threads that share one run out of each other's backward pass.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.lock = threading.RLock()

    def on_relu_gradient(self, gradient: Tensor) -> Tensor | None:
        return gradient.clamp(min=0) if self.name == "guided" else None


@dataclass(eq=False)
class Recording:
    """What one forward pass showed: filled while the `watch` block runs, read afterwards."""

    activations: dict[str, Tensor] = field(default_factory=dict)  # layer name -> output; the last call's, if reused
    attention: dict[str, Tensor] = field(default_factory=dict)  # layer name -> softmax weights "batch heads query key"
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # layer name -> output shape without batch axis
    rule: _Rule = field(default_factory=_Rule, repr=False)  # read by tensor hooks during the backward pass
    rules: bool = True  # whether such hooks were set

    @contextlib.contextmanager
    def backward_rule(self, rule: str | None) -> Iterator[None]:
        """Let ReLUs follow another rule in the backward passes of this block.

        `"guided"` lets only positive gradient through a ReLU, besides the ReLU's own mask (Springenberg et al. 2015).
        """
        if rule is not None and rule not in RULES:
            raise ValueError(f"no backward rule {rule!r}; there are {', '.join(RULES)}")
        if rule is not None and not self.rules:
            raise ValueError(f"the pass was watched without rules, so it cannot follow {rule!r}")
        with self.rule.lock:
            before, self.rule.name = self.rule.name, rule
            try:
                yield
            finally:
                self.rule.name = before


@contextlib.contextmanager
def watch(
    module: nn.Module,
    layers: Iterable[str] = (),
    *,
    attention: bool = False,
    shapes: bool = False,
    rules: bool = True,
    silent: Mapping[str, Sequence[int]] | None = None,
) -> Iterator[Recording]:
    """Record what `module` does in this thread while the block runs.

    `layers` are PyTorch's dotted names; their outputs stay on the graph. With `attention` every softmax attention is
    recorded under the name of the module that computed it (`#2` is added to a second one in the same module). With
    `shapes` the shape of every module's output is noted. Without `rules` no backward rule can be chosen afterwards,
    which spares a network without attention a detour at each of its functions. The heads in `silent`, by the name of
    their attention layer, look nowhere: their weights are recorded and then taken for 0; this needs `attention`.

    Raises: ModelError for a layer that does not exist, or that did not run inside the block.
    """
    layers = list(layers)
    modules = dict(module.named_modules())
    for name in layers:
        if name not in modules:
            raise _no_layer(name, modules)
    recording, owner = Recording(rules=rules), threading.get_ident()
    path: list[str] = []  # names of the modules being run, outermost first

    def keep(name: str):
        def hook(_module, _inputs, output):
            if threading.get_ident() != owner:
                return None
            tensor, rebuild = _first_tensor(output)
            if tensor is None:
                raise ModelError(f"layer {name!r} returns {type(output).__name__}, not a tensor, so it cannot be shown")
            recording.activations[name] = tensor
            return rebuild(tensor.clone())

        return hook

    def measure(name: str):
        def hook(_module, _inputs, output):
            tensor, _ = _first_tensor(output)
            if threading.get_ident() == owner and tensor is not None:
                recording.shapes[name] = tuple(tensor.shape[1:])

        return hook

    def enter(name: str):
        def hook(_module, _inputs):
            if threading.get_ident() == owner:
                path.append(name)

        return hook

    def leave(_module, _inputs, _output):
        if threading.get_ident() == owner:
            path.pop()

    with contextlib.ExitStack() as undo:
        if attention:  # only a module with parts can compute attention, so leaves need no name on the path
            for name, part in modules.items():
                if next(part.children(), None) is not None:
                    # First of the pre-hooks: should another one raise, `leave` is called and must find a name to take.
                    undo.callback(part.register_forward_pre_hook(enter(name), prepend=True).remove)
                    undo.callback(part.register_forward_hook(leave, always_call=True).remove)
        if shapes:
            for name, part in modules.items():
                undo.callback(part.register_forward_hook(measure(name)).remove)
        for name in layers:
            undo.callback(modules[name].register_forward_hook(keep(name)).remove)
        if attention or rules:
            undo.enter_context(_Interception(recording, modules, path if attention else None, silent or {}))
        yield recording
    for name in layers:
        if name not in recording.activations:
            raise ModelError(f"layer {name!r} exists but did not run for this photo, so it has no activation")


@contextlib.contextmanager
def count_flops(module: nn.Module) -> Iterator[Counter[str]]:
    """Count this thread's floating-point operations by module while the block runs, by PyTorch's own formulas."""
    flops: Counter[str] = Counter()
    owner, path = threading.get_ident(), []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            output = func(*args, **(kwargs or {}))
            formula = flop_registry.get(func._overloadpacket)
            if formula is not None:
                flops.update(dict.fromkeys(set(path), formula(*args, **(kwargs or {}), out_val=output)))
            return output

    def enter(name: str):
        return lambda _module, _inputs: path.append(name) if threading.get_ident() == owner else None

    def leave(_module, _inputs, _output):
        if threading.get_ident() == owner:
            path.pop()

    with contextlib.ExitStack() as undo:
        for name, part in module.named_modules():
            undo.callback(part.register_forward_pre_hook(enter(name), prepend=True).remove)
            undo.callback(part.register_forward_hook(leave, always_call=True).remove)
        undo.enter_context(Count())
        yield flops


def substitute(module: nn.Module, layer: str, output: Callable[[], Tensor]) -> contextlib.AbstractContextManager[None]:
    """Let a layer hand on what `output` gives instead of its own output, in this thread while the block runs.

    The other may have another batch size: what follows then computes as many answers, and what came before ran once.

    Raises: ModelError for a layer that does not exist.
    """
    return alter(module, layer, lambda _own: output())


@contextlib.contextmanager
def alter(module: nn.Module, layer: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer hand on what `change` makes of its output, in this thread while the block runs.

    Raises: ModelError for a layer that does not exist, or whose output is no tensor.
    """
    modules, owner = dict(module.named_modules()), threading.get_ident()
    if layer not in modules:
        raise _no_layer(layer, modules)

    def hook(_module, _inputs, own):
        if threading.get_ident() != owner:
            return None
        tensor, rebuild = _first_tensor(own)
        if tensor is None:
            raise ModelError(f"layer {layer!r} returns {type(own).__name__}, not a tensor, so it cannot be changed")
        return rebuild(change(tensor))

    handle = modules[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def gradients(score: Tensor, of: Sequence[Tensor], *, keep: bool = True) -> tuple[Tensor, ...]:
    """The gradient of one number with respect to each tensor, in one backward pass; zeros where it depends on none.

    The graph is kept, so that another score can be asked for, unless `keep` is false.
    """
    sources = [getattr(tensor, SOURCE, tensor) for tensor in of]
    asked = [source for source in sources if source.requires_grad]
    found = iter(torch.autograd.grad(score, asked, retain_graph=keep, allow_unused=True) if asked else ())
    answers = [next(found) if source.requires_grad else None for source in sources]
    return tuple(
        torch.zeros_like(tensor) if gradient is None else gradient.view(tensor.shape)
        for tensor, gradient in zip(of, answers, strict=True)
    )


class _Interception(TorchFunctionMode):
    """Sees each torch function this thread calls; makes attention explicit and lets ReLUs obey a backward rule."""

    def __init__(
        self,
        recording: Recording,
        modules: Mapping[str, nn.Module],
        path: list[str] | None,
        silent: Mapping[str, Sequence[int]],
    ) -> None:
        super().__init__()
        self.recording, self.modules, self.path, self.silent = recording, modules, path, silent

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in RELU:
            output = func(*args, **kwargs)
            if self.recording.rules and output.requires_grad:
                output.register_hook(self.recording.rule.on_relu_gradient)
            return output
        if self.path is not None:
            if func is F.scaled_dot_product_attention:
                return self._fused(*args, **kwargs)
            if func is F.multi_head_attention_forward:
                return self._multi_head(func, args, kwargs)
            if func in SOFTMAX and self._inside_attention():
                weights = func(*args, **kwargs)
                return self._record(weights) if weights.ndim == 4 else weights  # "batch heads query key"
        return func(*args, **kwargs)

    def _record(self, weights: Tensor) -> Tensor:
        """Keep the weights, and give those to go on with: the same, but 0 for silent heads."""
        key = self._key()
        self.recording.attention[key] = weights
        return weights.index_fill(1, self._heads(key, weights.shape[1], weights), 0) if key in self.silent else weights

    def _key(self) -> str:
        """The name under which the attention that comes next is recorded."""
        name = self.path[-1] if self.path else ""
        count = 1
        while (key := name if count == 1 else f"{name}#{count}") in self.recording.attention:
            count += 1
        return key

    def _heads(self, key: str, count: int, like: Tensor) -> Tensor:
        if wrong := [head for head in self.silent[key] if not 0 <= head < count]:
            raise ModelError(f"{key} has no head {wrong[0]}; its heads are 0 to {count - 1}")
        return torch.tensor(self.silent[key], dtype=torch.long, device=like.device)

    def _inside_attention(self) -> bool:
        return bool(self.path) and "att" in type(self.modules[self.path[-1]]).__name__.lower()

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
        if key in self.silent:  # its weights cannot be reached, but the projection need not read what it made of them
            args, kwargs = self._unread(key, inspect.signature(func).bind(*args, **kwargs).arguments)
        output, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
        if weights.ndim == 3:  # one photo without a batch axis
            weights = weights.unsqueeze(0)
        # The weights handed out are a view that nothing was computed from: the output was computed from its base.
        setattr(weights, SOURCE, weights._base)
        self.recording.attention[key] = weights
        if not wanted:
            return output, None
        return output, weights.mean(1) if averaged else weights

    def _unread(self, key: str, given: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """The call's arguments, with a projection that reads nothing from the silent heads."""
        projection, count = given["out_proj_weight"], given["num_heads"]  # "width, heads x width of a head"
        parts = projection.unflatten(1, (count, -1)).index_fill(1, self._heads(key, count, projection), 0)
        return (), {**given, "out_proj_weight": parts.flatten(1)}


def _no_layer(name: str, modules: Mapping[str, nn.Module]) -> ModelError:
    return ModelError(f"this model has no layer {name!r}; {did_you_mean(name, [known for known in modules if known])}")


def _first_tensor(output: Any) -> tuple[Tensor | None, Callable[[Tensor], Any]]:
    """The tensor in a layer's output, and how to put another in its place; `None` where there is none."""
    if isinstance(output, Tensor):
        return output, lambda tensor: tensor
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        make: Any = type(output)
        if hasattr(output, "_fields"):  # a namedtuple takes its fields one by one
            return output[0], lambda tensor: make(tensor, *output[1:])
        return output[0], lambda tensor: make([tensor, *output[1:]])
    return None, lambda tensor: tensor
