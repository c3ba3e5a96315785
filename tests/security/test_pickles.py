"""A checkpoint may be a pickle that runs code when it is read: over HTTP none is ever run."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

RESNET = "resnet18-imagenette"


@pytest.fixture(scope="module")
def given(server):
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(file, "PNG")
    return server.upload(file.getvalue())


def test_a_pickle_in_the_folder_of_checkpoints_is_refused_in_one_sentence_and_never_run(server, given):
    event, said = server.call("predict", given, "evil", 1)
    assert event == "error"
    assert "it is more than weights" in said
    assert not any(bad in said for bad in ("\n", "weights_only", str(server.evil.parent)))
    assert not server.written.exists()


def test_a_pickle_sent_as_a_photo_or_named_as_a_model_is_never_run(server, given):
    evil = server.upload(server.evil.read_bytes(), "evil.pth")
    event, said = server.call("predict", evil, RESNET, 1)
    assert (event, "is not an image" in said) == ("error", True)
    for path in (evil["path"], str(server.evil), f"../checkpoints/{server.evil.name}"):
        event, said = server.call("predict", given, path, 1)
        assert event == "error"
        assert said.startswith("there is no model ")
    assert not server.written.exists()


def test_the_pickle_is_as_dangerous_as_it_should_be(server):
    """Last in this file: it is run here, and the file it writes taken away again."""
    torch.load(server.evil, weights_only=False)
    assert server.written.exists()
    server.written.unlink()
