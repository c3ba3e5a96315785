"""What was computed lately, within a budget of bytes, for all visitors together."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

T = TypeVar("T")


class ByteCache:
    """Results by key, the least recently used forgotten first. Keys hold all a result depends on: visitors never mix.

    >>> cache = ByteCache(1000)
    >>> cache.get(("photo", "model"), lambda: "computed once")
    'computed once'
    """

    def __init__(self, budget: int, size: Callable[[Any], int] | None = None) -> None:
        """A budget in bytes; `size` tells how many a result takes, else tensors, arrays and pictures are counted."""
        self.max_bytes = budget
        self.held_bytes = 0  # bytes
        self.hits = self.misses = 0
        self._size = size or count_bytes
        self._results: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._making: dict[Hashable, Future] = {}
        self._lock = threading.RLock()  # what is collected while one holds it may have something forgotten

    def find(self, key: Hashable) -> Any:
        """The result under this key, or `None` where there is none."""
        with self._lock:
            if key not in self._results:
                return None
            self._results.move_to_end(key)
            return self._results[key][0]

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The result under this key, made now if it is not there; who asks while another makes it waits for that one.

        Should making it fail, the one who made it is told, and the next who waits tries anew.
        """
        while True:
            with self._lock:
                if key in self._results:
                    self._results.move_to_end(key)
                    self.hits += 1
                    return self._results[key][0]
                other = self._making.get(key)
                if other is None:
                    mine = self._making[key] = Future()
                    self.misses += 1
                    break
            if not other.exception():  # waits
                with self._lock:
                    self.hits += 1
                return other.result()
        return self._made(key, compute, mine)

    def _made(self, key: Hashable, make: Callable[[], T], told: Future[T]) -> T:
        """The result, made outside the lock, so that others go on reading; those who wait for it are told."""
        try:
            result = make()
            size = self._size(result)
        except BaseException as error:
            with self._lock:
                del self._making[key]
            told.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            if size <= self.max_bytes:
                self._results[key] = result, size
                self.held_bytes += size
            while self.held_bytes > self.max_bytes:
                _, (_, freed) = self._results.popitem(last=False)
                self.held_bytes -= freed
        told.set_result(result)
        return result

    def evict(self, meant: Callable[[Any], bool]) -> None:
        """Let go of the results whose keys are meant."""
        with self._lock:
            for key in [key for key in self._results if meant(key)]:
                self.held_bytes -= self._results.pop(key)[1]


def photo_key(photo: Image.Image) -> str:
    """A photo's own name: a hash of its pixels and of what was noted when it was opened, kept with it."""
    if "key" not in photo.info:
        about = repr((photo.mode, photo.size, photo.info.get("notes", ()))).encode()
        photo.info["key"] = hashlib.blake2b(about + photo.tobytes(), digest_size=16).hexdigest()
    return photo.info["key"]


def count_bytes(value: Any, counted: set[int] | None = None) -> int:
    """About how many bytes a result holds: its tensors, arrays and pictures, each once, wherever they stand in it."""
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
