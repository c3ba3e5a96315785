"""The plan cache computes once per key and stays bounded."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import vizlib
from vizlib.models.inference.incremental_plan import plan_windows
from vizlib.models.plan_cache import PlanCache


def test_get_or_compute_computes_each_key_once_even_if_the_value_is_none():
    cache, computed = PlanCache(), []

    def compute():
        computed.append(1)

    assert [cache.get_or_compute("first_convolution", compute) for _ in range(3)] == [None] * 3
    assert computed == [1]


def test_plan_cache_drops_the_least_recently_used_value():
    cache = PlanCache(max_entries=2)
    for key in ("a", "b", "a", "c"):
        cache.get_or_compute(key, lambda key=key: key.upper())
    assert len(cache) == 2
    assert cache.get_or_compute("a", lambda: pytest.fail("dropped the value used last")) == "A"
    assert cache.get_or_compute("b", lambda: "computed again") == "computed again"


def test_get_or_compute_stores_nothing_after_an_exception():
    cache = PlanCache()
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute("a", lambda: 1 // 0)
    assert len(cache) == 0
    assert cache.get_or_compute("a", lambda: 2) == 2


def test_get_or_compute_may_be_nested():
    cache = PlanCache()
    assert cache.get_or_compute("outer", lambda: cache.get_or_compute("inner", lambda: 1) + 1) == 2


def test_threads_that_compute_the_same_key_share_one_value():
    cache, start, values = PlanCache(), threading.Barrier(4), []

    def compute():
        start.wait(10)  # all four found the key missing
        return object()

    threads = [threading.Thread(target=lambda: values.append(cache.get_or_compute(0, compute))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(value) for value in values}) == 1


def test_the_plan_cache_of_a_model_is_bounded_whatever_windows_are_planned(monkeypatch):
    model = vizlib.load("resnet18-imagenette")
    image = model.tensor(vizlib.open_image(np.zeros((64, 64, 3), np.uint8)))
    monkeypatch.setattr("vizlib.models.inference.incremental_plan._matches_plain_inference", lambda *_: True)
    cache = model._plan_cache
    cache.max_entries = 8
    for width in range(8, 28):
        assert plan_windows(model, image, [(0, 32)], [(0, width)]) is not None
    assert len(cache) == 8
