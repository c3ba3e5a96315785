"""What every tab is given knows one visitor's choices from another's."""

from __future__ import annotations

import gradio as gr

from dashboard.state import context
from dashboard.state.context import GenerationCounter


def visitor(name: str) -> gr.Request:
    return gr.Request(session_hash=name)


def test_the_choices_of_each_visitor_are_counted_apart():
    turns, one, other = GenerationCounter(), visitor("one"), visitor("other")
    for who in (one, other, one):
        turns.advance(who)
    assert (turns.current(one), turns.current(other), turns.current(visitor("third"))) == (2, 1, 0)


def test_who_chose_least_recently_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(context, "MAX_COUNTED_SESSIONS", 2)
    turns, names = GenerationCounter(), ["a", "b", "a", "c"]
    for name in names:
        turns.advance(visitor(name))
    assert [turns.current(visitor(name)) for name in "abc"] == [2, 0, 1]
