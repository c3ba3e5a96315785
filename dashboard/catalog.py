"""Which models the page offers, and the few that are in memory."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import vizlib
from vizlib.entries import Entry, models
from vizlib.errors import ModelError, did_you_mean

Loader = Callable[[], vizlib.Model]


class Catalog:
    """Models by name, loaded when first asked for; only names on the list are ever handed to a loader.

    `folder` adds the weight files of a folder, `extra` models of your own to the front: name to a function that loads.
    """

    def __init__(
        self,
        entries: Sequence[Entry] | None = None,
        *,
        extra: Mapping[str, Loader] | None = None,
        folder: str | os.PathLike[str] | None = None,
        resident: int = 2,
    ) -> None:
        self._extra, self._folder = dict(extra or {}), folder
        own = [Entry(name, "given", 0.0) for name in self._extra]
        self.entries = tuple(own + list(models(folder) if entries is None else entries))
        self.resident = resident
        self._loaded: OrderedDict[str, vizlib.Model] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """What can be asked for, in the order of the menu."""
        return [entry.name for entry in self.entries]

    def get(self, name: str | None) -> vizlib.Model:
        """The model of this name, loaded if need be; the least recently used one makes room.

        Raises: ModelError for a name that is not on the list, or a download that fails.
        """
        if name not in self.names:
            raise ModelError(f"there is no model {name!r} here; {did_you_mean(str(name), self.names)}")
        with self._lock:  # two visitors who ask for the same model wait for one load
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
                while len(self._loaded) > self.resident:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(name)
            return self._loaded[name]

    def held(self, name: str) -> vizlib.Model:
        """A model that `get` gave before, without waiting: in a fork of this process nobody would open the lock."""
        return self._loaded.get(name) or self._load(name)

    def entry(self, name: str) -> Entry:
        """What is known of a model without loading it."""
        return next(entry for entry in self.entries if entry.name == name)

    def choices(self) -> list[tuple[str, str]]:
        """The rows of the model menu: what a person reads, and the name."""
        return [(_described(entry), entry.name) for entry in self.entries]

    def _load(self, name: str) -> vizlib.Model:
        load = self._extra.get(name)
        return load() if load else vizlib.load(name, checkpoints=self._folder)


def _described(entry: Entry) -> str:
    words = [entry.name]
    if entry.accuracy is not None:
        words.append(f"{entry.accuracy:.1f} %")
    if entry.megabytes:
        size = f"{entry.megabytes:.0f} MB"
        here = f"{size}, downloaded" if entry.source == "downloaded" else size
        words.append(f"downloads {size}" if entry.needs_download else here)
    return " · ".join(words)
