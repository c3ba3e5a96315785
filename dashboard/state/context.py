"""What every tab is given: the inputs on the left, and the way to have a model asked when they change."""

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

MODEL_QUEUE: dict[str, Any] = {  # all that runs a model waits in one line
    "concurrency_id": "model",
    "concurrency_limit": "default",  # the page's own, which is the number of workers
}
# A model that must be downloaded first is waited for elsewhere, lest a slow line hold up those who need none.
FETCH_QUEUE: dict[str, Any] = {"concurrency_id": "fetch", "concurrency_limit": 8}
# But a stream may take a minute: one after the other, in a line of their own, lest two visitors hold up all others.
STREAM_QUEUE: dict[str, Any] = {"concurrency_id": "stream", "concurrency_limit": 1}
PRIVATE_EVENT: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
MEGABYTE = 1_000_000
MAX_COUNTED_SESSIONS = 10_000  # whose choices are counted; of who comes back after so many others they are counted anew
PROGRESS = gr.Progress()  # tells gradio to hand in one of its own


class GenerationCounter:
    """How many choices each visitor has made: work that was begun at one may find that it was followed by another.

    To leave the page is a choice too.
    """

    def __init__(self) -> None:
        self._made: OrderedDict[str | None, int] = OrderedDict()  # by session, the last to choose at the end
        self._lock = Lock()

    def current(self, visitor: gr.Request) -> int:
        """How many until now."""
        return self._made.get(visitor.session_hash, 0)

    def advance(self, visitor: gr.Request) -> None:
        """One more."""
        with self._lock:
            self._made[visitor.session_hash] = self._made.pop(visitor.session_hash, 0) + 1
            if len(self._made) > MAX_COUNTED_SESSIONS:
                self._made.popitem(last=False)


class TabView(NamedTuple):
    """A tab's pictures that come with the selection itself, in the same event: the first thing a person sees."""

    draw: Callable  # (photo, selection, *inputs) -> a value for each output
    inputs: Sequence[Any]  # the method, and the menus of its knobs
    outputs: Sequence[Any]
    follow_up: tuple[
        Callable, Sequence[Any], Sequence[Any]
    ]  # such an answer, inputs and outputs, for when those are shown
    long_events: Sequence[Any] = ()  # events that go on for long, and end when another thing is selected


@dataclass(frozen=True, eq=False)
class TabContext:
    """The inputs that every tab reads."""

    service: AnalysisService
    photo: PhotoInput
    model: gr.Dropdown
    selection: gr.State  # of a Selection, or None while there is no photo
    photo_and_model: gr.State  # of a Selection's photo and model alone
    classes: gr.Dropdown
    bars: gr.HTML
    model_input: gr.HTML
    address: gr.HTML
    examples: gr.HTML
    method: gr.State  # chosen under Why
    parameters: gr.HTML  # its menus, drawn there
    generations: GenerationCounter  # that all visitors have made
    event_queue: gr.HTML  # where the choices of all these wait for their turn
    inspect_queue: gr.HTML  # such a desk for the choices under Inside; here, as a tab is not there before it was opened

    def on_photo_or_model(self, answer: Callable, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Draw again whenever photo or model change: for what knows no class."""
        self.on_event(self.photo_and_model.change, answer, inputs, outputs)

    def on_selection(self, answer: Callable, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Draw a tab's pictures again whenever photo, model or class change."""
        self.on_event(self.selection.change, answer, inputs, outputs)

    def on_event(
        self,
        event: Callable,
        answer: Callable,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        tells: bool = False,
        **how: Any,
    ) -> Any:
        """Run `answer(photo, selection, *inputs)` on an event that asks a model something.

        What lies in the box and cannot be opened is no photo to it; the one event that `tells` says so.
        """
        asked = [self.photo, self.selection, *inputs]
        return event(show_errors(answer, tells=tells), asked, list(outputs), **{**MODEL_QUEUE, **PRIVATE_EVENT, **how})


def show_errors(answer: Callable, *, tells: bool = True) -> Callable:
    """The same function, whose VizlibError becomes the one sentence gradio shows to a person.

    So does an error in place of its photo; unless it `tells`, it is then given no photo instead.
    """

    def opened(args: Sequence[Any]) -> Sequence[Any]:
        if not args or not isinstance(args[0], gr.Error):
            return args
        if tells:
            raise args[0]
        return None, *args[1:]

    if inspect.isgeneratorfunction(answer):

        @wraps(answer)
        def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from answer(*opened(args), **kwargs)
            except VizlibError as error:
                raise to_gradio_error(error) from None

        return steps

    @wraps(answer)
    def plain(*args: Any, **kwargs: Any) -> Any:
        try:
            return answer(*opened(args), **kwargs)
        except VizlibError as error:
            raise to_gradio_error(error) from None

    return plain


def load_with_progress(service: AnalysisService, model: str | None, progress: gr.Progress) -> None:
    """Load a model, and while it is downloaded show how much of it has come.

    Raises: VizlibError for a model that there is not, or a download that fails.
    """
    for here, total in service.catalog.fetch(model):
        come = (round(here / 1e6), round(total / 1e6)) if total >= MEGABYTE else (here, total)
        progress(come, translate("page.downloading"), unit="MB" if total >= MEGABYTE else "B")
