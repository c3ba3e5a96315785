"""A network together with what is needed to show it a photo, and what it answers."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import SupportsIndex

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from vizlib.capture import Recording, record_pass
from vizlib.core.class_labels import resolve_class
from vizlib.core.errors import ModelError, VizlibError
from vizlib.core.images import open_image
from vizlib.models.evaluation_copy import make_evaluation_copy
from vizlib.models.families import Family, Size, TokenLayout, find_channel_axis, to_spatial_map
from vizlib.models.layer_summary import Layer, format_layer_table, summarise_layers
from vizlib.models.ood import OodScore
from vizlib.models.preprocessing import TimmPreprocessing
from vizlib.models.run import Prediction, Run


@dataclass(frozen=True, eq=False)
class Model:
    """A network and what is needed to show it a photo; the network itself is never changed."""

    module: nn.Module
    name: str
    labels: Sequence[str]
    preprocessing: TimmPreprocessing
    family: Family | None = None
    notes: tuple[str, ...] = ()  # what had to be assumed about it, in plain words
    ood_score: OodScore | None = None  # how to tell a photo unlike those it knows, where that was calibrated

    def __repr__(self) -> str:
        height, width = self.preprocessing.input_size
        family = self.family.name if self.family else type(self.module).__name__
        return f"<Model {self.name}: {family}, {len(self.labels)} classes, input {height} × {width}>"

    @cached_property
    def _survey(self) -> tuple[tuple[Layer, ...], tuple[str, ...], int]:
        with self.translate_errors():
            return summarise_layers(self.eval_module(), self.preprocessing.input_size)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer in the order it stands: name, class, output shape, parameters, FLOPs of one photo."""
        return self._survey[0]

    @property
    def attention_layers(self) -> tuple[str, ...]:
        """Names of the layers that compute softmax attention, in the order they run."""
        return self._survey[1]

    @cached_property
    def num_outputs(self) -> int:
        """How many logits the network answers an empty photo with."""
        return self.logits(self.reference_tensor().new_zeros(1, 3, *self.preprocessing.input_size)).shape[1]

    @cached_property
    def _plan_cache(self) -> dict:
        """What its passes were found to cost; `vizlib.models.inference.batched_inference` writes and reads it."""
        return {}

    def spatial_map(self, activation: Tensor) -> Float[Tensor, "channels rows columns"] | None:
        """A layer's output laid out as pictures, one a channel; `None` for one that has no places."""
        return to_spatial_map(activation, self.tokens, self._grids)

    def channel_axis(self, activation: Tensor) -> int:
        """Along which axis of a layer's output its channels lie."""
        return find_channel_axis(activation, self._grids)

    @cached_property
    def _grids(self) -> Collection[Size]:
        """The places of the stages of a family whose channels come last; empty for all others."""
        grids = self.family and self.family.stage_grids
        return grids(self.module, self.preprocessing.input_size) if grids else ()

    @cached_property
    def tokens(self) -> TokenLayout | None:
        """What the tokens are, for a transformer of a known family."""
        tokens = self.family and self.family.tokens
        return tokens(self.module, self.preprocessing.input_size) if tokens else None

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """Layers whose output is a picture, shallow to deep; for an unknown family the last of each resolution."""
        if self.family is not None:
            return self.family.stages(self.module)
        if (
            self.attention_layers
        ):  # tokens, windows and attention scores of an unknown transformer only look like pictures
            return ()
        pictures = (layer for layer in self.layers if _is_picture(layer.shape, self.preprocessing.input_size))
        last = {layer.shape[1:]: layer.name for layer in pictures}
        return tuple(last[size] for size in sorted(last, reverse=True))  # a container stands before its parts

    @property
    def cam_layer(self) -> str | None:
        """The layer class activation maps are drawn from unless told otherwise; `None` where nothing has places."""
        if self.family is not None:
            return self.family.cam_layer(self.module)
        return self.stages[-1] if self.stages else None

    @property
    def first_convolution(self) -> str | None:
        """The convolution that reads the colours; `None` for a network that has none."""
        if self.family is not None:
            return self.family.first_convolution(self.module)
        every = self.module.named_modules()
        return next((name for name, part in every if isinstance(part, nn.Conv2d) and part.in_channels == 3), None)

    def summary(self) -> str:
        """The layers as a table: names, classes, output shapes, parameters, MFLOPs."""
        return format_layer_table(self.layers)

    def tensor(self, photo: Image.Image) -> Tensor:
        """The photo as the network is shown it: "1 3 h w", normalised, on its device and in its type."""
        like = self.reference_tensor()
        return self.preprocessing.tensor(photo).to(like.device, like.dtype)

    def predict(self, photo, top: int = 5) -> list[Prediction]:
        """The `top` likeliest classes, likeliest first.

        Raises: ImageError, ModelError.
        """
        return self.rank_classes(self.logits(self.tensor(open_image(photo))), top)

    def logits(
        self, images: Float[Tensor, "n 3 h w"], output_batch_size: int | None = None
    ) -> Float[Tensor, "m classes"]:
        """The logits of prepared inputs (`tensor`'s, stacked), without gradients.

        `answers` is how many are expected where a layer's output is substituted; one an input if left out.

        Raises: ModelError.
        """
        with self.translate_errors(), torch.no_grad():
            return self._logits(self.eval_module(), images, output_batch_size)

    def rank_classes(self, logits: Tensor, top: int = 5) -> list[Prediction]:
        """Logits "1 classes" as predictions, likeliest first."""
        logits = logits[0].detach().float().cpu()
        chances = logits.softmax(-1)
        best = chances.topk(min(max(top, 1), len(chances))).indices
        return [Prediction(i, self.labels[i], chances[i].item(), logits[i].item()) for i in map(int, best)]

    def ood_note(self, logits: Float[Tensor, "1 classes"]) -> str | None:
        """A sentence where the logits say that the photo is unlike those this network was measured on, else `None`."""
        return self.ood_score.ood_note(logits[0]) if self.ood_score else None

    def run(
        self, photo, layers: Sequence[str] = (), attention: bool = False, *, rules: bool = True, graph: bool = True
    ) -> Run:
        """Show the network one photo and keep what happened, with everything gradients need.

        `layers` are the names whose output is kept; with `attention` every attention layer's weights are. Without
        `rules` its gradients can follow no rule but their own, and it is a little quicker; without `graph` there are
        none, and little memory is held.

        Raises: ImageError, ModelError (an unknown layer, an input the network refuses).
        """
        photo = open_image(photo)
        image, logits, seen = self.forward(self.tensor(photo), layers, attention, rules=rules, graph=graph)
        notes = self.collect_notes(photo, logits)
        return Run(
            image, logits, seen.activations, seen.attention, self.preprocessing.geometry(photo), photo, notes, seen
        )

    def forward(
        self,
        images: Float[Tensor, "n 3 h w"],
        layers: Sequence[str] = (),
        attention: bool = False,
        output_batch_size: int | None = None,
        rules: bool = False,
        graph: bool = True,
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "m classes"], Recording]:
        """Show the network prepared inputs (`tensor`'s, stacked): them on the graph, the logits, and what was kept.

        `answers` is as in `logits`, `rules` and `graph` as in `run`.

        Raises: ModelError.
        """
        module = self.eval_module()
        with self.translate_errors(), torch.inference_mode(False), torch.set_grad_enabled(graph):
            images = (images.clone() if images.is_inference() else images.detach()).requires_grad_(graph)
            with record_pass(module, layers, attention=attention, rules=rules) as seen:
                logits = self._logits(module, images, output_batch_size)
        return images, logits, seen

    def collect_notes(self, photo: Image.Image, logits: Float[Tensor, "1 classes"]) -> tuple[str, ...]:
        """What is worth knowing about a photo, this model, and what it answered, in plain words."""
        notes = (*photo.info.get("notes", ()), *self.notes)
        if self.eval_module() is not self.module:
            notes += ("The model was in training mode; it was run as in evaluation, and left in training mode.",)
        if not logits.isfinite().all():
            notes += ("The model's answer holds values that are not finite, so no picture of it can be trusted.",)
        elif doubt := self.ood_note(logits):
            notes += (doubt,)
        return notes

    def resolve_target(self, target: SupportsIndex | str | None, logits: Tensor) -> int:
        """The class meant by an index, a label, one of a label's comma-separated names, or `None` for the top class.

        Text is a label first, so among the labels "3" and "7" the text "7" is the second class; then it is a number.

        Raises: TargetError, naming what was meant perhaps.
        """
        return int(logits[0].argmax()) if target is None else resolve_class(target, self.labels)

    def reference_tensor(self) -> Tensor:
        """A tensor whose device and type the network's input must have."""
        return next(self.module.parameters(), torch.zeros(()))

    def eval_module(self) -> nn.Module:
        """The network itself, or its twin in evaluation mode if any part of it is in training mode."""
        if any(part.training for part in self.module.modules()):
            return make_evaluation_copy(self.module)
        return self.module

    def _logits(self, module: nn.Module, images: Tensor, answers: int | None = None) -> Tensor:
        output = module(images)
        logits = getattr(output, "logits", output)  # Hugging Face models answer with an object
        shaped = (
            isinstance(logits, Tensor)
            and logits.ndim == 2
            and len(logits) == (answers or len(images))
            and logits.shape[1] > 0
        )
        if not shaped or len(self.labels) not in (0, logits.shape[1]):  # none are known while they are counted
            given = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            wanted = f"for each of {len(self.labels)} classes" if self.labels else "per class"
            raise ModelError(f"{self.name} answers with {given}; expected one logit {wanted}")
        return logits

    @contextlib.contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Say in one sentence what a network complains about in many lines."""
        try:
            yield
        except VizlibError:
            raise
        except Exception as error:  # a network is anybody's code, and may raise anything
            height, width = self.preprocessing.input_size
            reason = (str(error).strip().splitlines() or [""])[0]
            if not isinstance(error, (RuntimeError, ValueError, AssertionError)):  # a KeyError's text is a bare key
                reason = f"{type(error).__name__} {reason}".strip()
            raise ModelError(f"{self.name} cannot be run on a {height} × {width} RGB input: {reason}") from error


def _is_picture(shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether an output is channels × rows × columns: more than one place, and about as oblong as the input.

    Channels-last outputs and stacks of tokens are not.
    """
    if len(shape) != 3 or min(shape[1:]) < 2:
        return False
    return 0.5 < (shape[1] * size[1]) / (shape[2] * size[0]) < 2
