"""Activations and attention of one forward pass, kept by hooks that live as long as a block.

Forward hooks keep each layer's output and hand on a clone, so an in-place follower cannot overwrite what was kept.
They return at once in every thread but the one that opened the block.
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
            raise unknown_layer_error(name, modules)
    recording, owner = Recording(rules=rules), threading.get_ident()
    path: list[str] = []  # names of the modules being run, outermost first

    def keep(name: str):
        def hook(_module, _inputs, output):
            if threading.get_ident() != owner:
                return None
            tensor, rebuild = unpack_first_tensor(output)
            if tensor is None:
                raise ModelError(f"layer {name!r} returns {type(output).__name__}, not a tensor, so it cannot be shown")
            recording.activations[name] = tensor
            return rebuild(tensor.clone())

        return hook

    def measure(name: str):
        def hook(_module, _inputs, output):
            tensor, _ = unpack_first_tensor(output)
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
            undo.enter_context(
                FunctionInterceptor(recording, modules, path if attention else None, ablated_heads or {})
            )
        yield recording
    for name in layers:
        if name not in recording.activations:
            raise ModelError(f"layer {name!r} exists but did not run for this photo, so it has no activation")
