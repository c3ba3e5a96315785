"""Loading of the model that is selected in the sidebar, with a progress bar of its download."""

from __future__ import annotations

import gradio as gr

from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService

MEGABYTE = 1_000_000


def load_selected_model(service: AnalysisService, model: str | None, progress: gr.Progress) -> None:
    """Load the model selected in the sidebar, and show the progress of its download.

    Raises:
        VizlibError: For a model that is not offered, or a download that fails.
    """
    for done, total in service.catalog.load_with_progress(model):
        in_megabytes = total >= MEGABYTE
        counts = (round(done / MEGABYTE), round(total / MEGABYTE)) if in_megabytes else (done, total)
        progress(counts, translate("page.downloading"), unit="MB" if in_megabytes else "B")
