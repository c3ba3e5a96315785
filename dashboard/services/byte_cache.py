"""Recently computed results within a number of bytes, shared by all visitors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from cachetools import LRUCache
from PIL import Image
from torch import Tensor

T = TypeVar("T")


class _Entry(NamedTuple):
    """A cached result and how many bytes it holds."""

    result: Any
    size: int


class ByteCache:
    """Results by key, the least recently used evicted first; concurrent requests for one key compute it once.

    A key holds all that a result depends on, so results of different visitors are never mixed up.

    >>> cache = ByteCache(1000)
    >>> cache.get(("photo", "model"), lambda: "computed once")
    'computed once'
    """

    def __init__(self, max_bytes: int, size: Callable[[Any], int] | None = None) -> None:
        """Make an empty cache.

        Args:
            max_bytes: Maximum bytes of all results together; a larger result is returned but not cached.
            size: Returns the bytes of a result; by default those of its tensors, arrays, pictures and text.
        """
        self.hits = self.misses = 0
        self._count_bytes = size or count_bytes
        self._results: LRUCache[Hashable, _Entry] = LRUCache(max_bytes, getsizeof=lambda entry: entry.size)
        self._running: dict[Hashable, Future] = {}
        self._lock = threading.RLock()  # garbage collection under the lock may evict passes of a freed model

    @property
    def max_bytes(self) -> int:
        """Maximum bytes of all cached results together."""
        return int(self._results.maxsize)

    @property
    def held_bytes(self) -> int:
        """Bytes of all cached results together."""
        return int(self._results.currsize)

    def find(self, key: Hashable) -> Any:
        """Return the cached result of a key, or `None` where there is none."""
        with self._lock:
            entry = self._results.get(key)
        return entry and entry.result

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the cached result of a key, computed now if there is none.

        While another thread computes it, its result is awaited. Should that fail, the other thread gets the exception,
        and a waiting one computes the result itself.
        """
        while True:
            with self._lock:
                entry = self._results.get(key)
                if entry is not None:
                    self.hits += 1
                    return entry.result
                running = self._running.get(key)
                if running is None:
                    mine = self._running[key] = Future()
                    self.misses += 1
                    break
            if not running.exception():  # waits
                with self._lock:
                    self.hits += 1
                return running.result()
        return self._compute(key, compute, mine)

    def _compute(self, key: Hashable, compute: Callable[[], T], future: Future[T]) -> T:
        """Compute a result outside the lock, so that other threads can read the cache, and pass it to those waiting."""
        try:
            result = compute()
            size = self._count_bytes(result)
        except BaseException as error:
            with self._lock:
                del self._running[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._running[key]
            if size <= self.max_bytes:
                self._results[key] = _Entry(result, size)
        future.set_result(result)
        return result

    def evict(self, matches: Callable[[Any], bool]) -> None:
        """Remove the cached results whose keys match."""
        with self._lock:
            for key in [key for key in self._results if matches(key)]:
                self._results.pop(key, None)


def count_bytes(value: Any, counted: set[int] | None = None) -> int:
    """Return about how many bytes a cached result holds: its tensors, arrays, pictures and text, each object once."""
    counted = set() if counted is None else counted
    if id(value) in counted:
        return 0
    counted.add(id(value))
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Image.Image):
        return value.width * value.height * len(value.getbands())
    if isinstance(value, str):
        return len(value)
    if is_dataclass(value):
        parts = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, Mapping):
        parts = list(value.values())
    else:
        parts = list(value) if isinstance(value, (list, tuple)) else []
    return sum(count_bytes(part, counted) for part in parts) if parts else 64
