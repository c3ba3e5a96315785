"""Record activations, attention weights and output shapes of a forward pass with hooks, and compute gradients of it.

A forward hook keeps a layer's output and passes on a clone, so that a following in-place operation cannot overwrite the
recorded values. Hooks return at once in every thread except the one that opened the block.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from vizlib.capture.attention_capture import GRAPH_SOURCE, FunctionInterceptor
from vizlib.core.errors import MethodError, ModelError, suggest_names

BACKWARD_RULES = ("guided",)
NO_GRADIENT = (
    "the score has no gradient where the method reads it: the network cuts the path from the image (no_grad, detach, "
    "integer arithmetic), or does not use the layer; occlusion and rise need no gradient"
)


class BackwardRule:
    """The backward rule of a recorded pass that is in force, read by the tensor hooks of the ReLUs.

    A ReLU's tensor hook holds only this object. A hook that held the whole recording would create a reference cycle
    through the autograd graph, which Python's garbage collector cannot see: no run would ever be freed. The lock keeps
    threads that share one run out of each other's backward pass.

    Attributes:
        name: One of `BACKWARD_RULES`, or `None` for ordinary backpropagation.
        lock: Held during a backward pass.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.lock: contextlib.AbstractContextManager[object] = threading.RLock()

    def on_relu_gradient(self, gradient: Tensor) -> Tensor | None:
        """Return the gradient at a recorded ReLU's output under the rule in force; `None` leaves it unchanged."""
        return gradient.clamp(min=0) if self.name == "guided" else None


@dataclass(eq=False)
class Recording:
    """What was recorded of one forward pass: filled while the `record_pass` block runs, read afterwards.

    Attributes:
        activations: Layer name -> output, on the graph; the last call's output if the layer runs several times.
        attention: Name of the attention module -> softmax weights "batch heads query key".
        num_relus: How many ReLUs ran, those called as functions included; counted with `rules` or `attention`.
        shapes: Layer name -> output shape without the batch axis, in the order in which the layers first finish.
        runs: Layer name -> how many outputs it computed for each input: its calls times the rows of its last output.
        active_rule: The backward rule, read by tensor hooks during the backward pass.
        rules: Whether such tensor hooks were set.
    """

    activations: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[str, Tensor] = field(default_factory=dict)
    num_relus: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    active_rule: BackwardRule = field(default_factory=BackwardRule, repr=False)
    rules: bool = True

    @contextlib.contextmanager
    def backward_rule(self, rule: str | None) -> Iterator[None]:
        """Apply a backward rule to the ReLUs in the backward passes of this block.

        Args:
            rule: `"guided"` lets only positive gradients through a ReLU, in addition to the ReLU's own mask; `None` is
                ordinary backpropagation.

        Raises:
            ValueError: For an unknown rule, or a pass that was recorded without rules.

        References:
            Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for simplicity: the all convolutional net, ICLR
            workshop 2015, arXiv:1412.6806.
        """
        if rule is not None and rule not in BACKWARD_RULES:
            raise ValueError(f"no backward rule {rule!r}; there are {', '.join(BACKWARD_RULES)}")
        if rule is not None and not self.rules:
            raise ValueError(f"the pass was recorded without rules, so it cannot follow {rule!r}")
        with self.active_rule.lock:
            previous, self.active_rule.name = self.active_rule.name, rule
            try:
                yield
            finally:
                self.active_rule.name = previous

    def compute_gradients(
        self, score: Callable[[], Tensor], tensors: Sequence[Tensor], rule: str | None = None
    ) -> tuple[Tensor, ...]:
        """Return the gradient of a score with respect to each recorded tensor, from one backward pass.

        The graph is kept, so that gradients of another score need no second forward pass.

        Args:
            score: Function that computes a scalar from the outputs of the pass.
            tensors: Recorded tensors or inputs of the pass.
            rule: Backward rule of the ReLUs, as in `backward_rule`.

        Returns:
            One gradient per tensor, in its shape; zeros where the score does not depend on it.
        """
        with self.backward_rule(rule), torch.inference_mode(False), torch.enable_grad():
            return compute_gradients(score(), tensors)


def compute_gradients(score: Tensor, tensors: Sequence[Tensor], *, retain_graph: bool = True) -> tuple[Tensor, ...]:
    """Return the gradient of a scalar with respect to each recorded tensor, from one backward pass.

    Args:
        score: A tensor with one element.
        tensors: Recorded tensors or inputs of the pass.
        retain_graph: Keep the graph, so that gradients of another score can be computed.

    Returns:
        One gradient per tensor, in its shape; zeros where the score does not depend on it.

    Raises:
        MethodError: If the score depends on none of the tensors by differentiable operations.
        ModelError: If the network checkpoints its gradients.
    """
    sources = [getattr(tensor, GRAPH_SOURCE, tensor) for tensor in tensors]
    on_graph = [source for source in sources if source.requires_grad]
    if not score.requires_grad:
        raise MethodError(NO_GRADIENT)
    try:
        computed = iter(
            torch.autograd.grad(score, on_graph, retain_graph=retain_graph, allow_unused=True) if on_graph else ()
        )
    except RuntimeError as error:
        if isinstance(error, CheckpointError) or "torch.utils.checkpoint" in str(error):
            raise ModelError(
                "the network recomputes its activations during the backward pass (gradient checkpointing), where "
                "nothing can be recorded; turn checkpointing off, as with set_grad_checkpointing(False)"
            ) from error
        raise
    gradients = [next(computed) if source.requires_grad else None for source in sources]
    if all(gradient is None for gradient in gradients):
        raise MethodError(NO_GRADIENT)
    return tuple(
        torch.zeros_like(tensor) if gradient is None else gradient.view(tensor.shape)
        for tensor, gradient in zip(tensors, gradients, strict=True)
    )


