"""What every tab reads: the photo, the model and the class, chosen on the left; and the likeliest classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.media import get_image
from matplotlib.cbook import get_sample_data
from PIL import Image

from dashboard.cache import key_of
from dashboard.components.address import address
from dashboard.components.bars import bars, percent, short
from dashboard.components.base import part, told
from dashboard.components.card import shown
from dashboard.components.examples import examples
from dashboard.components.figure import figure
from dashboard.components.knobs import asked, chosen
from dashboard.components.photo import PhotoInput
from dashboard.languages import shown as shown_as
from dashboard.selection import KEYS, Link, Selection, class_of, name_of, named, parse
from dashboard.study import Study
from vizlib import VizlibError, open_image
from vizlib.methods.registry import METHODS

EXAMPLES = {  # photos that come with gradio and matplotlib
    "The Eiffel tower": get_image("tower.jpg"),  # first, as a tower is nearest to what the bundled models know
    "A running cheetah": get_image("cheetah.jpg"),
    "Grace Hopper": str(get_sample_data("grace_hopper.jpg", asfileobj=False)),
}
MODEL_QUEUE: dict[str, Any] = {  # all that runs a model waits in one line
    "concurrency_id": "model",
    "concurrency_limit": "default",  # the page's own, which is the number of workers
}
# But a stream may take a minute: one after the other, in a line of their own, lest two visitors hold up all others.
STREAM_QUEUE: dict[str, Any] = {"concurrency_id": "stream", "concurrency_limit": 1}
PLUMBING: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}


class View(NamedTuple):
    """A tab's pictures that come with the selection itself, in the same event: the first thing a person sees."""

    answer: Callable  # (photo, selection, *inputs) -> a value for each output
    inputs: Sequence[Any]  # the method, and the menus of its knobs
    outputs: Sequence[Any]
    running: Sequence[Any] = ()  # events that go on for long, and end when another thing is selected


@dataclass(frozen=True, eq=False)
class Shared:
    """The inputs that every tab reads."""

    study: Study
    photo: PhotoInput
    model: gr.Dropdown
    selection: gr.State  # of a Selection, or None while there is no photo
    view: gr.State  # of a Selection's photo and model alone
    classes: gr.Dropdown
    bars: gr.HTML
    eye: gr.HTML
    address: gr.HTML
    examples: gr.HTML
    method: gr.State  # chosen under Why
    knobs: gr.HTML  # its menus, drawn there

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
    if inspect.isgeneratorfunction(answer):

        @wraps(answer)
        def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from answer(*args, **kwargs)
            except VizlibError as error:
                raise told(error) from None

        return steps

    @wraps(answer)
    def plain(*args: Any, **kwargs: Any) -> Any:
        try:
            return answer(*args, **kwargs)
        except VizlibError as error:
            raise told(error) from None

    return plain


def look(
    study: Study,
    photo: Image.Image | None,
    model: str,
    target: int | None = None,
    against: int | None = None,
    said: str = "",
) -> tuple:
    """The selection for a photo, and all that the left column shows of it: bars, classes to choose from, the crop.

    The class is the likeliest one unless it is given. `said` is a sentence on the address the page was opened with.
    """
    if photo is None:
        empty = address(dict.fromkeys(("m", "img", "c", "vs")), said)
        return None, None, {}, gr.update(choices=[], value=None), {}, empty
    found = study.predictions(photo, model, top=10**6)
    target = study.target(photo, model, target)
    against = study.against(photo, model, target, None if against == target else against)
    names = [(short(one.label), one.index) for one in found]
    selection = Selection(key_of(photo), model, target, against)
    return (
        selection,
        selection[:2],
        bars(found, target, against=against, doubt=study.doubt(photo, model)),
        gr.update(choices=sorted(names, key=lambda row: row[0].lower()), value=target),
        eye(study, photo, model),
        address(keys(study, selection), said),
    )


def keys(study: Study, selection: Selection) -> dict[str, str | None]:
    """What the selection is called in the page's address; a photo that is no example has no name there."""
    labels = study.catalog.get(selection.model).labels
    return {
        "m": selection.model,
        "img": {key_of(photo): name for name, photo in addressed().items()}.get(selection.photo),
        "c": name_of(selection.target, labels),
        "vs": None if selection.against is None else name_of(selection.against, labels),
    }


