"""Sentences about a checkpoint: why it cannot be loaded, and what was assumed where it was."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vizlib.core.text import Note, make_note
from vizlib.models.loading.restoring.architecture_detection import DetectedArchitecture, format_setting
from vizlib.models.loading.restoring.architecture_outline import ArchitectureOutline
from vizlib.models.loading.restoring.stored_networks import StoredNetwork
from vizlib.models.loading.restoring.weight_fitting import Fit

MAX_NAMES = 3  # how many weights or architectures a message names

# Encoders of contrastive learning, whose last linear layer gives an embedding rather than classes.
_EMBEDDING_NETWORKS = re.compile(
    r"(?:^|[._])(?:encoder_q|encoder_k|base_encoder|momentum_encoder|online_encoder|online_network)(?:$|[._])"
)


@dataclass(frozen=True)
class CheckpointMessages:
    """Messages about one checkpoint.

    Attributes:
        file: Name of the file.
        sidecar: Name of its sidecar, which may not exist.
    """

    file: str
    sidecar: str

    def describe_unknown(self, closest: str | None, fit: Fit | None) -> str:
        """Return why an architecture cannot be detected.

        Args:
            closest: The detectable architecture that fits best, if one fits in part.
            fit: How it fits.
        """
        start = f"{self.file} does not state its architecture"
        advice = (
            "give architecture= (on the command line --architecture), for example resnet18, or put it into "
            f"{self.sidecar}"
        )
        if closest is None or fit is None:
            known = "no ResNet, vision transformer or Swin of timm or torchvision"
            return f"{start}, and its weights match {known}; {advice}"
        if fit.complete:
            return (
                f"{start}, and its weights are those of {closest} but for its position embeddings, which form no "
                f"square; put architecture and arguments with img_size, as [height, width], into {self.sidecar}"
            )
        if not fit.missing and not fit.mismatched:
            return f"{start}, and {self._describe_extra(fit, closest)}"
        return f"{start}, and of the closest one, {closest}, {_list_misfits(fit)}; {advice}"

    def describe_misfit(self, fit: Fit, architecture: str) -> str:
        """Return why weights do not fit an architecture."""
        start = f"{self.file} does not fit the architecture {architecture}"
        if not fit.missing and not fit.mismatched:
            return f"{start}: {self._describe_extra(fit, architecture)}"
        return (
            f"{start}: {_list_misfits(fit)}; give the architecture, and in its sidecar the arguments, that it was "
            "trained with"
        )

    def describe_headless(self, architecture: str) -> str:
        """Return that weights without a classifier cannot be loaded."""
        return (
            f"{self.file} has the weights of {architecture} without its classifier, so there are no classes to "
            "explain; load the file of a network that was trained to classify"
        )

    def _describe_extra(self, fit: Fit, architecture: str) -> str:
        """Return what is beside the complete body of a network."""
        advice = (
            "build the network yourself and use vizlib.wrap, or, if they take part in the training alone, put the "
            f"beginnings of their names, as ignore, into {self.sidecar}"
        )
        names = shorten_names(fit.unexpected)
        if fit.num_classes is None:
            what = f"{architecture} with another classifier than one linear layer"
        else:
            what = f"{architecture} and others that may be part of the network"
        return f"its weights are those of {what}: {names}; {advice}"

    def list_notes(
        self,
        network: StoredNetwork,
        fit: Fit,
        found: DetectedArchitecture,
        outline: ArchitectureOutline | None,
        paths: Sequence[str],
    ) -> tuple[Note, ...]:
        """Return what was assumed of a checkpoint and left out of it.

        Args:
            network: The network of the checkpoint that was restored.
            fit: How its weights fit.
            found: Its architecture.
            outline: The outline of that architecture where it was detected, not stated.
            paths: Where the networks of the checkpoint are.
        """
        notes = [] if outline is None else [self._describe_detected(found, outline)]
        names = {"file": self.file, "sidecar": self.sidecar, "architecture": found.architecture}
        if found.others:
            others = [f"{other} ({difference})" for other, difference in found.others.items()]
            notes.append(make_note("model.other-architectures", **names, others=", ".join(others)))
        if unused := [path or "–" for path in paths if path != network.path]:
            notes.append(
                make_note("model.one-of-several", **names, chosen=network.path or "–", others=shorten_names(unused))
            )
        if fit.ignored:
            notes.append(make_note("model.ignored-weights", **names, names=shorten_names(fit.ignored)))
        if not fit.num_classes:
            notes.append(make_note("model.no-classifier", **names))
        elif _EMBEDDING_NETWORKS.search(network.path):
            notes.append(make_note("model.embedding-network", **names, network=network.path, count=fit.num_classes))
        return tuple(notes)

    def _describe_detected(self, found: DetectedArchitecture, outline: ArchitectureOutline) -> Note:
        """Return what the weights of a checkpoint do not show, and was assumed."""
        facts = {
            "file": self.file,
            "architecture": " = ".join([found.architecture, *found.same[: MAX_NAMES - 1]]),
            "activation": ", ".join(outline.activations),
            "epsilon": ", ".join(f"{value:.0e}" for value in outline.list_settings("eps")),
            "sidecar": self.sidecar,
        }
        windows, heads = outline.list_settings("window_size"), outline.list_settings("num_heads")
        if windows:  # their number of heads shows in the weights
            return make_note("model.detected-windows", **facts, window=format_setting(windows[0]))
        if heads:
            return make_note("model.detected-transformer", **facts, heads=", ".join(map(str, heads)))
        return make_note("model.detected-convolutional", **facts)


def shorten_names(names: Sequence[str]) -> str:
    """Return the first names and how many more there are.

    >>> shorten_names(["a", "b", "c", "d", "e"])
    'a, b, c (+ 2)'
    """
    more = f" (+ {len(names) - MAX_NAMES})" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _list_misfits(fit: Fit) -> str:
    """Return how the weights of a checkpoint differ from those of an architecture."""
    missing, unexpected, mismatched = sorted(fit.missing), sorted(fit.unexpected), sorted(fit.mismatched)
    reasons = [
        *([f"{len(missing)} of its weights are missing, such as {missing[0]}"] if missing else []),
        *([f"{len(unexpected)} are unexpected, such as {unexpected[0]}"] if unexpected else []),
        *(f"{key} is {', expected '.join(map(format_shape, fit.mismatched[key]))}" for key in mismatched[:1]),
    ]
    return ", and ".join(reasons)


def format_shape(shape: tuple[int, ...]) -> str:
    """Return a shape as text, such as "64 × 3 × 7 × 7"."""
    return " × ".join(map(str, shape)) or "one number"
