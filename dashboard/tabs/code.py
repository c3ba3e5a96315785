"""Use in code: the lines that make the map under Why again, and the map as files to take away."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

import vizlib
from dashboard.components.address import get_space_id
from dashboard.components.base import custom_component, on_page_load
from dashboard.components.captions import build_caption, build_no_photo_caption, format_heading
from dashboard.components.code import CodeBlock, build_code_blocks
from dashboard.components.files import build_files, describe_file
from dashboard.components.parameters import parse_parameters
from dashboard.i18n.translate import browser_text, translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.byte_cache import photo_key
from dashboard.services.examples import EXAMPLES, load_examples
from dashboard.state.context import PRIVATE_EVENT, TabContext
from dashboard.state.selection import Selection
from vizlib import VizlibError
from vizlib.attribution.methods.registry import METHODS
from vizlib.core import text as wording
from vizlib.core.atomic_files import open_atomic
from vizlib.reporting.code_snippets import CodeSnippet, find_class_name

TITLE = "Use in code"
ADDRESS_PLACEHOLDER = "http://127.0.0.1:7860/"  # stands for the page's own address
EXPORT_FORMATS = ("html", "svg", "png", "npz")
DOWNLOAD_JS = "() => document.querySelector('#download').click()"
CLEAR_STATUS_JS = "() => { document.querySelector('#code-files .viz-file-status').textContent = ''; }"


def make_snippet(
    service: AnalysisService, photo: Image.Image, selection: Selection, method: str, menus: Any
) -> CodeSnippet:
    """What the map under Why is made of."""
    model, entry = service.catalog.get(selection.model), service.catalog.get_entry(selection.model)
    against = selection.against
    return CodeSnippet(
        selection.model,
        method,
        find_class_name(selection.target, model),
        None if against is None else find_class_name(against, model),
        parse_parameters(menus, model, method),
        get_photo_file_name(photo),
        checkpoints="." if entry.source == "folder" else None,  # visitors need not know where the server keeps it
    )


def get_photo_file_name(photo: Image.Image) -> str:
    """What a photo's file is called in code: an example by its name; how yours is called, nobody told."""
    names = {
        photo_key(one): Path(path).name for one, path in zip(load_examples().values(), EXAMPLES.values(), strict=True)
    }
    return names.get(photo_key(photo), "photo.jpg")


def compute_content(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any
) -> tuple[str, dict[str, Any]]:
    """What the lines are for, and the lines."""
    if photo is None or selection is None or method is None:
        return build_no_photo_caption(), build_code_blocks(())
    made_of = make_snippet(service, photo, selection, method, menus)
    labels = service.catalog.get(selection.model).labels
    rival = "" if selection.against is None else labels[selection.against]
    heading = format_heading(method, labels[selection.target], rival)
    name = made_of.photo
    sentence = translate("code.photo-yours" if name == "photo.jpg" else "code.photo-seen", name=name)
    client = made_of.to_client(get_space_id() or ADDRESS_PLACEHOLDER)
    blocks = (
        CodeBlock("Python", translate("code.python"), made_of.to_python()),
        CodeBlock(translate("code.shell"), translate("code.shell-hint"), made_of.to_shell()),
        CodeBlock(translate("code.client"), translate("code.client-hint"), client),
    )
    return build_caption(heading, sentence), build_code_blocks(
        blocks, address_placeholder="" if get_space_id() else ADDRESS_PLACEHOLDER
    )


def describe_formats() -> dict[str, tuple[str, str]]:
    """The forms to save the map in, each with what it is called and what is in it."""
    return {form: (translate(f"code.{form}"), translate(f"code.{form}-hint")) for form in EXPORT_FORMATS}


def export_map(
    service: AnalysisService,
    photo: Image.Image | None,
    selection: Selection | None,
    method: str | None,
    menus: Any,
    file_format: str,
    folder: Path,
) -> Path:
    """The map under Why as a file of one of `FORMS`, in a fresh folder inside `folder`.

    Raises: VizlibError where there is no photo, no such form, or the method has not run yet.
    """
    if photo is None or selection is None or method is None:
        raise VizlibError(translate("code.no-photo"))
    if file_format not in EXPORT_FORMATS:
        raise VizlibError(f"cannot save as {file_format!r}; use one of {', '.join(EXPORT_FORMATS)}")
    model = service.catalog.get(selection.model)
    settings = parse_parameters(menus, model, method)
    answer = service.find_or_explain(selection.request(photo, method, settings))
    if answer is None:
        raise VizlibError(translate("code.not-run", method=method))
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=folder)) / f"{answer.file_stem}.{file_format}"  # its address cannot be guessed
    if file_format == "html":
        return vizlib.report(
            answer, path, model=model, snippets=[make_snippet(service, photo, selection, method, menus)]
        )
    if file_format == "npz":
        return answer.save(path)
    rival = "" if selection.against is None else model.labels[selection.against]
    with open_atomic(path) as file:
        asked = wording.format_question(
            answer.label, rival, class_specific=METHODS[method].class_specific
        )  # its letters are Latin ones
        board = answer.figure(f"{asked} {answer.model}, {method}")
        board.savefig(file, format=file_format, metadata={"Date": None} if file_format == "svg" else None)
    return path


def build(shared: TabContext) -> None:
    """The words and the files to take away, then the lines."""
    service = shared.service
    words = gr.HTML(elem_id="code-caption", apply_default_css=False)
    gr.HTML(f"<h2>{browser_text('share')}</h2>", elem_classes="viz-heading", apply_default_css=False)
    forms = custom_component("files", elem_id="code-files")
    taken = gr.DownloadButton(visible="hidden", elem_id="download")
    gr.HTML(f"<h2>{browser_text('reproduce')}</h2>", elem_classes="viz-heading", apply_default_css=False)
    lines = custom_component("code", elem_id="code-lines")
    asked = [shared.method, shared.parameters]
    on_page_load(lambda: build_files(describe_formats()), [forms])

    def again(photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> tuple:
        return compute_content(service, photo, selection, method, menus)

    def save(
        photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any, event: gr.SelectData
    ) -> tuple:
        path = export_map(service, photo, selection, method, menus, str(event.index), Path(taken.GRADIO_CACHE))
        return path, build_files(describe_formats(), describe_file(path.name, path.stat().st_size), path.parent.name)

    def changing(answer: Any, inputs: list, outputs: list, **how: Any) -> None:
        gr.on([shared.selection.change, shared.method.change, shared.parameters.change], answer, inputs, outputs, **how)

    shared.on_event(changing, again, asked, [words, lines])
    saving = shared.on_event(forms.select, save, asked, [taken, forms])
    saving.success(None, None, None, js=DOWNLOAD_JS, **PRIVATE_EVENT)
    saving.failure(None, None, None, js=CLEAR_STATUS_JS, **PRIVATE_EVENT)
