"""The last photos' passes through a network, so that another class of the same photo costs no forward pass."""

from __future__ import annotations

import weakref
from typing import NamedTuple
from weakref import WeakSet

import torch
from PIL import Image

import vizlib
from dashboard.services.byte_cache import ByteCache, count_bytes, photo_key


class CachedPass(NamedTuple):
    """A pass with its graph, and about how many bytes it holds."""

    run: vizlib.Run
    size: int


class ForwardCache:
    """Passes by photo and model within a budget of bytes, those not asked for longest forgotten first.

    Several threads may ask for backward passes of one run: `Run` sees to that. A model that leaves the memory takes its
    passes along, as their graphs would keep its weights there.
    """

    def __init__(self, budget: int) -> None:
        self.cache = ByteCache(budget, size=lambda held: held.size)
        self._watched: WeakSet[vizlib.Model] = WeakSet()  # models whose leaving is noticed

    def get_run(self, model: vizlib.Model, photo: Image.Image) -> vizlib.Run:
        """The pass of this photo, made now if it is not there; one that is larger than the budget is not kept."""
        if model not in self._watched:
            self._watched.add(model)
            number = id(model)
            weakref.finalize(model, self.cache.evict, lambda key: key[1] == number).atexit = False
        return self.cache.get((photo_key(photo), id(model)), lambda: record_pass(model, photo)).run


def record_pass(model: vizlib.Model, photo: Image.Image) -> CachedPass:
    """One forward pass that holds all that `explain_all` reads, and the bytes of what its graph saved for gradients."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.module.state_dict().values()}
    saved: dict[int, int] = {}  # address of a storage -> its bytes

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself, with the graph it belongs to, would keep that graph alive for ever

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        run = vizlib.run_for_all(model, photo)
    return CachedPass(run, sum(saved.values()) + count_bytes([run.activations, run.attention]))
