"""The page: a header, what everything is about on the left, and one tab per row of TABS."""

from __future__ import annotations

import errno
import socket
from types import ModuleType
from typing import Any

import gradio as gr

from dashboard.api import endpoints
from dashboard.components.base import to_gradio_error, url_update_js
from dashboard.components.photo import MAX_UPLOAD_MB
from dashboard.components.theme import build_theme, read_css
from dashboard.i18n.translate import (
    LANGUAGES,
    browser_text,
    browser_translations,
    language_of_request,
    page_texts,
    tab_title,
    use_language,
)
from dashboard.server.options import HOUR_SECONDS, ServerOptions
from dashboard.server.server import DISK_FULL_MESSAGE, UNWRITABLE_ERRNOS, configure_process, make_app_kwargs
from dashboard.server.temp_dirs import private_temp_dir
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.model_catalog import ModelCatalog
from dashboard.sidebar import sidebar
from dashboard.state.context import PRIVATE_EVENT
from dashboard.tabs import attention, code, compare, inspect, learn, model, why
from vizlib import VizlibError

TABS = (why, attention, inspect, compare, learn, model, code)
TITLE = page_texts(LANGUAGES[0])["page.title"]


def build_app(catalog: ModelCatalog | None = None) -> gr.Blocks:
    """The whole page over a catalog of models, with the settings that suit one person on one machine."""
    return build_page(AnalysisService(catalog or ModelCatalog()), ServerOptions())


def build_page(service: AnalysisService, settings: ServerOptions) -> gr.Blocks:
    """The whole page over a service."""
    age = settings.delete_after
    tidied = (min(age, HOUR_SECONDS), age)  # how often, in seconds, and how old a file may be
    with Page(title="vizlib: " + TITLE.lower(), analytics_enabled=False, delete_cache=tidied) as page:
        with gr.Row(elem_id="header", equal_height=False):
            gr.HTML(browser_text("header"), apply_default_css=False)
            link = gr.Column(scale=0, min_width=120)
        with gr.Row(elem_id="page", equal_height=False):
            with gr.Column(scale=1, min_width=300, elem_id="sidebar"):
                common = sidebar.build_sidebar(service)
            with gr.Column(scale=3, min_width=320, elem_id="tabs"), gr.Tabs() as tabs:
                views = {}
                for tab in TABS:
                    with gr.Tab(tab_title(_id(tab), tab.TITLE), id=_id(tab)) as opened:
                        views[tab] = tab.build(common)
                    opened.select(None, None, None, js=url_update_js("v", _id(tab)), **PRIVATE_EVENT)
        with link:
            common.address.render()
        taking = {"js": url_update_js("v", _id(code)), **PRIVATE_EVENT}
        common.address.select(lambda: gr.Tabs(selected=_id(code)), None, tabs, **taking)
        sidebar.connect_events(common, page, tabs, [_id(tab) for tab in TABS], views[why])
        endpoints.build_endpoints(service)
    page.queue(api_open=False, max_size=settings.max_queue, default_concurrency_limit=settings.workers)
    return page


class Page(gr.Blocks):
    """Gradio's page, which answers in the visitor's language.

    It says in a sentence that a file, such as the picture of an answer, cannot be written.
    """

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Answer one event."""
        try:
            with use_language(language_of_request(kwargs.get("request"))):
                return await super().process_api(*args, **kwargs)
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ is not None:  # gradio puts what goes wrong with a component into an error of its own
                cause = cause.__cause__
            if isinstance(cause, OSError) and cause.errno in UNWRITABLE_ERRNOS:
                raise to_gradio_error(VizlibError(DISK_FULL_MESSAGE)) from None
            raise


def launch(page: gr.Blocks, host: str | None = "127.0.0.1", port: int | None = 7860, **more) -> tuple:
    """Start serving a page with everything switched off that would tell others about its visitors.

    Without a host or port, GRADIO_SERVER_NAME and GRADIO_SERVER_PORT are asked.

    Raises: VizlibError where nothing can listen at this host and port.
    """
    try:
        return page.launch(
            server_name=host,
            server_port=port or None,
            theme=build_theme(),
            css=read_css(),
            max_file_size=f"{MAX_UPLOAD_MB}mb",
            state_session_capacity=200,
            run_history=False,
            enable_monitoring=False,
            footer_links=["api"],
            pwa=False,
            share=False,
            ssr_mode=False,  # a Space asks for it, and nothing here was tried with it
            i18n=browser_translations(),
            **more,
        )
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and "empty port" not in str(error):  # it says so whatever the reason is
            raise
        raise VizlibError(_no_port(host, port)) from error


def serve(settings: ServerOptions | None = None) -> None:
    """Build the page and serve it until interrupted.

    Raises: VizlibError for settings that cannot be followed, or a port that is taken.
    """
    settings = settings or ServerOptions()
    configure_process(settings)
    service, users = AnalysisService(settings.make_catalog()), settings.parse_users()
    with private_temp_dir():
        launch(
            build_page(service, settings),
            settings.host,
            settings.port,
            inbrowser=settings.browser,
            auth=users,
            mcp_server=settings.mcp,
            app_kwargs=make_app_kwargs(service, settings),
        )


def _id(tab: ModuleType) -> str:
    """What a tab is called in the page's address."""
    return tab.TITLE.lower().replace(" ", "-")


def _no_port(host: str | None, port: int | None) -> str:
    """Why nothing can listen there, found out by trying once more."""
    if not port:
        return "no port from 7860 on is free; give one with --port"
    if not 0 < port < 65536:
        return f"a port is a number from 0 to 65535, not {port}"
    try:
        with socket.create_server((host, port)):
            pass
    except PermissionError:
        return f"port {port} may not be used by this user; give one above 1023 with --port"
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return f"nothing can listen at {host}: {error.strerror or error}; give this machine's address with --host"
    return f"port {port} is taken; give another with --port, or 0 for any free one"