@cache
def addressed() -> dict[str, Image.Image]:
    """The example photos by their names in an address."""
    return {f"ex:{Path(path).stem}": open_image(path) for path in EXAMPLES.values()}


class Visit(NamedTuple):
    """What an address makes of the page."""

    link: Link  # without what nobody knows
    photo: Image.Image
    looked: tuple  # as from `look`, with a sentence on what nobody knows
    menus: dict[str, Any] | None  # of the method's knobs


def visit(study: Study, address: Mapping[str, str], tabs: Sequence[str]) -> Visit:
    """The page that an address asks for; of a wrong one what is known, and a sentence, but never an error."""
    photos, first = addressed(), study.catalog.names[0]
    link, unknown = parse(address, {"m": study.catalog.names, "img": photos, "v": tabs, "w": METHODS})
    photo = photos[link.example or next(iter(photos))]
    name = link.model or first
    try:
        model = study.catalog.get(name)
    except VizlibError as error:  # a download that failed
        unknown.append(f"{named('m', name)} ({error})")
        link, name, model = link._replace(model=None), first, study.catalog.get(first)

    def refused(key: str, value: str) -> None:
        unknown.append(named(key, value))

    classes: list[int | None] = []
    for key, asked_for in (("c", link.target), ("vs", link.against)):
        classes.append(None if asked_for is None else class_of(asked_for, model.labels))
        if asked_for is not None and classes[-1] is None:
            refused(key, asked_for)
    if link.method and METHODS[link.method].fits(model) is not None:
        refused("w", link.method)
        link = link._replace(method=None)
    layers = {layer.name for layer in model.layers} | {str(i + 1) for i in range(len(model.attention_layers))}
    if link.layer and link.layer not in layers:
        refused("l", link.layer)
        link = link._replace(layer=None)
    menus = asked(model, link.method, link.settings()) if link.method else None
    if link.knobs and set(chosen(menus).items()) != set(link.settings().items()):
        refused("k", link.knobs)
    said = [f"This link asks for what is not known here: {', '.join(unknown)}."] if unknown else []
    if "img" not in address and any(address.get(key) for key in KEYS):
        said.append("The photo of this link was not sent with it, so here is an example.")
    return Visit(link, photo, look(study, photo, name, *classes, said=" ".join(said)), menus)


def eye(study: Study, photo: Image.Image, model: str) -> dict[str, Any]:
    """The exact crop the model was shown, how much of the photo it is, and what was done to it on the way."""
    picture, network = study.eye(photo, model), study.catalog.get(model)
    seen = network.preprocessing.geometry(photo).seen_fraction
    caption = f"What the model really sees: {picture.width} × {picture.height} pixels, {percent(seen)} of the photo"
    grid = network.tokens.grid if network.tokens else ()
    patches = ""
    if grid:
        caption += f", in {grid[0]} × {grid[1]} patches"
        patches = f"{grid[0]} × {grid[1]}, each of {picture.height // grid[0]} × {picture.width // grid[1]} pixels"
    rows = {**shown(network), **({"Patches": patches} if grid else {})}
    alt = "The photo as resized and cropped for the model"
    return figure(picture, f"{caption}.", alt=alt, fit="small", grid=grid, rows=rows)


def example(event: gr.SelectData) -> Image.Image | None:
    """The example photo that was clicked; opened here, as gradio may not serve files from where packages lie."""
    return open_image(EXAMPLES[event.value]) if event.value in EXAMPLES else None


def rival(selection: Selection, chosen: int) -> Selection:
    """The selection with a class to set its target against; the same class again takes it away."""
    return selection._replace(against=None if chosen in (selection.against, selection.target) else chosen)


