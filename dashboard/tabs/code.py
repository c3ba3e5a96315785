"""The Use in code tab: code that computes the map of the Why tab, and the map as a file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

import vizlib
from dashboard.components.captions import build_caption, build_no_photo_caption, format_heading
from dashboard.components.code import CodeBlock, build_code_blocks
from dashboard.components.copy_link import get_space_id
from dashboard.components.custom_component import custom_component, on_page_load
from dashboard.components.files import build_file_buttons, describe_file
from dashboard.components.parameters import parse_parameter_menus
from dashboard.i18n.translate import translate, translate_in_browser
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.example_photos import EXAMPLES, open_example_photos
from dashboard.services.photo_key import compute_photo_key
from dashboard.services.prompted_name import get_catalog_name
from dashboard.state.context import PRIVATE_EVENT, TabContext
from dashboard.state.selection import Selection
from vizlib import VizlibError
from vizlib.attribution.methods.registry import METHODS
from vizlib.core import text
from vizlib.core.atomic_files import open_atomic
from vizlib.reporting.code_snippets import CodeSnippet, find_class_name

TITLE = "Use in code"
ADDRESS_PLACEHOLDER = "http://127.0.0.1:7860/"  # replaced by the page's address in the browser
EXPORT_FORMATS = ("html", "svg", "png", "npz")
DOWNLOAD_JS = "() => document.querySelector('#download').click()"
CLEAR_STATUS_JS = "() => { document.querySelector('#code-files .viz-file-status').textContent = ''; }"


def make_code_snippet(
    service: AnalysisService, photo: Image.Image, selection: Selection, method: str, menus: Any
) -> CodeSnippet:
    """Return what the code of the Use in code tab states: model, method, classes, parameters and photo."""
    model, entry = service.catalog.get(selection.model), service.catalog.get_entry(selection.model)
    against = selection.against
    return CodeSnippet(
        get_catalog_name(selection.model),
        method,
        find_class_name(selection.target, model),
        None if against is None else find_class_name(against, model),
        parse_parameter_menus(menus, model, method),
        name_photo_in_code(photo),
        checkpoints="." if entry.source == "folder" else None,  # the path on the server is not for visitors
        is_wrapped=model.is_wrapped,
        prompts=list_prompts_in_code(model),
    )


def list_prompts_in_code(model: vizlib.Model) -> tuple[str, ...] | None:
    """Return the prompts in the code of the Use in code tab; `None` where the classes are those of the model itself."""
    if model.prompt_source is None or tuple(model.labels) == model.prompt_source.default_prompts:
        return None
    return tuple(map(str, model.labels))


def name_photo_in_code(photo: Image.Image) -> str:
    """Return a photo's file name in the code of the Use in code tab: an example's, or a placeholder for an upload."""
    names = {
        compute_photo_key(example): Path(path).name
        for example, path in zip(open_example_photos().values(), EXAMPLES.values(), strict=True)
    }
    return names.get(compute_photo_key(photo), "photo.jpg")


def compute_content(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any
) -> tuple[str, dict[str, Any]]:
    """Return the content of the Use in code tab: the caption and the blocks of code."""
    if photo is None or selection is None or method is None:
        return build_no_photo_caption(), build_code_blocks(())
    snippet = make_code_snippet(service, photo, selection, method, menus)
    labels = service.catalog.get(selection.model).labels
    contrast_label = "" if selection.against is None else labels[selection.against]
    heading = format_heading(method, labels[selection.target], contrast_label)
    name = snippet.photo
    sentence = translate("code.photo-yours" if name == "photo.jpg" else "code.photo-seen", name=name)
    client = snippet.to_client(get_space_id() or ADDRESS_PLACEHOLDER)
    blocks = (
        CodeBlock("Python", translate("code.python"), snippet.to_python()),
        CodeBlock(translate("code.shell"), translate("code.shell-hint"), snippet.to_shell()),
        CodeBlock(translate("code.client"), translate("code.client-hint"), client),
    )
    return build_caption(heading, sentence), build_code_blocks(
        blocks, address_placeholder="" if get_space_id() else ADDRESS_PLACEHOLDER
    )


def describe_export_formats() -> dict[str, tuple[str, str]]:
    """Return the name and a description of each file format that the Use in code tab exports."""
    return {name: (translate(f"code.{name}"), translate(f"code.{name}-hint")) for name in EXPORT_FORMATS}


def export_map(
    service: AnalysisService,
    photo: Image.Image | None,
    selection: Selection | None,
    method: str | None,
    menus: Any,
    file_format: str,
    folder: Path,
) -> Path:
    """Export the map of the Why tab for the Use in code tab: write a file in a new folder, and return its path.

    Raises:
        VizlibError: Without a photo, for an unknown format, or where the method has not run yet.
    """
    if photo is None or selection is None or method is None:
        raise VizlibError(translate("code.no-photo"))
    if file_format not in EXPORT_FORMATS:
        raise VizlibError(f"cannot save as {file_format!r}; use one of {', '.join(EXPORT_FORMATS)}")
    model = service.catalog.get(selection.model)
    parameters = parse_parameter_menus(menus, model, method)
    attribution = service.find_or_explain(selection.make_request(photo, method, parameters))
    if attribution is None:
        raise VizlibError(translate("code.not-run", method=method))
    attribution = service.add_trust(selection.model, attribution)
    folder.mkdir(parents=True, exist_ok=True)
    new_folder = Path(tempfile.mkdtemp(dir=folder))  # a random name, so the address of the file cannot be guessed
    path = new_folder / f"{attribution.file_stem}.{file_format}"
    if file_format == "html":
        return vizlib.report(
            attribution, path, model=model, snippets=[make_code_snippet(service, photo, selection, method, menus)]
        )
    if file_format == "npz":
        return attribution.save(path)
    with open_atomic(path) as file:
        class_specific = METHODS[method].class_specific
        title = text.format_question(
            attribution.label, attribution.against_label, class_specific=class_specific
        )  # in English
        figure = attribution.figure(f"{title} {attribution.model}, {method}")
        figure.savefig(file, format=file_format, metadata={"Date": None} if file_format == "svg" else None)
    return path


def build_tab(context: TabContext) -> None:
    """Build the Use in code tab: the caption, the files to download and the code blocks."""
    service = context.service
    caption = gr.HTML(elem_id="code-caption", apply_default_css=False)
    gr.HTML(f"<h2>{translate_in_browser('share')}</h2>", elem_classes="viz-heading", apply_default_css=False)
    files = custom_component("files", elem_id="code-files")
    download = gr.DownloadButton(visible="hidden", elem_id="download")
    gr.HTML(f"<h2>{translate_in_browser('reproduce')}</h2>", elem_classes="viz-heading", apply_default_css=False)
    code = custom_component("code", elem_id="code-lines")
    inputs = [context.method, context.parameters]
    on_page_load(lambda: build_file_buttons(describe_export_formats()), [files])

    def update(photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> tuple:
        return compute_content(service, photo, selection, method, menus)

    def save(
        photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any, event: gr.SelectData
    ) -> tuple:
        path = export_map(service, photo, selection, method, menus, str(event.index), Path(download.GRADIO_CACHE))
        return path, build_file_buttons(
            describe_export_formats(), describe_file(path.name, path.stat().st_size), path.parent.name
        )

    def on_change(handler: Any, inputs: list, outputs: list, **options: Any) -> None:
        gr.on(
            [context.selection.change, context.method.change, context.parameters.change],
            handler,
            inputs,
            outputs,
            **options,
        )

    context.on_event(on_change, update, inputs, [caption, code])
    save_event = context.on_event(files.select, save, inputs, [download, files])
    save_event.success(None, None, None, js=DOWNLOAD_JS, **PRIVATE_EVENT)
    save_event.failure(None, None, None, js=CLEAR_STATUS_JS, **PRIVATE_EVENT)
