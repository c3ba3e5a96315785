"""The models that the page offers, and the few that are in memory."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, wait
from weakref import WeakValueDictionary

import vizlib
from dashboard.services.prompted_name import PromptedName, check_page_prompts, get_catalog_name
from vizlib.core.errors import ModelError, suggest_names
from vizlib.models.loading.model_index import ModelEntry, find_timm_model, list_models

Loader = Callable[[], vizlib.Model]
POLL_SECONDS = 0.2  # between two reads of the progress of a download
MAX_PROMPTED = 16  # models with prompts of visitors that are kept; they share the weights of the one in the catalog
CLIP_PREFIXES = ("open_clip/",)  # of names that `load_clip` takes and `load` does not
FIRST_PROMPTS = (  # of a network that has none of its own
    "a photo of a person",
    "a photo of an animal",
    "a photo of a building",
    "a photo of a vehicle",
    "a photo of food",
)


class ModelCatalog:
    """Models by name, loaded when first requested; only names of the list are passed to a loader.

    Args:
        entries: Rows of the menu; by default those of `list_models`.
        extra: Further models, listed first: name -> function that loads one.
        folder: A folder of weight files to offer as well.
        only: Offer nothing but these names, in their order.
        offline: Offer nothing that would need a download.
        any_timm: Accept the name of any timm model of a supported family; for a local server.
        any_model: Accept whatever `vizlib.load` accepts; for a local server.
        resident: Maximum number of models in memory.

    Raises:
        ModelError: For a name in `only` that does not exist, or if no model is left.
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
        given = [ModelEntry(name, "given", 0.0) for name in self._extra]
        self.entries = _select_entries(given + list(list_models(folder) if entries is None else entries), only, offline)
        self.resident, self.any_timm, self.any_model = resident, any_timm, any_model
        self._loaded: OrderedDict[str, vizlib.Model] = OrderedDict()
        self._prompted: OrderedDict[str, tuple[vizlib.Model, vizlib.Model]] = OrderedDict()  # with that without prompts
        self._last_used: dict[str, float] = {}  # name -> time of the last request
        self._downloads: dict[str, tuple[int, int]] = {}  # name -> downloaded and total bytes
        self._lock = threading.Lock()  # of the tables; never held while a model loads
        self._loading: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()  # by name, while in use

    @property
    def names(self) -> list[str]:
        """The names of the models in the menu, in its order."""
        return [entry.name for entry in self.entries]

    def get(self, name: str | None) -> vizlib.Model:
        """Return a model by name, loaded if necessary; the least recently used one is unloaded to make room.

        Args:
            name: Name in the catalog, or that of a model with prompts (`PromptedName`).

        Raises:
            ModelError: For a name that is not offered, a download that fails, or prompts for a model without text.
            TargetError: For prompts that cannot be used.
        """
        if isinstance(name, str) and (prompted := PromptedName.parse(name)).prompts:
            return self._get_prompted(prompted)
        name = self._check_name(name)
        model = self._find_loaded(name)
        if model is not None:
            return model
        with self._lock:
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:  # threads that request the same model wait for one load
            return self._find_loaded(name) or self._keep(name, self._load(name))

    def load_with_progress(self, name: str | None) -> Generator[tuple[int, int], None, None]:
        """Load a model as `get` does, and yield the downloaded and total bytes whenever they change.

        The download continues when the iteration is abandoned; the next request waits for it.

        Raises:
            ModelError: As `get`.
        """
        name = get_catalog_name(name) if isinstance(name, str) else name
        if name in self._loaded:
            return
        loaded: Future[vizlib.Model] = Future()

        def load() -> None:
            try:
                loaded.set_result(self.get(name))
            except BaseException as error:  # raised below, in the thread that waits
                loaded.set_exception(error)

        threading.Thread(target=load, daemon=True).start()
        last = None
        while not wait([loaded], POLL_SECONDS).done:
            progress = self._downloads.get(str(name))
            if progress and progress != last:
                yield (last := progress)
        loaded.result()

    def get_loaded(self, name: str) -> vizlib.Model:
        """Return a model that `get` returned before, without a lock: in a fork of this process it may stay locked."""
        if name in self._prompted:
            return self._prompted[name][0]
        prompted = PromptedName.parse(name)
        model = self._loaded.get(prompted.model) or self._load(prompted.model)
        return model.with_prompts(check_page_prompts(prompted.prompts)) if prompted.prompts else model

    def unload_idle(self, seconds: float) -> None:
        """Unload the models that were not requested for so many seconds."""
        since = time.monotonic() - seconds
        with self._lock:
            for name in [name for name in self._loaded if self._last_used[name] < since]:
                del self._loaded[name]
            self._forget_prompted()

    def count_bytes(self) -> dict[str, int]:
        """Return the bytes of the weights of each model in memory."""
        return {
            name: sum(weight.nbytes for weight in model.module.state_dict().values())
            for name, model in list(self._loaded.items())
        }

    def get_entry(self, name: str) -> ModelEntry:
        """Return what the index states of a model, without loading it.

        Raises:
            ModelError: For a name that is not offered.
        """
        name = get_catalog_name(str(name))
        listed = next((entry for entry in self.entries if entry.name == name), None)
        if listed or self.any_model:
            return listed or ModelEntry(name, "given", 0.0)
        return find_timm_model(self._check_name(name))

    @property
    def accepts_typed_names(self) -> bool:
        """Whether names of models outside the menu are accepted."""
        return self.any_timm or self.any_model

    def is_linkable(self, name: str) -> bool:
        """Return whether a URL may select a model: a link never starts the download of an unlisted one."""
        try:
            return name in self.names or (self.any_timm and not find_timm_model(name).needs_download)
        except ModelError:
            return False

    def list_menu_rows(self) -> list[tuple[str, str]]:
        """Return the rows of the model menu: text and name."""
        return [(_format_menu_row(entry), entry.name) for entry in self.entries]

    def _check_name(self, name: str | None) -> str:
        """Return a name that is offered; raise a ModelError for any other."""
        if isinstance(name, str) and (name in self.names or name in self._loaded or (self.any_model and name)):
            return name
        if isinstance(name, str) and self.any_timm:
            return find_timm_model(name, self.names).name
        raise ModelError(f"there is no model {name!r} here; {suggest_names(str(name), self.names)}")

    def _find_loaded(self, name: str) -> vizlib.Model | None:
        """Return a model that is in memory, or `None`."""
        with self._lock:
            model = self._loaded.get(name)
            return model and self._mark_used(name, model)

    def _keep(self, name: str, model: vizlib.Model) -> vizlib.Model:
        """Keep a loaded model in memory, and unload the least recently used one where there are too many."""
        with self._lock:
            while len(self._loaded) >= self.resident:
                self._loaded.popitem(last=False)
            self._forget_prompted()
            return self._mark_used(name, model)

    def _get_prompted(self, name: PromptedName) -> vizlib.Model:
        """Return a model with prompts of a visitor."""
        model, key = self.get(name.model), str(name)
        with self._lock:
            found = self._prompted.get(key)
            if found is not None and found[1] is model:
                self._prompted.move_to_end(key)
                return found[0]
        prompted = model.with_prompts(check_page_prompts(name.prompts))
        with self._lock:
            self._prompted[key] = prompted, model
            while len(self._prompted) > MAX_PROMPTED:
                self._prompted.popitem(last=False)
        return prompted

    def _forget_prompted(self) -> None:
        """Forget the models with prompts whose network is no longer in memory; the lock is held."""
        loaded = list(self._loaded.values())
        for key, (_, model) in list(self._prompted.items()):
            if not any(model is other for other in loaded):
                del self._prompted[key]

    def _mark_used(self, name: str, model: vizlib.Model) -> vizlib.Model:
        """Note that a model in memory was requested now, and return it."""
        self._loaded[name] = model
        self._loaded.move_to_end(name)
        self._last_used[name] = time.monotonic()
        return model

    def _load(self, name: str) -> vizlib.Model:
        """Load a model of the catalog and return it."""
        load = self._extra.get(name)
        path = next((entry.path for entry in self.entries if entry.name == name), None)
        if path is not None and not path.is_file():
            raise ModelError(f"the weight file of {name} is no longer there; please choose another model")
        if load:
            return load()

        def record_progress(done: int, total: int) -> None:
            self._downloads[name] = done, total

        if name.startswith(CLIP_PREFIXES):
            clip = vizlib.load_clip(name)
            return clip.with_prompts(clip.default_prompts or FIRST_PROMPTS)
        try:
            return vizlib.load(name, checkpoints=self._folder, progress=record_progress)
        finally:
            self._downloads.pop(name, None)


def _select_entries(entries: Sequence[ModelEntry], only: Sequence[str], offline: bool) -> tuple[ModelEntry, ...]:
    """Return the entries of the catalog to offer, in the order of `only` if it is given; of one name the first."""
    available: dict[str, ModelEntry] = {}
    for entry in entries:
        if not (offline and entry.needs_download):
            available.setdefault(entry.name, entry)
    for name in only:
        if name not in available:
            raise ModelError(f"there is no model {name!r} to offer; {suggest_names(name, list(available))}")
    if entries and not available:
        raise ModelError("no model is on this machine, and nothing may be downloaded")
    return tuple(available[name] for name in only or available)


def _format_menu_row(entry: ModelEntry) -> str:
    """Return the text of a model of the catalog in the model menu."""
    parts = [entry.name]
    if entry.accuracy is not None:
        parts.append(f"{entry.accuracy:.1f} %")
    if entry.size_mb:
        size = f"{entry.size_mb:.0f} MB"
        local = f"{size}, downloaded" if entry.source == "downloaded" else size
        parts.append(f"downloads {size}" if entry.needs_download else local)
    return " · ".join(parts)
