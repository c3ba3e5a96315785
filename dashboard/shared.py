"""What every tab reads: the photo, the model and the class, chosen on the left; and the likeliest classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple

import gradio as gr
from gradio.media import get_image
from matplotlib.cbook import get_sample_data
from PIL import Image

from dashboard.cache import key_of
from dashboard.components.bars import bars, percent, short
from dashboard.components.base import part, told
from dashboard.components.examples import examples
from dashboard.components.figure import figure
from dashboard.components.photo import PhotoInput
from dashboard.study import Study
from vizlib import VizlibError, open_image

EXAMPLES = {  # photos that come with gradio and matplotlib
    "The Eiffel tower": get_image("tower.jpg"),  # first, as a tower is nearest to what the bundled models know
    "A running cheetah": get_image("cheetah.jpg"),
    "Grace Hopper": str(get_sample_data("grace_hopper.jpg", asfileobj=False)),
}
MODEL_QUEUE: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 2,
}  # all that runs a model waits in one line
PLUMBING: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}


class Selection(NamedTuple):
    """What the page is about; it changes as one thing, and every tab draws again when it does."""

    photo: str  # the photo's key, so that a new photo is a new selection
    model: str
    target: int


@dataclass(frozen=True, eq=False)
class Shared:
    """The inputs that every tab reads."""

    study: Study
    photo: PhotoInput
    model: gr.Dropdown
    selection: gr.State  # of a Selection, or None while there is no photo
    view: gr.State  # of a Selection's photo and model alone

    def on_view(self, answer: Callable, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Draw again whenever photo or model change: for what knows no class."""
        self.on(self.view.change, answer, inputs, outputs)

    def on_selection(self, answer: Callable, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Draw a tab's pictures again whenever photo, model or class change."""
        self.on(self.selection.change, answer, inputs, outputs)

    def on(self, event: Callable, answer: Callable, inputs: Sequence[Any], outputs: Sequence[Any], **how: Any) -> Any:
        """Run `answer(photo, selection, *inputs)` on an event that asks a model something."""
        asked = [self.photo, self.selection, *inputs]
        return event(plainly(answer), asked, list(outputs), **{**MODEL_QUEUE, **PLUMBING, **how})


def plainly(answer: Callable) -> Callable:
    """The same function, whose VizlibError becomes the one sentence gradio shows to a person."""

    @wraps(answer)
    def plain(*args: Any, **kwargs: Any) -> Any:
        try:
            return answer(*args, **kwargs)
        except VizlibError as error:
            raise told(error) from None

    return plain


def look(study: Study, photo: Image.Image | None, model: str, target: int | None = None) -> tuple:
    """The selection for a photo, and all that the left column shows of it: bars, classes to choose from, the crop.

    The class is the likeliest one unless it is given.
    """
    if photo is None:
        return None, None, {}, gr.update(choices=[], value=None), {}
    found = study.predictions(photo, model, top=10**6)
    target = study.target(photo, model, target)
    names = [(short(one.label), one.index) for one in found]
    selection = Selection(key_of(photo), model, target)
    return (
        selection,
        selection[:2],
        bars(found, target, doubt=study.doubt(photo, model)),
        gr.update(choices=sorted(names, key=lambda row: row[0].lower()), value=target),
        eye(study, photo, model),
    )


def eye(study: Study, photo: Image.Image, model: str) -> dict[str, Any]:
    """The exact crop the model was shown, and how much of the photo it is."""
    picture = study.eye(photo, model)
    seen = study.catalog.get(model).preprocessing.geometry(photo).seen_fraction
    caption = f"What the model really sees: {picture.width} × {picture.height} pixels, {percent(seen)} of the photo."
    return figure(picture, caption, alt="The photo as resized and cropped for the model", fit="small")


def example(event: gr.SelectData) -> Image.Image | None:
    """The example photo that was clicked; opened here, as gradio may not serve files from where packages lie."""
    return open_image(EXAMPLES[event.value]) if event.value in EXAMPLES else None


def build(study: Study, page: gr.Blocks) -> Shared:
    """The left column."""
    first = study.catalog.names[0]
    photo = PhotoInput(
        value=next(iter(EXAMPLES.values())),
        label="Photo",
        show_label=False,
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        format="png",
        buttons=["fullscreen"],
        height=264,
        elem_id="photo",
        alt_text="Your photo",
        placeholder="Drop a photo here\n– or –\nclick to choose one",
    )
    offered = part("examples", examples(EXAMPLES), elem_id="examples")
    model = gr.Dropdown(study.catalog.choices(), value=first, label="Model", elem_id="model", interactive=True)
    gr.HTML("<h2>What it sees</h2>", elem_classes="viz-heading", apply_default_css=False)
    answers = part("bars", elem_id="bars")
    classes = gr.Dropdown([], label="Explain any other class", elem_id="classes", interactive=True)
    crop = part("figure", elem_id="eye")
    shared = Shared(study, photo, model, gr.State(None), gr.State(None))
    outputs = [shared.selection, shared.view, answers, classes, crop]

    def fresh(photo: Image.Image | None, _: Selection | None, model: str) -> tuple:
        return look(study, photo, model)

    def aimed(photo: Image.Image | None, selection: Selection | None, target: int | None) -> tuple:
        return look(study, photo, selection.model if selection else first, target)

    def clicked(photo: Image.Image | None, selection: Selection | None, event: gr.SelectData) -> tuple:
        return aimed(photo, selection, event.index)

    waiting = {"show_progress": "full", "show_progress_on": [answers]}  # a model may have to be loaded first
    shared.on(page.load, fresh, [model], outputs, **waiting)
    # What cannot be opened as a photo is taken out of the box again, once the sentence about it is shown.
    shared.on(photo.change, fresh, [model], outputs, **waiting).failure(lambda: None, None, photo, **PLUMBING)
    chosen = shared.on(model.input, fresh, [model], outputs, **waiting)
    # A model that could not be loaded leaves the menu where it was.
    chosen.failure(lambda old: old.model if old else first, shared.selection, model, **PLUMBING)
    shared.on(classes.input, aimed, [classes], outputs)
    shared.on(answers.select, clicked, [], outputs)
    offered.select(example, None, photo, **PLUMBING)
    return shared