def build(study: Study) -> Shared:
    """The left column."""
    photo = PhotoInput(
        value=next(iter(EXAMPLES.values())),
        label=shown_as("photo"),
        show_label=False,
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        format="png",
        buttons=["fullscreen"],
        height=264,
        elem_id="photo",
        alt_text="Your photo",
        placeholder=str(shown_as("drop")),
    )
    offered = part("examples", examples(EXAMPLES), elem_id="examples")
    first = study.catalog.names[0]
    model = gr.Dropdown(
        study.catalog.choices(),
        value=first,
        label=shown_as("model"),
        elem_id="model",
        interactive=True,
        allow_custom_value=study.catalog.any_model,
    )
    gr.HTML(f"<h2>{shown_as('sees')}</h2>", elem_classes="viz-heading", apply_default_css=False)
    answers = part("bars", elem_id="bars")
    classes = gr.Dropdown([], label=shown_as("classes"), elem_id="classes", interactive=True)
    crop = part("figure", elem_id="eye")
    link = part("address", elem_id="address", render=False)
    return Shared(
        study,
        photo,
        model,
        gr.State(None),
        gr.State(None),
        classes,
        bars=answers,
        eye=crop,
        address=link,
        examples=offered,
        method=gr.State(None),
        knobs=part("knobs", elem_id="why-knobs", render=False),
    )


def listen(shared: Shared, page: gr.Blocks, tabs: gr.Tabs, ids: Sequence[str], view: View) -> None:
    """The events of the left column; each brings the first tab's pictures with it, so a person waits once."""
    study, first = shared.study, shared.study.catalog.names[0]
    left = [shared.selection, shared.view, shared.bars, shared.classes, shared.eye, shared.address]
    outputs = [*left, *view.outputs]

    def complete(photo: Image.Image | None, looked: tuple, method: str | None, menus: Any) -> tuple:
        return *looked, *view.answer(photo, looked[0], method, menus)

    def again(photo: Image.Image | None, looked: tuple, method: str | None, menus: Any) -> tuple:
        """Of the same photo and model, another class: the crop need not travel again."""
        selection, same, answers, classes, _, link = looked
        return complete(photo, (selection, same, answers, classes, gr.skip(), link), method, menus)

    def arrive(request: gr.Request) -> tuple:
        link, photo, looked, menus = visit(study, request.query_params, ids)
        keys = {"v": link.tab, "w": link.method, "k": link.knobs, "l": link.layer, "h": link.head, "p": link.patch}
        looked[-1]["keys"].update(keys)
        change = gr.skip() if photo is next(iter(addressed().values())) else photo
        tab = gr.Tabs(selected=link.tab) if link.tab else gr.skip()
        return *complete(photo, looked, link.method, menus), change, looked[0].model, tab

    def fresh(photo: Image.Image | None, _: Selection | None, model: str, method: str | None, menus: Any) -> tuple:
        return complete(photo, look(study, photo, model), method, menus)

    def changed(
        photo: Image.Image | None, selection: Selection | None, model: str, method: str | None, menus: Any
    ) -> tuple:
        if photo is not None and selection is not None and selection.photo == key_of(photo):
            return (gr.skip(),) * len(outputs)  # the page was opened with this photo
        return fresh(photo, selection, model, method, menus)

    def aimed(
        photo: Image.Image | None, selection: Selection | None, target: int | None, method: str | None, menus: Any
    ) -> tuple:
        now = selection or Selection("", first, 0)
        return again(photo, look(study, photo, now.model, target, now.against), method, menus)

    def clicked(
        photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any, event: gr.SelectData
    ) -> tuple:
        if event.value != "against" or selection is None:
            return aimed(photo, selection, event.index, method, menus)
        now = rival(selection, event.index)
        return again(photo, look(study, photo, now.model, now.target, now.against), method, menus)

    waiting = {"show_progress": "full", "show_progress_on": [shared.bars]}  # a model may have to be loaded first
    ending = {"cancels": list(view.running)}
    page.load(
        plainly(arrive), None, [*outputs, shared.photo, shared.model, tabs], **{**MODEL_QUEUE, **PLUMBING, **waiting}
    )
    # What cannot be opened as a photo is taken out of the box again, once the sentence about it is shown.
    asking = [shared.model, *view.inputs]
    shared.on(shared.photo.change, changed, asking, outputs, **waiting, **ending).failure(
        lambda: None, None, shared.photo, **PLUMBING
    )
    other = shared.on(shared.model.input, fresh, asking, outputs, **waiting, **ending)
    # A model that could not be loaded leaves the menu where it was.
    other.failure(lambda old: old.model if old else first, shared.selection, shared.model, **PLUMBING)
    shared.on(shared.classes.input, aimed, [shared.classes, *view.inputs], outputs, **ending)
    shared.on(shared.bars.select, clicked, view.inputs, outputs, **ending)
    shared.examples.select(example, None, shared.photo, **PLUMBING)
