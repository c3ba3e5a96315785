"""The page: a header, the sidebar, and one tab for each row of `TABS`; and its start with the options of a server."""

from __future__ import annotations

import atexit
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields
from types import MappingProxyType, ModuleType
from typing import Any

import gradio as gr

import vizlib
from dashboard.api import endpoints
from dashboard.components.error_messages import DISK_FULL_MESSAGE, UNWRITABLE_ERRNOS, to_gradio_error
from dashboard.components.help_link import build_tab_help
from dashboard.i18n.language import LANGUAGES, get_request_language, use_language
from dashboard.i18n.translate import get_page_texts, translate_in_browser, translate_tab_title
from dashboard.server.options import HOUR_SECONDS, ServerOptions
from dashboard.server.process import configure_process
from dashboard.server.server import launch, make_app_kwargs
from dashboard.server.temp_dirs import use_private_temp_dir
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.model_catalog import ModelCatalog
from dashboard.sidebar import sidebar
from dashboard.state.context import PRIVATE_EVENT
from dashboard.state.page_address import update_address_js
from dashboard.tabs import attention, code, compare, inspect, learn, model, why
from vizlib import VizlibError
from vizlib.core.errors import suggest_names

TABS = (why, attention, inspect, compare, learn, model, code)
TITLE = get_page_texts(LANGUAGES[0])["page.title"]


def build_app(catalog: ModelCatalog | None = None, **options: Any) -> gr.Blocks:
    """Return the app for a catalog of models.

    Args:
        catalog: The models to offer; by default all.
        **options: Options of the server.
    """
    return build_page(AnalysisService(catalog or ModelCatalog()), ServerOptions(**options))


def build_page(service: AnalysisService, options: ServerOptions) -> gr.Blocks:
    """Return the app's page: header, sidebar and tabs, which show the results of a service."""
    max_age = options.delete_after
    delete_cache = (min(max_age, HOUR_SECONDS), max_age)  # interval and maximum age of files, in seconds
    with Page(title="vizlib: " + TITLE.lower(), analytics_enabled=False, delete_cache=delete_cache) as page:
        with gr.Row(elem_id="header", equal_height=False):
            gr.HTML(translate_in_browser("header"), apply_default_css=False)
            address_column = gr.Column(scale=0, min_width=120)
        with gr.Row(elem_id="page", equal_height=False):
            with gr.Column(scale=1, min_width=300, elem_id="sidebar"):
                context = sidebar.build_sidebar(service, auto_trust=options.auto_trust and options.is_local)
            with gr.Column(scale=3, min_width=320, elem_id="tabs"), gr.Tabs() as tabs:
                views = {}
                for tab in TABS:
                    with gr.Tab(translate_tab_title(_make_tab_id(tab), tab.TITLE), id=_make_tab_id(tab)) as component:
                        views[tab] = tab.build_tab(context)
                        gr.HTML(build_tab_help(_make_tab_id(tab)), elem_classes="viz-tab-help", apply_default_css=False)
                    component.select(None, None, None, js=update_address_js("v", _make_tab_id(tab)), **PRIVATE_EVENT)
        with address_column:
            context.copy_link.render()
        show_code = {"js": update_address_js("v", _make_tab_id(code)), **PRIVATE_EVENT}
        context.copy_link.select(lambda: gr.Tabs(selected=_make_tab_id(code)), None, tabs, **show_code)
        sidebar.connect_events(context, page, tabs, [_make_tab_id(tab) for tab in TABS], views[why])
        endpoints.build_endpoints(service)
    page.queue(api_open=False, max_size=options.max_queue, default_concurrency_limit=options.workers)
    return page


class Page(gr.Blocks):
    """The app's page, which handles events in the visitor's language and reports that a file cannot be written."""

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Handle one event of the app's page."""
        try:
            with use_language(get_request_language(kwargs.get("request"))):
                return await super().process_api(*args, **kwargs)
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ is not None:  # gradio wraps the errors of components
                cause = cause.__cause__
            if isinstance(cause, OSError) and cause.errno in UNWRITABLE_ERRNOS:
                raise to_gradio_error(VizlibError(DISK_FULL_MESSAGE)) from None
            raise


def serve(*models: vizlib.Model, browser: bool = True, port: int | None = 0, **options: Any) -> str:
    """Show models of yours on the app's page, from a script or a notebook: return the address of the page.

    A script waits here until it is interrupted; a notebook or an interactive session goes on, and the page is served
    until its process ends.

    Args:
        *models: Models that `vizlib.load` or `vizlib.wrap` returned; the first is shown at first. The page also offers
            all models that it offers without them.
        browser: Open the page in a browser.
        port: Port to listen on; 0 for any free one.
        **options: Further options of `vizlib serve`, such as `host` and `auth`.

    Raises:
        VizlibError: For what is no model, two models of one name, unknown options or options that cannot be applied, or
            a port that is in use.
    """
    if others := [given for given in models if not isinstance(given, vizlib.Model)]:
        kind = type(others[0]).__name__
        raise VizlibError(f"serve takes models that load or wrap returned, not {kind}; vizlib.wrap makes one")
    if repeated := [name for name, count in Counter(given.name for given in models).items() if count > 1]:
        raise VizlibError(f"{repeated[0]!r} is the name of several models; give each its own with wrap(name=...)")
    known = [option.name for option in fields(ServerOptions)]
    if unknown := [name for name in options if name not in known]:
        raise VizlibError(f"there is no option {unknown[0]!r}; {suggest_names(unknown[0], known)}")
    return run_app(ServerOptions(browser=browser, port=port, **options), {given.name: given for given in models})


def run_app(options: ServerOptions | None = None, models: Mapping[str, vizlib.Model] = MappingProxyType({})) -> str:
    """Build the app and serve it until interrupted, or from an interactive session until its process ends.

    Args:
        options: The options of the server.
        models: Models to offer first, by name.

    Returns:
        The address of the page.

    Raises:
        VizlibError: For options that cannot be applied, or a port that is in use.
    """
    options = options or ServerOptions()
    configure_process(options)
    service, users = AnalysisService(options.make_catalog(models)), options.parse_users()
    with ExitStack() as at_end:
        at_end.enter_context(use_private_temp_dir())  # before the page is built: its components read where files go
        page = build_page(service, options)
        _, address, _ = launch(
            page,
            options.host,
            options.port,
            inbrowser=options.browser,
            auth=users,
            mcp_server=options.mcp,
            app_kwargs=make_app_kwargs(service, options),
        )
        if page.is_running:  # in an interactive session, where gradio does not wait
            atexit.register(at_end.pop_all().close)
    return address


def _make_tab_id(tab: ModuleType) -> str:
    """Return the id of a tab of the app, which is also its name in the page's address."""
    return tab.TITLE.lower().replace(" ", "-")
