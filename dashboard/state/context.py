"""What every tab is given: components of the sidebar, and events that run a model when they change."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from threading import Lock
from typing import Any, NamedTuple

import gradio as gr

from dashboard.components.base import to_gradio_error
from dashboard.components.photo import PhotoInput
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from vizlib import VizlibError

MODEL_QUEUE: dict[str, Any] = {  # one queue for all events that run a model
    "concurrency_id": "model",
    "concurrency_limit": "default",  # that of the page, which is the number of workers
}
# Downloads have a queue of their own, so that a slow connection does not block events whose model is in memory.
DOWNLOAD_QUEUE: dict[str, Any] = {"concurrency_id": "fetch", "concurrency_limit": 8}
# A stream may take a minute: one at a time in a queue of their own, so that two of them do not occupy all workers.
STREAM_QUEUE: dict[str, Any] = {"concurrency_id": "stream", "concurrency_limit": 1}
PRIVATE_EVENT: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
MEGABYTE = 1_000_000
MAX_COUNTED_SESSIONS = 10_000  # the count of an evicted session starts again from 0
PROGRESS = gr.Progress()  # as a default value it makes gradio pass a progress bar


class GenerationCounter:
    """Count the choices of each session, so that work for one choice can detect that another one followed.

    Leaving the page counts as a choice.
    """

    def __init__(self) -> None:
        self._counts: OrderedDict[str | None, int] = OrderedDict()  # by session, the most recent choice last
        self._lock = Lock()

    def current(self, request: gr.Request) -> int:
        """Return the number of choices of a session so far."""
        return self._counts.get(request.session_hash, 0)

    def advance(self, request: gr.Request) -> None:
        """Count one more choice of a session."""
        with self._lock:
            self._counts[request.session_hash] = self._counts.pop(request.session_hash, 0) + 1
            if len(self._counts) > MAX_COUNTED_SESSIONS:
                self._counts.popitem(last=False)


class FollowUp(NamedTuple):
    """An update that runs once a view is shown."""

    draw: Callable  # (photo, selection, *inputs) -> a value for each output
    inputs: Sequence[Any]
    outputs: Sequence[Any]


class TabView(NamedTuple):
    """The view of a tab that is computed in the same event as the selection: the first that a visitor sees."""

    draw: Callable  # (photo, selection, *inputs) -> a value for each output
    inputs: Sequence[Any]  # the method, and the menus of its parameters
    outputs: Sequence[Any]
    follow_up: FollowUp
    long_events: Sequence[Any] = ()  # events that run for long and are cancelled by another selection


@dataclass(frozen=True, eq=False)
class TabContext:
    """The service, and the components that tabs read or that are shared between tabs."""

    service: AnalysisService
    photo: PhotoInput
    model: gr.Dropdown
    selection: gr.State  # of a Selection; None while there is no photo
    photo_and_model: gr.State  # of a PhotoAndModel
    classes: gr.Dropdown
    bars: gr.HTML
    model_input: gr.HTML
    copy_link: gr.HTML
    examples: gr.HTML
    method: gr.State  # chosen in the Why tab
    parameters: gr.HTML  # the menus of its parameters, rendered in the Why tab
    generations: GenerationCounter  # of all sessions
    event_queue: gr.HTML  # queues the choices of the sidebar and of the tabs
    inspect_queue: gr.HTML  # that of the Inside tab; made here, as a tab is not rendered before it is opened

    def on_photo_or_model(self, draw: Callable, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Update a view that depends on no class when photo or model change."""
        self.on_event(self.photo_and_model.change, draw, inputs, outputs)

    def on_selection(self, draw: Callable, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Update a view when photo, model or classes change."""
        self.on_event(self.selection.change, draw, inputs, outputs)

    def on_event(
        self,
        event: Callable,
        draw: Callable,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        report_bad_photo: bool = False,
        **event_kwargs: Any,
    ) -> Any:
        """Run `draw(photo, selection, *inputs)` on an event, in the queue of events that run a model.

        Args:
            event: A method of a component that adds a listener.
            draw: Returns or yields a value for each output.
            inputs: Components whose values are passed besides photo and selection.
            outputs: Components to update.
            report_bad_photo: Whether a photo that cannot be opened is an error; else `draw` is given no photo. Set for
                one event only, so that the error is shown once.
            event_kwargs: Arguments of the listener that replace the defaults.
        """
        values = [self.photo, self.selection, *inputs]
        function = show_errors(draw, report_bad_photo=report_bad_photo)
        return event(function, values, list(outputs), **{**MODEL_QUEUE, **PRIVATE_EVENT, **event_kwargs})


def show_errors(function: Callable, *, report_bad_photo: bool = True) -> Callable:
    """Return a function, or generator function, that raises a VizlibError as the error message gradio shows.

    An error in place of the photo, its first argument, is raised as well, or replaced by `None` if it is not reported.
    """

    def check_photo(args: Sequence[Any]) -> Sequence[Any]:
        if not args or not isinstance(args[0], gr.Error):
            return args
        if report_bad_photo:
            raise args[0]
        return None, *args[1:]

    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from function(*check_photo(args), **kwargs)
            except VizlibError as error:
                raise to_gradio_error(error) from None

        return stream

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*check_photo(args), **kwargs)
        except VizlibError as error:
            raise to_gradio_error(error) from None

    return call


def show_load_progress(service: AnalysisService, model: str | None, progress: gr.Progress) -> None:
    """Load a model, and show the progress of its download.

    Raises:
        VizlibError: For a model that is not offered, or a download that fails.
    """
    for done, total in service.catalog.load_with_progress(model):
        in_megabytes = total >= MEGABYTE
        counts = (round(done / MEGABYTE), round(total / MEGABYTE)) if in_megabytes else (done, total)
        progress(counts, translate("page.downloading"), unit="MB" if in_megabytes else "B")
