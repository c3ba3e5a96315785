"""The cache of results: single computation, limits and sizes."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from bundled_models import resnet_by_default
from PIL import Image

from dashboard.services import byte_cache
from dashboard.services.byte_cache import ByteCache, count_bytes
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.services.photo_key import compute_photo_key


def test_get_computes_a_result_once():
    cache, calls = ByteCache(100), []
    for _ in range(3):
        assert cache.get("a", lambda: calls.append(1) or "result") == "result"
    assert calls == [1]


@pytest.fixture
def waiting_threads(monkeypatch) -> threading.Semaphore:
    """A semaphore that each thread releases when it begins to wait for the computation of another."""
    semaphore = threading.Semaphore(0)

    class ReportingFuture(Future):
        def exception(self, timeout=None):
            semaphore.release()
            return super().exception(timeout)

    monkeypatch.setattr(byte_cache, "Future", ReportingFuture)
    return semaphore


@pytest.mark.parametrize("max_bytes", [100, 1])  # cached, or too large to be cached
def test_concurrent_requests_wait_for_one_computation(waiting_threads, max_bytes):
    cache, calls, go = ByteCache(max_bytes), [], threading.Event()

    def compute() -> list[str]:
        calls.append(1)
        assert go.wait(60)
        return ["result"]

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(cache.get, "a", compute) for _ in range(4)]
        assert all(waiting_threads.acquire(timeout=60) for _ in range(3))
        assert cache.get("b", lambda: "another") == "another"  # while it is computed
        go.set()
        results = [future.result(60) for future in futures]
    assert calls == [1]
    assert all(result is results[0] for result in results)
    assert (cache.hits, cache.misses) == (3, 2)


def test_failed_computation_is_retried_by_a_waiting_thread(waiting_threads):
    cache, calls, go = ByteCache(100), [], threading.Event()

    def compute() -> str:
        calls.append(1)
        if len(calls) == 1:
            assert go.wait(60)
            raise ValueError("the first time")
        return "result"

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(cache.get, "a", compute) for _ in range(3)]
        assert all(waiting_threads.acquire(timeout=60) for _ in range(2))
        go.set()
        errors = [future.exception(60) for future in futures]
    assert sorted(type(error).__name__ for error in errors) == ["NoneType", "NoneType", "ValueError"]
    assert len(calls) == 2
    assert cache.get("a", compute) == "result"


def test_byte_cache_evicts_the_least_recently_used_results():
    cache = ByteCache(250)
    for name in ("old", "used"):
        cache.get(name, lambda: torch.zeros(25))  # 100 bytes each
    cache.get("old", lambda: None)  # now "used" is the least recently used
    cache.get("new", lambda: torch.zeros(25))
    assert cache.held_bytes == 200
    assert cache.get("old", lambda: "computed again") is not None
    assert cache.get("used", lambda: "computed again") == "computed again"


def test_result_larger_than_the_cache_is_returned_and_evicts_nothing():
    cache = ByteCache(10)
    cache.get("small", lambda: "1234567890")
    assert cache.get("large", lambda: np.zeros(100)).shape == (100,)
    assert cache.get("small", lambda: "computed again") == "1234567890"


@resnet_by_default
def test_count_bytes_finds_nested_tensors(service, cheetah, name):
    attribution = service.explain(ExplanationRequest(cheetah, name))
    photo = cheetah.width * cheetah.height * 3
    assert photo < count_bytes({"x": [attribution]}) < photo + 100_000
    assert count_bytes(attribution) >= photo + attribution.heat.numel() * 4


def test_count_bytes_counts_each_object_once():
    heat = torch.zeros(100)
    assert count_bytes({"a": heat, "b": [heat]}) == 400


def test_photo_key_depends_on_pixels_and_notes():
    def photo(value: int, notes: tuple[str, ...] = ()) -> Image.Image:
        image = Image.new("RGB", (10, 12), (value, 0, 0))
        image.info["notes"] = notes
        return image

    assert compute_photo_key(photo(1)) == compute_photo_key(photo(1))
    assert (
        len({compute_photo_key(photo(1)), compute_photo_key(photo(2)), compute_photo_key(photo(1, ("was 16-bit",)))})
        == 3
    )
    assert compute_photo_key(Image.new("RGB", (10, 12))) != compute_photo_key(Image.new("RGB", (12, 10)))
