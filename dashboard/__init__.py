"""The page where a person drops a photo and sees why a model decided what it decided: `python -m dashboard`."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read by gradio when it is imported, so before any of that
