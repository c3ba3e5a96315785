"""Choices are counted by session."""

from __future__ import annotations

import gradio as gr

from dashboard.state import generation_counter
from dashboard.state.generation_counter import GenerationCounter


def make_request(name: str) -> gr.Request:
    return gr.Request(session_hash=name)


def test_generations_are_counted_by_session():
    generations, one, other = GenerationCounter(), make_request("one"), make_request("other")
    for request in (one, other, one):
        generations.advance(request)
    assert (generations.current(one), generations.current(other), generations.current(make_request("third"))) == (
        2,
        1,
        0,
    )


def test_least_recent_session_is_evicted(monkeypatch):
    monkeypatch.setattr(generation_counter, "MAX_COUNTED_SESSIONS", 2)
    generations, names = GenerationCounter(), ["a", "b", "a", "c"]
    for name in names:
        generations.advance(make_request(name))
    assert [generations.current(make_request(name)) for name in "abc"] == [2, 0, 1]
