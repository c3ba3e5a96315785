"""What every tab is given: components of the sidebar, and events that run a model when they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from dashboard.components.error_messages import show_errors
from dashboard.components.photo import PhotoInput
from dashboard.services.analysis_service import AnalysisService
from dashboard.state.generation_counter import GenerationCounter

MODEL_QUEUE: dict[str, Any] = {  # one queue for all events that run a model
    "concurrency_id": "model",
    "concurrency_limit": "default",  # that of the page, which is the number of workers
}
# Downloads have a queue of their own, so that a slow connection does not block events whose model is in memory.
DOWNLOAD_QUEUE: dict[str, Any] = {"concurrency_id": "fetch", "concurrency_limit": 8}
# A stream may take a minute: one at a time in a queue of their own, so that two of them do not occupy all workers.
STREAM_QUEUE: dict[str, Any] = {"concurrency_id": "stream", "concurrency_limit": 1}
# Another queue for what says how far a map can be trusted, so that it does not delay maps.
TRUST_QUEUE: dict[str, Any] = {"concurrency_id": "trust", "concurrency_limit": 1}
PRIVATE_EVENT: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
PROGRESS = gr.Progress()  # as a default value it makes gradio pass a progress bar


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
    auto_trust: bool  # whether it is measured at once how far a map can be trusted, or at a click
    photo: PhotoInput
    model: gr.Dropdown
    selection: gr.State  # of a Selection; None while there is no photo
    photo_and_model: gr.State  # of a PhotoAndModel
    classes: gr.Dropdown
    prompts: gr.HTML  # the box of prompts, which models that read text have in place of the menu of classes
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
        """Update a view of a tab that depends on no class when photo or model change."""
        self.on_event(self.photo_and_model.change, draw, inputs, outputs)

    def on_selection(self, draw: Callable, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Update a view of a tab when photo, model or classes change."""
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
