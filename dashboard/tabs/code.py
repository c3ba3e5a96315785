"""Use in code: the lines that make the map under Why again, and the map as files to take away."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

import vizlib
from dashboard.cache import key_of
from dashboard.components.address import space
from dashboard.components.base import part
from dashboard.components.code import Block, code
from dashboard.components.files import files, made
from dashboard.components.knobs import turned
from dashboard.examples import EXAMPLES, addressed
from dashboard.selection import Selection
from dashboard.shared import PLUMBING, Shared
from dashboard.study import Study
from dashboard.words import NO_PHOTO, caption, question
from vizlib import VizlibError
from vizlib.files import written
from vizlib.recipes import Recipe, class_name

TITLE = "Use in code"
HERE = "http://127.0.0.1:7860/"  # stands for the page's own address
FORMS = {
    "html": ("HTML report", "One page with the pictures, the raw values and how they came about; it opens anywhere"),
    "svg": ("Figure (SVG)", "The map beside its colour bar, for a paper"),
    "png": ("Figure (PNG)", "The same as pixels, for a slide"),
    "npz": ("Raw values (.npz)", "The method's own numbers, for NumPy"),
}
DOWNLOAD = "() => document.querySelector('#taken').click()"
NOTHING = "() => { document.querySelector('#code-files .viz-told').textContent = ''; }"


def recipe(study: Study, photo: Image.Image, selection: Selection, method: str, menus: Any) -> Recipe:
    """What the map under Why is made of."""
    model, entry = study.catalog.get(selection.model), study.catalog.entry(selection.model)
    against = selection.against
    return Recipe(
        selection.model,
        method,
        class_name(selection.target, model),
        None if against is None else class_name(against, model),
        turned(menus, model, method),
        photo_name(photo),
        checkpoints="." if entry.source == "folder" else None,  # visitors need not know where the server keeps it
    )


def photo_name(photo: Image.Image) -> str:
    """What a photo's file is called in code: an example by its name; how yours is called, nobody told."""
    names = {key_of(one): Path(path).name for one, path in zip(addressed().values(), EXAMPLES.values(), strict=True)}
    return names.get(key_of(photo), "photo.jpg")


def draw(
    study: Study, photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any
) -> tuple[str, dict[str, Any]]:
    """What the lines are for, and the lines."""
    if photo is None or selection is None or method is None:
        return caption("No photo yet", NO_PHOTO), code(())
    made_of = recipe(study, photo, selection, method, menus)
    labels = study.catalog.get(selection.model).labels
    rival = "" if selection.against is None else labels[selection.against]
    heading = question(method, labels[selection.target], rival)
    name = made_of.photo
    own = f"{name} stands for your own photo." if name == "photo.jpg" else f"{name} is the photo you see."
    blocks = (
        Block("Python", "On any machine with vizlib.", made_of.python()),
        Block("Shell", "The same in one line; its report holds the pictures and the raw values.", made_of.shell()),
        Block(
            "API client",
            "Asks this page, so all it needs is pip install gradio_client.",
            made_of.client(space() or HERE),
        ),
    )
    sentence = f"The map under Why, made again: same class, method and knobs, same numbers. {own}"
    return caption(heading, sentence), code(blocks, here="" if space() else HERE)


def export(
    study: Study,
    photo: Image.Image | None,
    selection: Selection | None,
    method: str | None,
    menus: Any,
    form: str,
    folder: Path,
) -> Path:
    """The map under Why as a file of one of `FORMS`, in a fresh folder inside `folder`.

    Raises: VizlibError where there is no photo, no such form, or the method has not run yet.
    """
    if photo is None or selection is None or method is None:
        raise VizlibError("there is nothing to save yet: choose a photo first")
    if form not in FORMS:
        raise VizlibError(f"cannot save as {form!r}; use one of {', '.join(FORMS)}")
    model = study.catalog.get(selection.model)
    settings = turned(menus, model, method)
    answer = study.known(photo, *selection[1:3], method, settings, selection.against)
    if answer is None:
        raise VizlibError(f"{method} has not run yet: start it under Why, then its map can be saved")
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=folder)) / f"{answer.stem}.{form}"  # its address cannot be guessed
    if form == "html":
        return vizlib.report(answer, path, model=model, recipes=[recipe(study, photo, selection, method, menus)])
    if form == "npz":
        return answer.save(path)
    rival = "" if selection.against is None else model.labels[selection.against]
    with written(path) as file:
        board = answer.figure(f"{question(method, answer.label, rival)} {answer.model}, {method}")
        board.savefig(file, format=form, metadata={"Date": None} if form == "svg" else None)
    return path


def build(shared: Shared) -> None:
    """The words and the files to take away, then the lines."""
    study = shared.study
    words = gr.HTML(elem_id="code-words", apply_default_css=False)
    gr.HTML("<h2>Send it to someone</h2>", elem_classes="viz-heading", apply_default_css=False)
    offered = part("files", files(FORMS), elem_id="code-files")
    taken = gr.DownloadButton(visible="hidden", elem_id="taken")
    gr.HTML("<h2>Make it again</h2>", elem_classes="viz-heading", apply_default_css=False)
    lines = part("code", elem_id="code-lines")
    asked = [shared.method, shared.knobs]

    def again(photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> tuple:
        return draw(study, photo, selection, method, menus)

    def save(
        photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any, event: gr.SelectData
    ) -> tuple:
        path = export(study, photo, selection, method, menus, str(event.index), Path(taken.GRADIO_CACHE))
        return path, files(FORMS, made(path.name, path.stat().st_size), path.parent.name)

    def changing(answer: Any, inputs: list, outputs: list, **how: Any) -> None:
        gr.on([shared.selection.change, shared.method.change, shared.knobs.change], answer, inputs, outputs, **how)

    shared.on(changing, again, asked, [words, lines])
    saving = shared.on(offered.select, save, asked, [taken, offered])
    saving.success(None, None, None, js=DOWNLOAD, **PLUMBING)
    saving.failure(None, None, None, js=NOTHING, **PLUMBING)
