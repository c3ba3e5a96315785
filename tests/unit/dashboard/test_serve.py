"""`dashboard.serve` shows models of the caller: from an interactive session, with clear errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, cast

import pytest
import timm
from bundled_models import load_bundled

import dashboard
import vizlib
from dashboard.server.options import ServerOptions
from vizlib import VizlibError

SESSION = """
import json, os, sys

sys.ps1 = ">>> "  # as in an interactive session, where gradio does not wait
import timm, gradio.media
from gradio_client import Client, handle_file
import dashboard, vizlib
from dashboard.server.temp_dirs import TEMP_DIR_VARIABLE

network = timm.create_model("test_resnet", num_classes=3).eval()
mine = vizlib.wrap(network, labels=["llama", "fence", "sky"], name="mine <b>")
client = Client(dashboard.serve(mine, browser=False), verbose=False)
photo = gradio.media.get_image("tower.jpg")
shown = client.predict(handle_file(photo), api_name="/predict")  # by the first model of the menu
_, picture = client.predict(handle_file(photo), api_name="/explain")  # which the client downloads
assert os.path.getsize(picture)
expected = [[row.label, row.probability] for row in mine.predict(photo)]
print(json.dumps([shown, expected, os.environ[TEMP_DIR_VARIABLE], os.path.isdir(os.environ[TEMP_DIR_VARIABLE])]))
"""


@pytest.mark.slow
def test_interactive_session_serves_a_wrapped_network_until_it_ends():
    inherited = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
    command = [sys.executable, "-c", SESSION]
    done = subprocess.run(command, env=inherited, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    shown, expected, folder, existed = json.loads(done.stdout.splitlines()[-1])
    assert [[row["label"], row["probability"]] for row in shown] == [[name, pytest.approx(p)] for name, p in expected]
    assert existed
    assert not os.path.exists(folder)


def test_given_models_come_first_and_are_not_loaded_again():
    mine = load_bundled("resnet18-imagenette")
    catalog = ServerOptions(models=("vit_tiny-imagenette",)).make_catalog({mine.name: mine})
    assert catalog.names == [mine.name, "vit_tiny-imagenette"]
    assert catalog.get(mine.name) is mine
    names = ServerOptions().make_catalog({"other": mine}).names
    assert names[0] == "other"
    assert mine.name in names
    pretrained = next(entry.name for entry in vizlib.list_models() if entry.needs_download)
    for offline in (False, True):
        catalog = ServerOptions(offline=offline).make_catalog({pretrained: mine})
        assert catalog.get_entry(pretrained).source == "given"


def test_mistakes_are_one_sentence():
    network = timm.create_model("test_resnet", num_classes=3).eval()
    mine = vizlib.wrap(network)
    for arguments, options, message in (
        ([network], {}, "serve takes models that load or wrap returned, not ResNet"),
        ([mine, vizlib.wrap(network)], {}, "'ResNet' is the name of several models"),
        ([mine], {"hots": "0.0.0.0"}, "there is no option 'hots'; did you mean host"),
    ):
        with pytest.raises(VizlibError, match=message):
            dashboard.serve(*cast(Any, arguments), **cast(Any, options))