@contextlib.contextmanager
def record_pass(
    module: nn.Module,
    layers: Iterable[str] = (),
    *,
    attention: bool = False,
    shapes: bool = False,
    rules: bool = True,
    ablated_heads: Mapping[str, Sequence[int]] | None = None,
) -> Iterator[Recording]:
    """Record the forward pass of `module` that this thread runs inside the block.

    Args:
        module: The module that will be run (not a copy of it: copies have their own hooks).
        layers: PyTorch's dotted names of the layers whose output is recorded; the outputs stay on the graph.
        attention: Record the softmax weights of every attention under the name of the module that computed them (`#2`
            is appended for the second one in the same module).
        shapes: Record the output shape of every module.
        rules: Allow a backward rule to be chosen afterwards. Without it, a network without attention skips the
            interception of every torch function.
        ablated_heads: Attention module -> indices of the heads whose weights are recorded and then set to 0; requires
            `attention`.

    Yields:
        The recording, complete after the pass.

    Raises:
        ModelError: For a layer that does not exist, or that did not run inside the block.
    """
    layers = list(layers)
    modules = dict(module.named_modules())
    for name in layers:
        if name not in modules:
            raise unknown_layer_error(name, modules)
    recording, owner = Recording(rules=rules), threading.get_ident()
    calls: Counter[str] = Counter()
    module_path: list[str] = []  # names of the modules that are running, outermost first

    def make_activation_hook(name: str):
        """Return the hook that records the output of a layer."""

        def hook(_module, _inputs, output):
            if threading.get_ident() != owner:
                return None
            tensor, rebuild = unpack_first_tensor(output)
            if tensor is None:
                raise ModelError(f"layer {name!r} returns {type(output).__name__}, not a tensor, so it cannot be shown")
            recording.activations[name] = tensor
            return rebuild(tensor.clone())

        return hook

    def make_shape_hook(name: str):
        """Return the hook that records the shape of a layer's output."""

        def hook(_module, _inputs, output):
            tensor, _ = unpack_first_tensor(output)
            if threading.get_ident() == owner and tensor is not None:
                recording.shapes[name] = tuple(tensor.shape[1:])
                calls[name] += 1
                recording.runs[name] = calls[name] * (len(tensor) if tensor.ndim else 1)

        return hook

    def make_push_hook(name: str):
        """Return the hook that notes, while attention is recorded, that a module starts to run."""

        def hook(_module, _inputs):
            if threading.get_ident() == owner:
                module_path.append(name)

        return hook

    def pop_hook(_module, _inputs, _output):
        """Note, while attention is recorded, that the innermost module has run."""
        if threading.get_ident() == owner:
            module_path.pop()

    with contextlib.ExitStack() as cleanup:
        if attention:  # only a module with submodules can compute attention, so leaves need no entry on the path
            for name, submodule in modules.items():
                if next(submodule.children(), None) is not None:
                    # First among the pre-hooks: if another one raises, `pop_hook` still runs and needs a name to pop.
                    cleanup.callback(submodule.register_forward_pre_hook(make_push_hook(name), prepend=True).remove)
                    cleanup.callback(submodule.register_forward_hook(pop_hook, always_call=True).remove)
        if shapes:
            for name, submodule in modules.items():
                cleanup.callback(submodule.register_forward_hook(make_shape_hook(name)).remove)
        for name in layers:
            cleanup.callback(modules[name].register_forward_hook(make_activation_hook(name)).remove)
        if attention or rules:
            path = module_path if attention else None
            cleanup.enter_context(FunctionInterceptor(recording, modules, path, ablated_heads or {}))
        yield recording
    for name in layers:
        if name not in recording.activations:
            raise ModelError(f"layer {name!r} exists but did not run for this photo, so it has no activation")


def unknown_layer_error(name: str, modules: Mapping[str, nn.Module]) -> ModelError:
    """Return the error for a layer to be recorded that does not exist, with the closest existing names."""
    return ModelError(f"this model has no layer {name!r}; {suggest_names(name, [known for known in modules if known])}")


def unpack_first_tensor(output: Any) -> tuple[Tensor | None, Callable[[Tensor], Any]]:
    """Return the tensor to be recorded of a layer's output, its first, and a function that puts another in its place.

    Args:
        output: A tensor, or a tuple, namedtuple or list whose first item is a tensor.

    Returns:
        The tensor (`None` if there is none) and the rebuilding function, which keeps the container and its other items.
    """
    if isinstance(output, Tensor):
        return output, lambda tensor: tensor
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        make: Any = type(output)
        if hasattr(output, "_fields"):  # a namedtuple takes its fields one by one
            return output[0], lambda tensor: make(tensor, *output[1:])
        return output[0], lambda tensor: make([tensor, *output[1:]])
    return None, lambda tensor: tensor
