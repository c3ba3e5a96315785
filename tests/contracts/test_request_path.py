"""One explanation runs a short, straight path: few files, and every step once."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import vizlib
from vizlib.attribution.methods.registry import METHODS

PACKAGE = Path(vizlib.__file__).parent
MAX_FILES = 16  # one of them is the row of the family, in the module of its library
MAX_ENTRIES = 2  # into explain.py, from any other file


class CallTracer:
    """Counts calls of functions in the package by file, and entries into a file from another one."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.entries: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        file = own_file(frame)
        if event != "call" or file is None:
            return
        self.files.add(file)
        caller = frame.f_back
        while caller is not None and own_file(caller) is None:
            caller = caller.f_back
        if caller is None or own_file(caller) != file:
            self.entries[file] += 1


def own_file(frame: FrameType) -> str | None:
    path = Path(frame.f_code.co_filename)
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else None


def test_explain_enters_few_files(tower):
    model = vizlib.load("resnet18-imagenette")
    tracer, previous = CallTracer(), sys.getprofile()
    sys.setprofile(tracer)
    try:
        vizlib.explain(model, tower, "grad-cam")
    finally:
        sys.setprofile(previous)
    assert len(tracer.files) <= MAX_FILES, sorted(tracer.files)
    assert tracer.entries["attribution/explain.py"] <= MAX_ENTRIES


def test_explain_computes_the_signals_of_each_method_once(tower, monkeypatch):
    from dataclasses import replace

    model, calls = vizlib.load("resnet18-imagenette"), Counter()
    for name, method in list(METHODS.items()):

        def count_signals(*args, name=name, signals=method.signals):
            calls[name] += 1
            return signals(*args)

        monkeypatch.setitem(METHODS, name, replace(method, signals=count_signals))
    vizlib.explain(model, tower, "grad-cam")
    assert calls == {"grad-cam": 1}
