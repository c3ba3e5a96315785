"""Networks with real weights that several files of this folder compare with other libraries."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", params=["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def resnet(request, real_network):
    return real_network(request.param)


@pytest.fixture(scope="module")
def deit(real_network):
    return real_network("deit_tiny_patch16_224")
