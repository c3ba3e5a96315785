"""Which models the page offers, and the few that are in memory."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from weakref import WeakValueDictionary

import vizlib
from vizlib.core.errors import ModelError, suggest_names
from vizlib.models.loading.model_index import ModelEntry, find_timm_model, list_models

Loader = Callable[[], vizlib.Model]
POLL_SECONDS = 0.2  # seconds between two looks at how far a download is


class ModelCatalog:
    """Models by name, loaded when first asked for; only names on the list are ever handed to a loader.

    `folder` adds the weight files of a folder, `extra` models of your own to the front: name to a function that loads.
    `only` offers nothing but these names, `offline` nothing that would be downloaded. For a server of one's own: with
    `any_timm` the name of any ResNet or transformer of timm's may be typed, with `any_model` whatever `vizlib.load`
    takes.

    Raises: ModelError for a name in `only` that there is not, or where nothing is left.
    """

    def __init__(
        self,
        entries: Sequence[ModelEntry] | None = None,
        *,
        extra: Mapping[str, Loader] | None = None,
        folder: str | os.PathLike[str] | None = None,
        only: Sequence[str] = (),
        offline: bool = False,
        any_timm: bool = False,
        any_model: bool = False,
        resident: int = 2,
    ) -> None:
        self._extra, self._folder = dict(extra or {}), folder
        own = [ModelEntry(name, "given", 0.0) for name in self._extra]
        self.entries = _offered(own + list(list_models(folder) if entries is None else entries), only, offline)
        self.resident, self.any_timm, self.any_model = resident, any_timm, any_model
        self._loaded: OrderedDict[str, vizlib.Model] = OrderedDict()
        self._asked: dict[str, float] = {}  # name to when it was last asked for
        self._coming: dict[str, tuple[int, int]] = {}  # name to the bytes of its download that have come, and in all
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
        name = self._checked(name)
        model = self._resident(name)
        if model is not None:
            return model
        with self._lock:
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:  # who asks for the same model waits for one load, who asks for another does not
            return self._resident(name) or self._kept(name, self._load(name))

    def fetch(self, name: str | None) -> Iterator[tuple[int, int]]:
        """Load a model as `get` does, telling meanwhile how many bytes of a download have come, and of how many.

        The download goes on if nobody listens any more: the next who asks for it will be glad.

        Raises: ModelError as `get` does.
        """
        if name in self._loaded:
            return
        loaded: Future[vizlib.Model] = Future()

        def load() -> None:
            try:
                loaded.set_result(self.get(name))
            except BaseException as error:  # handed to whoever waits
                loaded.set_exception(error)

        threading.Thread(target=load, daemon=True).start()
        told = None
        while not wait([loaded], POLL_SECONDS).done:
            come = self._coming.get(str(name))
            if come and come != told:
                yield (told := come)
        loaded.result()

    def get_loaded(self, name: str) -> vizlib.Model:
        """A model that `get` gave before, without waiting: in a fork of this process nobody would open the lock."""
        return self._loaded.get(name) or self._load(name)

    def unload_idle(self, seconds: float) -> None:
        """Let go of models that nobody asked for in so many seconds."""
        since = time.monotonic() - seconds
        with self._lock:
            for name in [name for name in self._loaded if self._asked[name] < since]:
                del self._loaded[name]

    def count_bytes(self) -> dict[str, int]:
        """The models in memory and the bytes of their weights."""
        return {
            name: sum(weight.nbytes for weight in model.module.state_dict().values())
            for name, model in list(self._loaded.items())
        }

    def get_entry(self, name: str) -> ModelEntry:
        """What is known of a model without loading it. Raises: ModelError for one that may not be asked for."""
        listed = next((entry for entry in self.entries if entry.name == name), None)
        if listed or self.any_model:
            return listed or ModelEntry(name, "given", 0.0)
        return find_timm_model(self._checked(name))

    @property
    def accepts_typed_names(self) -> bool:
        """Whether more names may be asked for than the menu has."""
        return self.any_timm or self.any_model

    def is_linkable(self, name: str) -> bool:
        """Whether a link may ask for a model: nobody's link makes a server download what is on no list."""
        try:
            return name in self.names or (self.any_timm and not find_timm_model(name).needs_download)
        except ModelError:
            return False

    def menu_rows(self) -> list[tuple[str, str]]:
        """The rows of the model menu: what a person reads, and the name."""
        return [(_described(entry), entry.name) for entry in self.entries]

    def _checked(self, name: str | None) -> str:
        """The name, if it may be asked for."""
        if isinstance(name, str) and (name in self.names or name in self._loaded or (self.any_model and name)):
            return name
        if isinstance(name, str) and self.any_timm:
            return find_timm_model(name, self.names).name
        raise ModelError(f"there is no model {name!r} here; {suggest_names(str(name), self.names)}")

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
        if load:
            return load()

        def come(here: int, total: int) -> None:
            self._coming[name] = here, total

        try:
            return vizlib.load(name, checkpoints=self._folder, progress=come)
        finally:
            self._coming.pop(name, None)


def _offered(entries: Sequence[ModelEntry], only: Sequence[str], offline: bool) -> tuple[ModelEntry, ...]:
    """Those of the entries that are to be offered, in the order they are asked for."""
    there = {entry.name: entry for entry in entries if not (offline and entry.needs_download)}
    for name in only:
        if name not in there:
            raise ModelError(f"there is no model {name!r} to offer; {suggest_names(name, list(there))}")
    if entries and not there:
        raise ModelError("no model is on this machine, and nothing may be downloaded")
    return tuple(there[name] for name in only or there)


def _described(entry: ModelEntry) -> str:
    words = [entry.name]
    if entry.accuracy is not None:
        words.append(f"{entry.accuracy:.1f} %")
    if entry.size_mb:
        size = f"{entry.size_mb:.0f} MB"
        here = f"{size}, downloaded" if entry.source == "downloaded" else size
        words.append(f"downloads {size}" if entry.needs_download else here)
    return " · ".join(words)
