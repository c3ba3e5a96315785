"""A checkpoint may be a pickle that executes code when it is loaded; requests never cause one to be executed."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

RESNET = "resnet18-imagenette"


@pytest.fixture(scope="module")
def photo(server):
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(file, "PNG")
    return server.upload(file.getvalue())


def test_pickle_among_the_checkpoints_is_refused_and_not_executed(server, photo):
    event, message = server.call("predict", photo, "evil", 1)
    assert not server.created.exists()
    assert event == "error"
    assert "it contains more than weights" in message
    assert not any(text in message for text in ("\n", "weights_only", str(server.unsafe_checkpoint.parent)))


def test_pickle_sent_as_photo_or_model_name_is_not_executed(server, photo):
    upload = server.upload(server.unsafe_checkpoint.read_bytes(), "evil.pth")
    event, message = server.call("predict", upload, RESNET, 1)
    assert not server.created.exists()
    assert (event, "expected a photo as" in message) == ("error", True), message
    for path in (upload["path"], str(server.unsafe_checkpoint), f"../checkpoints/{server.unsafe_checkpoint.name}"):
        event, message = server.call("predict", photo, path, 1)
        assert not server.created.exists()
        assert event == "error"
        assert message.startswith("there is no model ")


def test_pickle_executes_code_when_loaded_unsafely(server):
    """Last in this file: the pickle is executed here, and the file it creates deleted."""
    torch.load(server.unsafe_checkpoint, weights_only=False)
    assert server.created.exists()
    server.created.unlink()
