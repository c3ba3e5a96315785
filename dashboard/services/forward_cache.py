"""Recent forward passes with their graphs, so that all views and all classes of a photo share one pass."""

from __future__ import annotations

import weakref
from typing import NamedTuple
from weakref import WeakSet

import torch
from PIL import Image

import vizlib
from dashboard.services.byte_cache import ByteCache, count_bytes
from dashboard.services.photo_key import compute_photo_key


class CachedPass(NamedTuple):
    """A forward pass with its graph, and about how many bytes it holds."""

    run: vizlib.Run
    size: int


class ForwardCache:
    """Forward passes by photo and model within a number of bytes, the least recently used evicted first.

    Several threads may take gradients of one run: `Run` serialises them. The passes of a model that is freed are
    evicted, as their graphs would keep its weights in memory.
    """

    def __init__(self, max_bytes: int) -> None:
        self.cache = ByteCache(max_bytes, size=lambda cached: cached.size)
        self._watched: WeakSet[vizlib.Model] = WeakSet()  # models that have a finalizer
        self._too_large: WeakSet[vizlib.Model] = WeakSet()  # models of which a single pass exceeds the cache

    def find_or_run(self, model: vizlib.Model, photo: Image.Image) -> vizlib.Run | None:
        """Return the pass of a photo, run now if it is not cached; `None` for a model whose passes are too large.

        That a pass is too large is known after the first one of a model, which is returned but not cached.
        """
        if model in self._too_large:
            return None
        if model not in self._watched:
            self._watched.add(model)
            number = id(model)
            weakref.finalize(model, self.cache.evict, lambda key: key[1] == number).atexit = False
        cached = self.cache.get((compute_photo_key(photo), id(model)), lambda: record_pass(model, photo))
        if cached.size > self.cache.max_bytes:
            self._too_large.add(model)
        return cached.run


def record_pass(model: vizlib.Model, photo: Image.Image) -> CachedPass:
    """Run one forward pass to be cached, which records all the page shows unasked, and count its bytes."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.module.state_dict().values()}
    saved: dict[int, int] = {}  # address of a storage -> its bytes

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would keep its graph alive, which holds this tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        run = vizlib.run_for_all(model, photo, layers=list_displayed_layers(model))
    return CachedPass(run, sum(saved.values()) + count_bytes([run.activations, run.attention]))


def list_displayed_layers(model: vizlib.Model) -> tuple[str, ...]:
    """Return the layers whose activations a cached forward pass records: those shown before a layer is chosen."""
    first = model.first_convolution
    last = model.cam_layer or next((layer.name for layer in reversed(model.layers) if layer.shape), None)
    return tuple(dict.fromkeys(layer for layer in (*model.stages, first, last) if layer is not None))
