"""The last photos' passes through a network, so that another class of the same photo costs no forward pass."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import NamedTuple

import torch
from PIL import Image

import vizlib
from dashboard.cache import key_of, size_of


class Held(NamedTuple):
    """A pass with its graph, and about how many bytes it holds."""

    run: vizlib.Run
    size: int


class Runs:
    """Passes by photo and model within a budget of bytes, those not asked for longest forgotten first.

    Several threads may ask for backward passes of one run: `Run` sees to that. A model that leaves the memory takes its
    passes along, as their graphs would keep its weights there.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.held = 0  # bytes
        self._runs: OrderedDict[tuple[str, int], Held] = OrderedDict()
        self._watched: set[int] = set()  # models whose leaving is noticed
        self._lock = threading.RLock()  # a model may leave in any thread, in this one too

    def of(self, model: vizlib.Model, photo: Image.Image) -> vizlib.Run:
        """The pass of this photo, made now if it is not there; one that is larger than the budget is not kept."""
        key = key_of(photo), id(model)
        with self._lock:
            if key in self._runs:
                self._runs.move_to_end(key)
                return self._runs[key].run
        made = measured(model, photo)  # outside the lock: others go on
        with self._lock:
            if made.size <= self.budget and key not in self._runs:
                self._runs[key] = made
                self.held += made.size
                if id(model) not in self._watched:
                    self._watched.add(id(model))
                    weakref.finalize(model, self._forget, id(model)).atexit = False
            while self.held > self.budget:
                self.held -= self._runs.popitem(last=False)[1].size
        return made.run

    def _forget(self, model: int) -> None:
        with self._lock:
            self._watched.discard(model)
            for key in [key for key in self._runs if key[1] == model]:
                self.held -= self._runs.pop(key).size


def measured(model: vizlib.Model, photo: Image.Image) -> Held:
    """One forward pass that holds all that `explain_all` reads, and the bytes of what its graph saved for gradients."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.module.state_dict().values()}
    saved: dict[int, int] = {}  # address of a storage -> its bytes

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        run = vizlib.run_for_all(model, photo)
    return Held(run, sum(saved.values()) + size_of([run.activations, run.attention]))
