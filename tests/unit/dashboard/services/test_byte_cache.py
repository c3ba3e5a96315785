from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from dashboard.services import byte_cache
from dashboard.services.byte_cache import ByteCache, count_bytes, photo_key
from dashboard.services.request import ExplanationRequest


def test_a_result_is_made_once_and_remembered():
    cache, made = ByteCache(100), []
    for _ in range(3):
        assert cache.get("a", lambda: made.append(1) or "result") == "result"
    assert made == [1]


@pytest.fixture
def waits(monkeypatch) -> threading.Semaphore:
    """Released by each thread that begins to wait for what another makes."""
    found = threading.Semaphore(0)

    class Told(Future):
        def exception(self, timeout=None):
            found.release()
            return super().exception(timeout)

    monkeypatch.setattr(byte_cache, "Future", Told)
    return found


@pytest.mark.parametrize("budget", [100, 1])  # kept, or too large to be kept
def test_those_who_ask_while_it_is_made_wait_and_get_the_same(waits, budget):
    cache, made, go = ByteCache(budget), [], threading.Event()

    def make() -> list[str]:
        made.append(1)
        assert go.wait(60)
        return ["result"]

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cache.get, "a", make) for _ in range(4)]
        assert all(waits.acquire(timeout=60) for _ in range(3))
        assert cache.get("b", lambda: "another") == "another"  # meanwhile
        go.set()
        answers = [one.result(60) for one in asked]
    assert made == [1]
    assert all(answer is answers[0] for answer in answers)
    assert (cache.hits, cache.misses) == (3, 2)


def test_should_making_it_fail_the_next_who_waits_tries_anew(waits):
    cache, made, go = ByteCache(100), [], threading.Event()

    def make() -> str:
        made.append(1)
        if len(made) == 1:
            assert go.wait(60)
            raise ValueError("the first time")
        return "result"

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(cache.get, "a", make) for _ in range(3)]
        assert all(waits.acquire(timeout=60) for _ in range(2))
        go.set()
        failed = [one.exception(60) for one in asked]
    assert sorted(type(error).__name__ for error in failed) == ["NoneType", "NoneType", "ValueError"]
    assert len(made) == 2
    assert cache.get("a", make) == "result"


def test_no_more_bytes_are_kept_than_the_budget_and_the_least_used_go_first():
    cache = ByteCache(250)
    for name in ("old", "used"):
        cache.get(name, lambda: torch.zeros(25))  # 100 bytes each
    cache.get("old", lambda: None)  # now "used" was used longest ago
    cache.get("new", lambda: torch.zeros(25))
    assert cache.held_bytes == 200
    assert cache.get("old", lambda: "made again") is not None
    assert cache.get("used", lambda: "made again") == "made again"


def test_a_result_larger_than_the_whole_budget_is_handed_out_and_pushes_nothing_out():
    cache = ByteCache(10)
    cache.get("small", lambda: "1234567890")
    assert cache.get("large", lambda: np.zeros(100)).shape == (100,)
    assert cache.get("small", lambda: "made again") == "1234567890"


def test_tensors_are_counted_wherever_they_stand(service, cheetah, name):
    answer = service.explain(ExplanationRequest(cheetah, name))
    photo = cheetah.width * cheetah.height * 3
    assert photo < count_bytes({"x": [answer]}) < photo + 100_000
    assert count_bytes(answer) >= photo + answer.heat.numel() * 4


def test_what_stands_in_a_result_twice_is_counted_once():
    heat = torch.zeros(100)
    assert count_bytes({"a": heat, "b": [heat]}) == 400


def test_a_photo_has_the_same_key_only_with_the_same_pixels_and_notes():
    def photo(value: int, notes: tuple[str, ...] = ()) -> Image.Image:
        image = Image.new("RGB", (10, 12), (value, 0, 0))
        image.info["notes"] = notes
        return image

    assert photo_key(photo(1)) == photo_key(photo(1))
    assert len({photo_key(photo(1)), photo_key(photo(2)), photo_key(photo(1, ("was 16-bit",)))}) == 3
    assert photo_key(Image.new("RGB", (10, 12))) != photo_key(Image.new("RGB", (12, 10)))
