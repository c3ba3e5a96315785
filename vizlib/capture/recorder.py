"""Record activations, attention weights and output shapes of a forward pass with hooks.

A forward hook keeps a layer's output and passes on a clone, so that a following in-place operation cannot overwrite the
recorded values. Hooks return at once in every thread except the one that opened the block.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import nn

from vizlib.capture.attention_capture import FunctionInterceptor
from vizlib.capture.module_output import unknown_layer_error, unpack_first_tensor
from vizlib.capture.recording import Recording
from vizlib.core.errors import ModelError


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
    module_path: list[str] = []  # names of the modules that are running, outermost first

    def make_activation_hook(name: str):
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
        def hook(_module, _inputs, output):
            tensor, _ = unpack_first_tensor(output)
            if threading.get_ident() == owner and tensor is not None:
                recording.shapes[name] = tuple(tensor.shape[1:])

        return hook

    def make_push_hook(name: str):
        def hook(_module, _inputs):
            if threading.get_ident() == owner:
                module_path.append(name)

        return hook

    def pop_hook(_module, _inputs, _output):
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
