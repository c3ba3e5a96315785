"""Which models the page offers, and the few that are in memory."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakValueDictionary

import vizlib
from vizlib.entries import Entry, models
from vizlib.errors import ModelError, did_you_mean

Loader = Callable[[], vizlib.Model]


class Catalog:
    """Models by name, loaded when first asked for; only names on the list are ever handed to a loader.

    `folder` adds the weight files of a folder, `extra` models of your own to the front: name to a function that loads.
    `only` offers nothing but these names, `offline` nothing that would be downloaded; with `any_model`, for a server
    of one's own, whatever `vizlib.load` takes may be asked for.

    Raises: ModelError for a name in `only` that there is not, or where nothing is left.
    """

    def __init__(
        self,
        entries: Sequence[Entry] | None = None,
        *,
        extra: Mapping[str, Loader] | None = None,
        folder: str | os.PathLike[str] | None = None,
        only: Sequence[str] = (),
        offline: bool = False,
        any_model: bool = False,
        resident: int = 2,
    ) -> None:
        self._extra, self._folder = dict(extra or {}), folder
        own = [Entry(name, "given", 0.0) for name in self._extra]
        self.entries = _offered(own + list(models(folder) if entries is None else entries), only, offline)
        self.resident, self.any_model = resident, any_model
        self._loaded: OrderedDict[str, vizlib.Model] = OrderedDict()
        self._asked: dict[str, float] = {}  # name to when it was last asked for
        self._lock = threading.Lock()  # of the tables, held for a moment only
        self._loading: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()  # by name, while any waits

    @property
    def names(self) -> list[str]:
        """What can be asked for, in the order of the menu."""
        return [entry.name for entry in self.entries]

    def get(self, name: str | None) -> vizlib.Model:
        """The model of this name, loaded if need be; the least recently used one makes room.

        Raises: ModelError for a name that is not on the list, or a download that fails.
        """
        if name not in self.names and not (self.any_model and name):
            raise ModelError(f"there is no model {name!r} here; {did_you_mean(str(name), self.names)}")
        assert name is not None
        model = self._resident(name)
        if model is not None:
            return model
        with self._lock:
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:  # who asks for the same model waits for one load, who asks for another does not
            return self._resident(name) or self._kept(name, self._load(name))

    def held(self, name: str) -> vizlib.Model:
        """A model that `get` gave before, without waiting: in a fork of this process nobody would open the lock."""
        return self._loaded.get(name) or self._load(name)

    def free_idle(self, seconds: float) -> None:
        """Let go of models that nobody asked for in so many seconds."""
        since = time.monotonic() - seconds
        with self._lock:
            for name in [name for name in self._loaded if self._asked[name] < since]:
                del self._loaded[name]

    def memory(self) -> dict[str, int]:
        """The models in memory and the bytes of their weights."""
        return {
            name: sum(weight.nbytes for weight in model.module.state_dict().values())
            for name, model in list(self._loaded.items())
        }

    def entry(self, name: str) -> Entry:
        """What is known of a model without loading it."""
        return next(entry for entry in self.entries if entry.name == name)

    def choices(self) -> list[tuple[str, str]]:
        """The rows of the model menu: what a person reads, and the name."""
        return [(_described(entry), entry.name) for entry in self.entries]

    def _resident(self, name: str) -> vizlib.Model | None:
        with self._lock:
            model = self._loaded.get(name)
            return model and self._touched(name, model)

    def _kept(self, name: str, model: vizlib.Model) -> vizlib.Model:
        with self._lock:
            while len(self._loaded) >= self.resident:
                self._loaded.popitem(last=False)
            return self._touched(name, model)

    def _touched(self, name: str, model: vizlib.Model) -> vizlib.Model:
        self._loaded[name] = model
        self._loaded.move_to_end(name)
        self._asked[name] = time.monotonic()
        return model

    def _load(self, name: str) -> vizlib.Model:
        load = self._extra.get(name)
        path = next((entry.path for entry in self.entries if entry.name == name), None)
        if path is not None and not path.is_file():
            raise ModelError(f"the weight file of {name} is no longer there; please choose another model")
        return load() if load else vizlib.load(name, checkpoints=self._folder)


def _offered(entries: Sequence[Entry], only: Sequence[str], offline: bool) -> tuple[Entry, ...]:
    """Those of the entries that are to be offered, in the order they are asked for."""
    there = {entry.name: entry for entry in entries if not (offline and entry.needs_download)}
    for name in only:
        if name not in there:
            raise ModelError(f"there is no model {name!r} to offer; {did_you_mean(name, list(there))}")
    if entries and not there:
        raise ModelError("no model is on this machine, and nothing may be downloaded")
    return tuple(there[name] for name in only or there)


def _described(entry: Entry) -> str:
    words = [entry.name]
    if entry.accuracy is not None:
        words.append(f"{entry.accuracy:.1f} %")
    if entry.megabytes:
        size = f"{entry.megabytes:.0f} MB"
        here = f"{size}, downloaded" if entry.source == "downloaded" else size
        words.append(f"downloads {size}" if entry.needs_download else here)
    return " · ".join(words)
