"""Use in code: the lines that make the map under Why again, and the map as files to take away."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

import vizlib
from dashboard.components.address import space
from dashboard.components.base import on_opening, part
from dashboard.components.captions import caption, nothing_yet, question
from dashboard.components.code import Block, code
from dashboard.components.files import files, made
from dashboard.components.knobs import turned
from dashboard.i18n.translate import browser_text, translate
from dashboard.services.analysis_service import Study
from dashboard.services.byte_cache import key_of
from dashboard.services.examples import EXAMPLES, addressed
from dashboard.state.context import PLUMBING, Shared
from dashboard.state.selection import Selection
from vizlib import VizlibError
from vizlib.attribution.methods.registry import METHODS
from vizlib.core import text as wording
from vizlib.core.atomic_files import written
from vizlib.reporting.code_snippets import Recipe, class_name

TITLE = "Use in code"
HERE = "http://127.0.0.1:7860/"  # stands for the page's own address
FORMS = ("html", "svg", "png", "npz")
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
        return nothing_yet(), code(())
    made_of = recipe(study, photo, selection, method, menus)
    labels = study.catalog.get(selection.model).labels
    rival = "" if selection.against is None else labels[selection.against]
    heading = question(method, labels[selection.target], rival)
    name = made_of.photo
    sentence = translate("code.photo-yours" if name == "photo.jpg" else "code.photo-seen", name=name)
    client = made_of.client(space() or HERE)
    blocks = (
        Block("Python", translate("code.python"), made_of.python()),
        Block(translate("code.shell"), translate("code.shell-hint"), made_of.shell()),
        Block(translate("code.client"), translate("code.client-hint"), client),
    )
    return caption(heading, sentence), code(blocks, here="" if space() else HERE)


def offered() -> dict[str, tuple[str, str]]:
    """The forms to save the map in, each with what it is called and what is in it."""
    return {form: (translate(f"code.{form}"), translate(f"code.{form}-hint")) for form in FORMS}


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
        raise VizlibError(translate("code.no-photo"))
    if form not in FORMS:
        raise VizlibError(f"cannot save as {form!r}; use one of {', '.join(FORMS)}")
    model = study.catalog.get(selection.model)
    settings = turned(menus, model, method)
    answer = study.known(photo, *selection[1:3], method, settings, selection.against)
    if answer is None:
        raise VizlibError(translate("code.not-run", method=method))
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=folder)) / f"{answer.stem}.{form}"  # its address cannot be guessed
    if form == "html":
        return vizlib.report(answer, path, model=model, recipes=[recipe(study, photo, selection, method, menus)])
    if form == "npz":
        return answer.save(path)
    rival = "" if selection.against is None else model.labels[selection.against]
    with written(path) as file:
        asked = wording.question(answer.label, rival, of_class=METHODS[method].of_class)  # its letters are Latin ones
        board = answer.figure(f"{asked} {answer.model}, {method}")
        board.savefig(file, format=form, metadata={"Date": None} if form == "svg" else None)
    return path


def build(shared: Shared) -> None:
    """The words and the files to take away, then the lines."""
    study = shared.study
    words = gr.HTML(elem_id="code-words", apply_default_css=False)
    gr.HTML(f"<h2>{browser_text('send')}</h2>", elem_classes="viz-heading", apply_default_css=False)
    forms = part("files", elem_id="code-files")
    taken = gr.DownloadButton(visible="hidden", elem_id="taken")
    gr.HTML(f"<h2>{browser_text('again')}</h2>", elem_classes="viz-heading", apply_default_css=False)
    lines = part("code", elem_id="code-lines")
    asked = [shared.method, shared.knobs]
    on_opening(lambda: files(offered()), [forms])

    def again(photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> tuple:
        return draw(study, photo, selection, method, menus)

    def save(
        photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any, event: gr.SelectData
    ) -> tuple:
        path = export(study, photo, selection, method, menus, str(event.index), Path(taken.GRADIO_CACHE))
        return path, files(offered(), made(path.name, path.stat().st_size), path.parent.name)

    def changing(answer: Any, inputs: list, outputs: list, **how: Any) -> None:
        gr.on([shared.selection.change, shared.method.change, shared.knobs.change], answer, inputs, outputs, **how)

    shared.on(changing, again, asked, [words, lines])
    saving = shared.on(forms.select, save, asked, [taken, forms])
    saving.success(None, None, None, js=DOWNLOAD, **PLUMBING)
    saving.failure(None, None, None, js=NOTHING, **PLUMBING)
