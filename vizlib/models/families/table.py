"""The table of supported model families, and how a network's row is found.

A family locates a network's stages, first convolution and tokens. To support another one, add a row to `FAMILIES` of
the module of its library; which methods fit and what the dashboard offers is derived from it. A network of no known
family can be used with every method that needs only its layers.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from vizlib.models.families.convolutional_families import CONVOLUTIONAL_FAMILIES
from vizlib.models.families.family import Family, WindowedNetwork
from vizlib.models.families.layouts import Size, WindowLayout
from vizlib.models.families.open_clip_families import OPEN_CLIP_FAMILIES
from vizlib.models.families.timm_families import TIMM_FAMILIES, TIMM_WINDOWED_NETWORKS
from vizlib.models.families.torchvision_families import TORCHVISION_FAMILIES
from vizlib.models.families.transformers_families import TRANSFORMERS_FAMILIES, TRANSFORMERS_WINDOWED_NETWORKS

FAMILIES: tuple[Family, ...] = (
    *CONVOLUTIONAL_FAMILIES,
    *TIMM_FAMILIES,
    *TORCHVISION_FAMILIES,
    *TRANSFORMERS_FAMILIES,
    *OPEN_CLIP_FAMILIES,
)
WINDOWED_NETWORKS: tuple[WindowedNetwork, ...] = (*TIMM_WINDOWED_NETWORKS, *TRANSFORMERS_WINDOWED_NETWORKS)


def find_family(module: nn.Module) -> Family | None:
    """Return the model family of a network, its row in `FAMILIES`; `None` if there is none."""
    return next((family for family in FAMILIES if family.matches(module)), None)


def find_window_layouts(module: nn.Module, family: Family | None, size: Size) -> Mapping[str, WindowLayout]:
    """Return the windows of each attention layer of a network, by name; empty if they are not known.

    Args:
        module: The network.
        family: Its family, if it has one.
        size: Height and width of its input in pixels.
    """
    rows = [family] if family else [network for network in WINDOWED_NETWORKS if network.matches(module)]
    return next((row.windows(module, size) for row in rows if row.windows), {})


def find_inner_families(module: nn.Module) -> list[tuple[str, Family]]:
    """Return name and family of each outermost submodule that belongs to a family of `FAMILIES`."""
    found: list[tuple[str, Family]] = []
    for name, part in module.named_modules():
        family = find_family(part) if name else None
        if family is not None and not any(name.startswith(f"{outer}.") for outer, _ in found):
            found.append((name, family))
    return found
