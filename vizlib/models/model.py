"""`Model`: a network together with its preprocessing and labels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from vizlib.capture import OutputTrace, Recording, record_pass, trace_output
from vizlib.capture.module_watch import watch_modules
from vizlib.core.class_labels import resolve_class
from vizlib.core.errors import ModelError, TargetError, VizlibError, suggest_names
from vizlib.core.images import PhotoSource, open_image
from vizlib.core.text import format_count, make_note, shorten_label
from vizlib.models.backbone import find_backbone_family
from vizlib.models.evaluation_copy import (
    CHECKPOINTING_FLAGS,
    is_in_training_mode,
    make_copy_check,
    make_evaluation_copy,
    require_evaluation_mode,
)
from vizlib.models.families.family import Family
from vizlib.models.families.layouts import StageLayout, TokenLayout, WindowLayout, find_channel_axis, to_spatial_map
from vizlib.models.families.table import find_window_layouts
from vizlib.models.layer_share import CamLayer, choose_most_complete_layer
from vizlib.models.layer_summary import Layer, LayerSummary, format_layer_table, summarise_layers
from vizlib.models.ood import OodScore
from vizlib.models.output_kind import OutputKind, get_output_kind
from vizlib.models.plan_cache import PlanCache
from vizlib.models.preprocessing import Preprocessing
from vizlib.models.prompt_source import PromptSource
from vizlib.models.raw_output import TargetFunction, check_rows, flatten_output, list_tensors, pick_output
from vizlib.models.run import Prediction, Run
from vizlib.models.stage_search import FoundStages, find_normalised_layer, find_stages, list_stages_with_gradient

MAX_CAM_LAYER_CANDIDATES = 12  # each takes two passes to measure
MAX_NORM_CANDIDATES = 4  # each takes up to three passes to measure
MIN_STAGE_SHARE = 0.1  # of the gradient at the image that the default layer of a network with tokens must carry


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its preprocessing and labels. The network itself is never modified.

    Made by `vizlib.load` and `vizlib.wrap`.

    Attributes:
        module: The network, in whatever mode it was given.
        name: Name for tables, messages and repr.
        labels: Label of each class, in the order of the outputs; a label may hold several comma-separated names.
        preprocessing: Transform from a photo to the network's input, and its geometry.
        family: The row of `vizlib.models.families.FAMILIES` that matches the network, if any.
        notes: What had to be assumed about the model, one sentence each.
        ood_score: Calibrated score that flags photos unlike the calibration data, if there is one.
        output_kind: What the outputs mean: a row of `vizlib.models.output_kind.OUTPUT_KINDS`.
        autocast_dtype: Type that passes are autocast to; by default they run in the types of the network itself, also
            where the caller autocasts.
        output: Function that picks the logits from what the network returns; by default that itself, or its `logits`.
        target_function: Function of the output whose value is explained, in place of logits (see `with_target`).
        measured_by: Model of the same network that holds the summary of its layers; by default this one itself.
        is_wrapped: Whether `wrap` was given the network, so that code cannot load it by name.
        prompt_source: Source of models of the same network with other prompts, where the labels are prompts.

    Example:
        >>> import numpy as np, vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> model
        <Model resnet18-imagenette: ResNet, 10 classes, input 192 × 192>
        >>> photo = np.zeros((200, 300, 3), np.uint8)
        >>> len(model.predict(photo, top=3))
        3
        >>> model.run(photo, layers=["layer4"]).activations["layer4"].shape
        torch.Size([1, 512, 6, 6])
    """

    module: nn.Module
    name: str
    labels: Sequence[str]
    preprocessing: Preprocessing
    family: Family | None = None
    notes: tuple[str, ...] = ()
    ood_score: OodScore | None = None
    output_kind: str = "softmax"
    autocast_dtype: torch.dtype | None = None
    output: Callable[[Any], Any] | None = field(default=None, repr=False)
    target_function: TargetFunction | None = None
    measured_by: Model | None = None
    is_wrapped: bool = False
    prompt_source: PromptSource | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        height, width = self.preprocessing.input_size
        family = self.family.name if self.family else type(self.module).__name__
        outputs = format_count(len(self.labels), self.output_row.noun) if self.labels else self.output_row.meaning
        return f"<Model {self.name}: {family}, {outputs}, input {height} × {width}>"

    @property
    def output_row(self) -> OutputKind:
        """The row of the table of output kinds: what the outputs mean, and their probabilities and ranking."""
        return get_output_kind(self.output_kind)

    def __getstate__(self) -> dict[str, object]:
        """Return the fields for pickling, without cached values; the family is found again in the other process."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "family"}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore a pickled model."""
        vars(self).update(state, family=None)
        vars(self)["family"] = self.find_family()

    @property
    def complement(self) -> str | None:
        """Name of the other side of a single logit or probability, such as "not llama"; `None` for other outputs."""
        return f"not {shorten_label(self.labels[0])}" if len(self.labels) == 1 and self.output_row.is_ranked else None

    def with_prompts(self, prompts: Sequence[str]) -> Model:
        """Return a model of the same network whose classes are other prompts, with the templates of this one.

        Args:
            prompts: Texts, all different.

        Raises:
            TargetError: If the prompts cannot be used.
            ModelError: If this model has a fixed list of classes.
        """
        if self.prompt_source is None:
            raise ModelError(
                f"{self.name} has a fixed list of {len(self.labels):,} classes, and reads no prompts; "
                "vizlib.load_clip loads a model that does"
            )
        return self.prompt_source.with_prompts(prompts)

    def with_target(self, function: Callable[[Any], Any], name: str | None = None) -> Model:
        """Return this model with the value of a function of its output as the only output.

        Args:
            function: From the output of the network for n photos, or what `output` picks from it, to a tensor with one
                value for each photo.
            name: Name of the function for people and records; by default its own.
        """
        bound = TargetFunction.make(function, name)
        return replace(
            self,
            labels=(bound.name,),
            output_kind="values",
            ood_score=None,
            target_function=bound,
            measured_by=self.measured_by or self,
        )

    @cached_property
    def _layer_summary(self) -> LayerSummary:
        """Every layer, and the names of the attention layers, from one pass over a blank input."""
        if self.measured_by is not None:
            return self.measured_by._layer_summary
        with self.network_context():
            return summarise_layers(self.eval_module(), self.preprocessing.input_size)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer in registration order: name, class, output shape, parameters, FLOPs of one photo."""
        return self._layer_summary.layers

    @property
    def running_order(self) -> tuple[str, ...]:
        """Names of the layers that run, in the order in which they finish: a container after its children."""
        return self._layer_summary.running_order

    @property
    def num_relus(self) -> int:
        """Number of ReLUs that run on a photo, those called as functions included."""
        return self._layer_summary.num_relus

    @property
    def attention_layers(self) -> tuple[str, ...]:
        """Names of the layers that compute softmax attention, in the order they run."""
        return self._layer_summary.attention_layers

    @cached_property
    def num_outputs(self) -> int:
        """Number of outputs per photo, from a pass over a blank input."""
        return self.trace_blank_pass()[0].shape[1]

    def trace_blank_pass(self) -> tuple[Any, OutputTrace]:
        """Return the output for a blank input, whatever it is, and a trace of the operations that it may come from.

        Raises:
            ModelError: If the network fails, or runs modules in training mode that it does not register.
        """
        blank = self.reference_tensor().new_zeros(1, 3, *self.preprocessing.input_size)
        module = self.eval_module()  # it sees registered modules only; the watch sees the others
        with (
            self.network_context(),
            torch.inference_mode(False),
            torch.no_grad(),
            watch_modules(require_evaluation_mode),
            trace_output(module) as trace,
        ):
            return pick_output(module(blank), 1, self.output), trace

    @cached_property
    def _plan_cache(self) -> PlanCache:
        """What `vizlib.models.inference` measured of this model to plan its passes."""
        return PlanCache()  # of a target function its own, as its value decides what an approximation changes

    def spatial_map(self, activation: Tensor) -> Float[Tensor, "channels rows columns"] | None:
        """Return a layer's output as one map per channel, `None` if it has no spatial positions.

        Args:
            activation: Output of one photo, with a batch axis of 1, as `Run.activations` holds it.
        """
        return to_spatial_map(activation, self.tokens, self._stage_layout)

    def channel_axis(self, activation: Tensor) -> int:
        """Return the axis of a layer's output that holds its channels.

        Args:
            activation: Output with a batch axis.
        """
        return find_channel_axis(activation, self._stage_layout)

    @cached_property
    def _stage_layout(self) -> StageLayout | None:
        """Layout of the stages; `None` where it is that of `tokens`, or of maps without attention."""
        if self.family is None:
            layout = self._found_stages.layout if self._found_stages else None
            if layout is None or layout.axes != "tokens" or self._measured_normalised_layer is None:
                return layout
            counts = {
                *layout.prefix_counts,
                *self._measured_normalised_layer[1].prefix_counts,
            }  # class tokens, put later
            return replace(layout, prefix_counts=tuple(sorted(counts)))
        stage_layout = self.family.stage_layout
        return stage_layout(self.module, self.preprocessing.input_size) if stage_layout else None

    @cached_property
    def _found_stages(self) -> FoundStages | None:
        """The stages of a network of no known family whose shapes do not tell maps from attention scores or tokens."""
        if self.measured_by is not None:
            return self.measured_by._found_stages
        if self.family is not None:
            return None
        with self.network_context():
            found = find_stages(self.eval_module(), self.make_random_image())
        if found is None or self.attention_layers or found.layout.axes != "channels first":
            return found
        # Attention that is not recorded, as its scores have five axes; of other networks every layer is a map.
        return found if any("attention" in layer.class_name.lower() for layer in self.layers) else None

    @cached_property
    def tokens(self) -> TokenLayout | None:
        """Layout of the tokens of a transformer of a known family, else `None`."""
        tokens = self.family and self.family.tokens
        return tokens(self.module, self.preprocessing.input_size) if tokens else None

    @cached_property
    def attention_windows(self) -> Mapping[str, WindowLayout]:
        """The windows of each attention layer, of a network whose windows are known."""
        return find_window_layouts(self.module, self.family, self.preprocessing.input_size)

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """Layers whose output has spatial positions, shallow to deep.

        For an unknown family it is the last of each resolution, and of its own resolution the default layer.
        """
        if self.family is not None:
            return self.family.stages(self.module)
        if self._found_stages is not None:
            return self._found_stages.names
        last = self._last_layers
        sizes = {layer.name: layer.shape[1:] for layer in self._single_run_layers}
        if self.cam_layer is not None:
            last = last | {sizes[self.cam_layer]: self.cam_layer}
        return tuple(last[size] for size in sorted(last, reverse=True))

    @property
    def _last_layers(self) -> dict[tuple[int, ...], str]:
        """Rows and columns -> name of the last layer whose output has them; empty if they may mean something else."""
        if self.attention_layers:  # tokens, windows and attention scores have such shapes too
            return {}
        return {layer.shape[1:]: layer.name for layer in self._single_run_layers}

    @cached_property
    def _single_run_layers(self) -> tuple[Layer, ...]:
        """Layers with spatial positions that compute one output per photo, in the order in which they finish."""
        layers, size = {layer.name: layer for layer in self.layers}, self.preprocessing.input_size
        in_order = (layers[name] for name in self.running_order if ".parametrizations." not in name)
        return tuple(layer for layer in in_order if layer.runs == 1 and _is_spatial(layer.shape, size))

    @property
    def cam_layer(self) -> str | None:
        """Default layer of class activation maps; `None` if no layer has spatial positions.

        For an unknown family it is the deepest layer that all of the outputs' dependence on the image passes through,
        or, where there is none, the one that most of it passes through.
        """
        if self.family is not None:
            return self.family.cam_layer(self.module)
        return self._measured_cam_layer.name if self._measured_cam_layer else None

    @cached_property
    def _measured_cam_layer(self) -> CamLayer | None:
        if self.measured_by is not None:
            return self.measured_by._measured_cam_layer
        candidates = self._found_stages.names if self._found_stages else self._list_cam_layer_candidates()
        if not candidates:
            return None
        module, image = self.eval_module(), self.make_random_image()

        def compute_outputs(images: Tensor) -> Tensor:
            """Return the outputs of the network that is measured."""
            return self._compute_outputs(module, images)

        with self.network_context():
            if self._found_stages:
                candidates = list_stages_with_gradient(module, image, compute_outputs, self._found_stages)
            chosen = choose_most_complete_layer(module, image, compute_outputs, candidates[:MAX_CAM_LAYER_CANDIDATES])
        if self._found_stages and chosen and chosen.share is not None and chosen.share < MIN_STAGE_SHARE:
            return None  # the evidence is in other branches, whose positions no single layer has
        return chosen

    def _list_cam_layer_candidates(self) -> list[str]:
        """Return the layers of a network of no known family from which the default is chosen, the preferred first.

        First come the last of each resolution and the outermost ones, which are in no other layer with spatial
        positions, as the sum of several branches is; then all others; each deepest first.
        """
        last = self._last_layers
        if not last:
            return []
        names = [layer.name for layer in reversed(self._single_run_layers)]
        known, stages = set(names), set(last.values())
        outermost = {name for name in names if not any(outer in known for outer in _list_enclosing_modules(name))}
        first = [name for name in names if name in stages or name in outermost]
        return list(dict.fromkeys([*first, *names]))

    @property
    def normalised_cam_layer(self) -> str | None:
        """Default layer of the maps that multiply each activation by its own gradient; `None` if there is none.

        It is the first normalisation after `cam_layer` where such products cancel before it, else `cam_layer`.
        """
        if self.family is not None:
            find_layer = self.family.normalised_cam_layer
            return find_layer(self.module) if find_layer else self.cam_layer
        if self._found_stages is None:
            return self.cam_layer
        return self._measured_normalised_layer[0] if self._measured_normalised_layer else None

    @cached_property
    def _measured_normalised_layer(self) -> tuple[str, StageLayout] | None:
        """Name and layout of the layer of `normalised_cam_layer` in a network of no known family."""
        if self.measured_by is not None:
            return self.measured_by._measured_normalised_layer
        if self._found_stages is None or self.cam_layer is None:
            return None
        classes, order = {layer.name: layer.class_name for layer in self.layers}, self.running_order
        following = order[order.index(self.cam_layer) :]
        norms = [name for name in following if "norm" in classes[name].lower()][:MAX_NORM_CANDIDATES]
        module = self.eval_module()
        with self.network_context():
            return find_normalised_layer(
                module,
                self.make_random_image(),
                lambda images: self._compute_outputs(module, images),
                self._found_stages,
                self.cam_layer,
                norms,
            )

    def find_family(self) -> Family | None:
        """Return the family of the network, or of the network inside it that all of its outputs depend on."""
        module = self.eval_module()
        with self.network_context():
            return find_backbone_family(
                module, self.make_random_image(), lambda images: self._compute_outputs(module, images)
            )

    def layer_share(self, layer: str) -> float | None:
        """Return the share of the outputs' gradient at the image that passes through the default layer's output.

        Args:
            layer: Name of a layer.

        Returns:
            The share from 0 to 1; `None` for another layer than the default, a known family, or without a gradient.
        """
        if self.family is not None or self._measured_cam_layer is None or self._measured_cam_layer.name != layer:
            return None
        return self._measured_cam_layer.share

    def make_random_image(self) -> Float[Tensor, "1 3 h w"]:
        """Return an input of normally distributed values, always the same, to measure the network with."""
        shape, generator = (1, 3, *self.preprocessing.input_size), torch.Generator().manual_seed(0)
        return torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32).to(self.reference_tensor())

    @property
    def first_convolution(self) -> str | None:
        """Name of the convolution whose input is the image; `None` if the network has none."""
        if self.family is not None:
            return self.family.first_convolution(self.module)
        modules = self.module.named_modules()
        return next((name for name, part in modules if isinstance(part, nn.Conv2d) and part.in_channels == 3), None)

    def summary(self) -> str:
        """Return a table of the layers: names, classes, output shapes, parameters, MFLOPs."""
        return format_layer_table(self.layers)

    def tensor(self, photo: Image.Image) -> Tensor:
        """Return the network's input "1 3 h w" for a photo, on the network's device, in its dtype.

        Args:
            photo: Photo from `open_image`.
        """
        reference = self.reference_tensor()
        return self.preprocessing.tensor(photo).to(reference.device, reference.dtype)

    def predict(self, photo: PhotoSource, top: int = 5) -> list[Prediction]:
        """Return the most probable classes of a photo, most probable first; of a regression the values by index.

        Args:
            photo: Anything that `vizlib.open_image` takes.
            top: Number of classes, from 1 to the number of labels; other values are clipped.

        Raises:
            ImageError: If the photo cannot be opened.
            ModelError: If the network fails on it, or has no classes.
        """
        return self.rank_classes(self.logits(self.tensor(open_image(photo))), top)

    def logits(
        self, images: Float[Tensor, "n 3 h w"], output_batch_size: int | None = None
    ) -> Float[Tensor, "m classes"]:
        """Return the logits of a batch, without gradients.

        Args:
            images: Inputs as `tensor` makes them, concatenated.
            output_batch_size: Expected number of rows of logits, where a hook substitutes a layer's output by one of
                another batch size; by default the number of images.

        Raises:
            ModelError: If the network fails, or its output is not one logit per class.
        """
        with self.network_context(), torch.no_grad():
            return self._compute_logits(self.eval_module(), images, output_batch_size)

    def output_tensors(self, images: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """Return every floating-point tensor that the network returns for a batch, without gradients.

        Args:
            images: Inputs as `tensor` makes them, concatenated.

        Raises:
            ModelError: If the network fails.
        """
        with self.network_context(), torch.no_grad():
            return [tensor for tensor in list_tensors(self.eval_module()(images)) if tensor.is_floating_point()]

    def rank_classes(self, logits: Tensor, top: int = 5) -> list[Prediction]:
        """Return the `top` classes of outputs "1 classes", in the order of `predict`.

        Args:
            logits: Outputs of one photo, "1 classes".
            top: Number of classes.

        Raises:
            ModelError: If the outputs belong to no classes.
        """
        kind = self.output_row
        if not kind.has_classes:
            raise ModelError(f"{self.name} predicts no classes: it returns {kind.meaning}; {kind.target_hint}")
        return kind.predict(logits[0], self.labels, top)

    def list_outcomes(self, predictions: list[Prediction]) -> list[Prediction]:
        """Return predictions as they are displayed: of a single label both sides, the more probable first.

        Args:
            predictions: Predictions of `predict`.
        """
        return predictions if self.complement is None else self.output_row.add_complement(predictions, self.complement)

    def compute_probabilities(self, logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch classes"]:
        """Return the probabilities that outputs stand for, in single precision.

        Args:
            logits: Outputs of the network, of any number of photos.

        Returns:
            Values from 0 to 1 in the shape of the outputs.

        Raises:
            ModelError: If the outputs stand for no probabilities.
        """
        kind = self.output_row
        if kind.to_probabilities is None:
            raise ModelError(f"{self.name} returns {kind.meaning}, which have no probabilities")
        return kind.to_probabilities(logits.float())

    def ood_note(self, logits: Float[Tensor, "1 classes"]) -> str | None:
        """Return a note if the logits mark the photo as out of distribution, else `None`.

        Args:
            logits: Outputs of one photo.
        """
        return self.ood_score.ood_note(logits[0]) if self.ood_score else None

    def run(
        self,
        photo: PhotoSource,
        layers: Sequence[str] = (),
        attention: bool = False,
        *,
        rules: bool = True,
        graph: bool = True,
    ) -> Run:
        """Run the network once on a photo and keep what gradients and maps need.

        Args:
            photo: Anything that `vizlib.open_image` takes.
            layers: Names of the layers whose output is kept; `Model.layers` lists them.
            attention: Keep the softmax weights of every attention layer.
            rules: Allow `Run.gradients` to apply a backward rule; without it the pass is slightly faster.
            graph: Keep the autograd graph; without it there are no gradients, and little memory is held.

        Returns:
            The outputs, what was recorded, and where the input lies on the photo.

        Raises:
            ImageError: If the photo cannot be opened.
            ModelError: For an unknown layer, or if the network fails.
        """
        photo = open_image(photo)
        image, logits, recording = self.forward(self.tensor(photo), layers, attention, rules=rules, graph=graph)
        return Run(
            image=image,
            logits=logits,
            activations=recording.activations,
            attention=recording.attention,
            geometry=self.preprocessing.geometry(photo),
            photo=photo,
            notes=self.collect_notes(photo, logits),
            recording=recording,
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
        """Run the network on a batch and return the images on the graph, the logits and the recording.

        Args:
            images: Inputs as `tensor` makes them, concatenated.
            layers: As in `run`.
            attention: As in `run`.
            output_batch_size: As in `logits`.
            rules: As in `run`.
            graph: As in `run`.

        Returns:
            The images with gradients enabled, the logits, and the recording of layers and attention.

        Raises:
            ModelError: For an unknown layer, or if the network fails.
        """
        module = self.eval_module()
        with self.network_context(), torch.inference_mode(False), torch.set_grad_enabled(graph):
            images = (images.clone() if images.is_inference() else images.detach()).requires_grad_(graph)
            with record_pass(module, layers, attention=attention, rules=rules) as recording:
                logits = self._compute_logits(module, images, output_batch_size)
        return images, logits, recording

    def collect_notes(self, photo: Image.Image, logits: Float[Tensor, "1 classes"]) -> tuple[str, ...]:
        """Return the notes about a photo, this model and the logits of the photo.

        Args:
            photo: Photo from `open_image`, whose own notes come first.
            logits: Outputs of this photo.
        """
        notes = (*photo.info.get("notes", ()), *self.notes)
        if self._needs_evaluation_copy() and is_in_training_mode(self.module):
            notes += (make_note("model.training-mode"),)
        if not logits.isfinite().all():
            notes += (make_note("model.not-finite"),)
        elif ood_note := self.ood_note(logits):
            notes += (ood_note,)
        return notes

    def resolve_target(self, target: SupportsIndex | str | None, logits: Tensor) -> int:
        """Return the index of a class.

        Args:
            target: Class index, label, or one of a label's comma-separated names (text is a label first, then a
                number); `None` for the class with the largest output, or for the only value of a regression.
            logits: Outputs "1 classes" of the photo; read only if `target` is `None`.

        Raises:
            TargetError: For an unknown or ambiguous class, where the message names the candidates, and for `None` where
                no output stands out.
        """
        kind = self.output_row
        if target is not None and self.labels:
            return resolve_class(target, self.labels, noun=kind.noun)
        if target is None and kind.has_default(logits.shape[1]):
            return int(logits[0].argmax())
        given = "" if target is None else f", so {target!r} cannot be explained"
        names = f"; {suggest_names('', self.labels)}" if kind.has_classes else ""
        raise TargetError(f"{self.name} returns {kind.meaning}{given}; {kind.target_hint}{names}")

    def reference_tensor(self) -> Tensor:
        """Return a tensor on the device and in the dtype that the network's input must have."""
        return next(self.module.parameters(), torch.zeros((), dtype=torch.float32, device="cpu"))

    def eval_module(self) -> nn.Module:
        """Return the network, or a copy with shared parameters if a part trains or checkpoints its gradients.

        The first copy of a network is run once, on a blank input, to check that it runs none of the original's modules.

        Raises:
            ModelError: If a copy would run modules of the original.
        """
        if not self._needs_evaluation_copy():
            return self.module
        copy = make_evaluation_copy(self.module)
        self._plan_cache.get_or_compute(("evaluation copy", self.structure_key()), lambda: self.check_copy(copy))
        return copy

    def structure_key(self) -> Hashable:
        """Return a key of the network's modules and of each `forward` set on an instance, which may change any time."""
        return tuple((id(part), id(vars(part).get("forward"))) for part in self.module.modules())

    def _needs_evaluation_copy(self) -> bool:
        for part in self.module.modules():  # a loop, as this is asked several times for each photo
            attributes = vars(part)
            if part.training or any(attributes[flag] for flag in CHECKPOINTING_FLAGS & attributes.keys()):
                return True
        return False

    def check_copy(self, copy: nn.Module) -> None:
        """Run a copy of the network on a blank input, and check that it runs none of the network's own modules.

        Args:
            copy: From `make_evaluation_copy`.

        Raises:
            ModelError: If it does.
        """
        blank = self.reference_tensor().new_zeros(1, 3, *self.preprocessing.input_size)
        with self.network_context(), torch.no_grad(), watch_modules(make_copy_check(copy)):
            copy(blank)

    def _compute_logits(self, module: nn.Module, images: Tensor, output_batch_size: int | None = None) -> Tensor:
        """Return the network's logits of a batch; an error of the network becomes a `ModelError`."""
        raw, count = module(images), output_batch_size or len(images)
        is_plain = self.output is None and self.target_function is None and isinstance(raw, Tensor)
        if is_plain and raw.shape == (count, len(self.labels)) and self.labels:
            return raw
        output = pick_output(raw, count, self.output)
        if self.target_function is not None:
            given = raw if self.output is None else output
            value = self.target_function.compute(given, count)
            if images.requires_grad and torch.is_grad_enabled():
                self.target_function.check_dependence(given, value)
            return value
        if self.output_kind == "structured":
            return images.new_zeros(count, 0)
        check_rows(output, count, self.labels, self.name)
        return output

    def _compute_outputs(self, module: nn.Module, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 n"]:
        """Return all outputs for one image in one row: the logits, or every number of a structured output."""
        return (
            flatten_output(module(image)) if self.output_kind == "structured" else self._compute_logits(module, image)
        )

    @contextlib.contextmanager
    def network_context(self) -> Iterator[None]:
        """Run the network in its own types, also where the caller autocasts, and raise its exceptions as `ModelError`.

        Raises:
            ModelError: For any exception of the network, as one line.
        """
        dtype = self.autocast_dtype
        try:
            with torch.autocast(self.reference_tensor().device.type, dtype, enabled=dtype is not None):
                yield
        except VizlibError:
            raise
        except Exception as error:  # the network is third-party code and may raise anything
            height, width = self.preprocessing.input_size
            reason = (str(error).strip().splitlines() or [""])[0]
            if not isinstance(
                error, (RuntimeError, ValueError, AssertionError)
            ):  # the text of a KeyError is a bare key
                reason = f"{type(error).__name__} {reason}".strip()
            raise ModelError(f"{self.name} cannot be run on a {height} × {width} RGB input: {reason}") from error


def _list_enclosing_modules(name: str) -> list[str]:
    """Return the names of the modules that a module is in, without the network itself."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _is_spatial(shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Return whether a model counts an output as spatial: several positions, and about the aspect ratio of its input.

    Outputs with channels last and sequences of tokens are not.
    """
    if len(shape) != 3 or min(shape[1:]) < 2:
        return False
    return 0.5 < (shape[1] * size[1]) / (shape[2] * size[0]) < 2
