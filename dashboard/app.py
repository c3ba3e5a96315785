"""The page: a header, what everything is about on the left, and one tab per row of TABS."""

from __future__ import annotations

import gradio as gr

from dashboard import api, shared
from dashboard.catalog import Catalog
from dashboard.study import Study
from dashboard.tabs import attention, inside, why
from dashboard.theme import css, theme

TABS = (why, attention, inside)
TITLE = "See why a vision model decided"
SENTENCE = (
    "Drop a photo, click a class, a method, a patch or a channel, and the pictures answer. "
    "Your photo stays on the machine that serves this page."
)
MEGABYTES = 20  # of one uploaded photo
HOUR = 3600


def build_app(catalog: Catalog | None = None) -> gr.Blocks:
    """The whole page over a catalog of models."""
    study = Study(catalog or Catalog())
    with gr.Blocks(title="vizlib: " + TITLE.lower(), analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        gr.HTML(f"<h1>{TITLE}</h1><p>{SENTENCE}</p>", elem_id="header", apply_default_css=False)
        with gr.Row(elem_id="page", equal_height=False):
            with gr.Column(scale=1, min_width=300, elem_id="left"):
                common = shared.build(study, page)
            with gr.Column(scale=3, min_width=320, elem_id="right"), gr.Tabs():
                for tab in TABS:
                    with gr.Tab(tab.TITLE, id=tab.TITLE.lower()):
                        tab.build(common)
        api.build(study)
    page.queue(api_open=False, max_size=64)
    return page


def launch(page: gr.Blocks, host: str = "127.0.0.1", port: int | None = 7860, **more) -> tuple:
    """Start serving a page with everything switched off that would tell others about its visitors."""
    return page.launch(
        server_name=host,
        server_port=port or None,
        theme=theme(),
        css=css(),
        max_file_size=f"{MEGABYTES}mb",
        state_session_capacity=200,
        run_history=False,
        enable_monitoring=False,
        footer_links=["api"],
        pwa=False,
        share=False,
        **more,
    )


def serve(
    host: str = "127.0.0.1", port: int = 7860, *, inbrowser: bool = False, catalog: Catalog | None = None
) -> None:
    """Build the page and serve it until interrupted."""
    launch(build_app(catalog), host, port, inbrowser=inbrowser)
