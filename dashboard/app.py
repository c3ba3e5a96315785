"""The page: a header, the sidebar, and one tab for each row of `TABS`; and the server that serves it."""

from __future__ import annotations

import errno
import socket
from types import ModuleType
from typing import Any

import gradio as gr

from dashboard.api import endpoints
from dashboard.components.error_messages import to_gradio_error
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
from dashboard.state.page_address import update_address_js
from dashboard.tabs import attention, code, compare, inspect, learn, model, why
from vizlib import VizlibError

TABS = (why, attention, inspect, compare, learn, model, code)
TITLE = page_texts(LANGUAGES[0])["page.title"]


def build_app(catalog: ModelCatalog | None = None) -> gr.Blocks:
    """Return the page for a catalog of models, with the default options of a server."""
    return build_page(AnalysisService(catalog or ModelCatalog()), ServerOptions())


def build_page(service: AnalysisService, options: ServerOptions) -> gr.Blocks:
    """Return the page that shows the results of a service."""
    max_age = options.delete_after
    delete_cache = (min(max_age, HOUR_SECONDS), max_age)  # interval and maximum age of files, in seconds
    with Page(title="vizlib: " + TITLE.lower(), analytics_enabled=False, delete_cache=delete_cache) as page:
        with gr.Row(elem_id="header", equal_height=False):
            gr.HTML(browser_text("header"), apply_default_css=False)
            address_column = gr.Column(scale=0, min_width=120)
        with gr.Row(elem_id="page", equal_height=False):
            with gr.Column(scale=1, min_width=300, elem_id="sidebar"):
                context = sidebar.build_sidebar(service)
            with gr.Column(scale=3, min_width=320, elem_id="tabs"), gr.Tabs() as tabs:
                views = {}
                for tab in TABS:
                    with gr.Tab(tab_title(_tab_id(tab), tab.TITLE), id=_tab_id(tab)) as component:
                        views[tab] = tab.build_tab(context)
                    component.select(None, None, None, js=update_address_js("v", _tab_id(tab)), **PRIVATE_EVENT)
        with address_column:
            context.copy_link.render()
        show_code = {"js": update_address_js("v", _tab_id(code)), **PRIVATE_EVENT}
        context.copy_link.select(lambda: gr.Tabs(selected=_tab_id(code)), None, tabs, **show_code)
        sidebar.connect_events(context, page, tabs, [_tab_id(tab) for tab in TABS], views[why])
        endpoints.build_endpoints(service)
    page.queue(api_open=False, max_size=options.max_queue, default_concurrency_limit=options.workers)
    return page


class Page(gr.Blocks):
    """A page that handles events in the visitor's language, and reports in a sentence that a file cannot be written."""

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Handle one event."""
        try:
            with use_language(language_of_request(kwargs.get("request"))):
                return await super().process_api(*args, **kwargs)
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ is not None:  # gradio wraps the errors of components
                cause = cause.__cause__
            if isinstance(cause, OSError) and cause.errno in UNWRITABLE_ERRNOS:
                raise to_gradio_error(VizlibError(DISK_FULL_MESSAGE)) from None
            raise


def launch(page: gr.Blocks, host: str | None = "127.0.0.1", port: int | None = 7860, **more) -> tuple:
    """Serve a page without anything that would reveal its visitors to others.

    Args:
        page: The page.
        host: Address to listen on; by default of GRADIO_SERVER_NAME.
        port: Port to listen on; by default of GRADIO_SERVER_PORT.
        more: Further arguments of gradio's `launch`.

    Returns:
        The result of gradio's `launch`: application, local URL and share URL.

    Raises:
        VizlibError: If the server cannot listen on this address and port.
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
            ssr_mode=False,  # enabled by default on a Space; the page was never tested with it
            i18n=browser_translations(),
            **more,
        )
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and "empty port" not in str(error):  # gradio's message for every reason
            raise
        raise VizlibError(_explain_port_error(host, port)) from error


def serve(options: ServerOptions | None = None) -> None:
    """Build the page and serve it until interrupted.

    Raises:
        VizlibError: For options that cannot be applied, or a port that is in use.
    """
    options = options or ServerOptions()
    configure_process(options)
    service, users = AnalysisService(options.make_catalog()), options.parse_users()
    with private_temp_dir():
        launch(
            build_page(service, options),
            options.host,
            options.port,
            inbrowser=options.browser,
            auth=users,
            mcp_server=options.mcp,
            app_kwargs=make_app_kwargs(service, options),
        )


def _tab_id(tab: ModuleType) -> str:
    """Return the name of a tab in the page's address."""
    return tab.TITLE.lower().replace(" ", "-")


def _explain_port_error(host: str | None, port: int | None) -> str:
    """Return why the server cannot listen on an address and port, from a second try."""
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
