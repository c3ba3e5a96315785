"""A bounded cache for what the inference plans of one model depend on, such as the memory one pass takes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class PlanCache:
    """Values computed once per key; the least recently used ones are dropped.

    Several threads may use one cache. Two threads that need the same missing value at once both compute it, and the
    first result is kept.
    """

    def __init__(self, max_entries: int = 256) -> None:
        """Create an empty cache of at most `max_entries` values."""
        self.max_entries = max_entries
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get_or_compute(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the value of a key, computing and storing it if it is missing.

        Args:
            key: What the value depends on.
            compute: Makes the value. It runs outside the lock, so it may use this cache; an exception stores nothing.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = compute()
        with self._lock:
            value = self._values.setdefault(key, value)
            self._values.move_to_end(key)
            while len(self._values) > self.max_entries:
                self._values.popitem(last=False)
        return value
