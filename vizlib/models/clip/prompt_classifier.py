"""The network of a model whose classes are prompts: an image tower, and the features of the prompts as its weights."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class PromptScores(nn.Module):
    """The last layer: scale x cosine + bias for the features of each prompt, which are its weights.

    Args:
        prompts: Features of the prompts "prompts width", each of length 1.
        scale: Factor of the cosine: the inverse of the temperature.
        bias: What is added to it.
    """

    scale: Tensor
    bias: Tensor

    def __init__(
        self, prompts: Float[Tensor, "prompts width"], scale: Float[Tensor, ""], bias: Float[Tensor, ""]
    ) -> None:
        super().__init__()
        self.training = False
        # A parameter, as the weights of a classifier are: what randomises those must randomise these.
        self.weight = nn.Parameter(prompts, requires_grad=False)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, features: Float[Tensor, "n width"]) -> Float[Tensor, "n prompts"]:
        """Return the logit of each prompt for features of the image tower."""
        return self.scale * F.normalize(features, dim=-1) @ self.weight.T.to(features.dtype) + self.bias


class PromptClassifier(nn.Module):
    """Scores images by their similarity to prompts, as CLIP and SigLIP do.

    The image tower is the user's own module, which stays in its mode; only this container and its last layer are new.

    Args:
        visual: The image tower, from images "n 3 h w" to features "n width", or a tuple that starts with them.
        classifier: The last layer.
    """

    def __init__(self, visual: nn.Module, classifier: PromptScores) -> None:
        super().__init__()
        self.training = False  # not eval(), which would change the mode of the image tower
        self.visual, self.classifier = visual, classifier

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n prompts"]:
        """Return the logit of each prompt for each image."""
        return self.classifier(pick_features(self.visual(images)))

    def score_backbone(self, name: str, features: Float[Tensor, "n width"]) -> Float[Tensor, "n prompts"]:
        """Return the logit of each prompt for what a submodule would return, which is or lies in the image tower.

        Args:
            name: Name of the submodule.
            features: Features as it returns them.
        """
        if name == "visual.trunk":  # a network of timm in open_clip
            features = self.visual.get_submodule("head")(features)
        if name == "visual.vision_model" and (projection := getattr(self.visual, "projection", None)) is not None:
            features = projection(features)
        return self.classifier(features)


class TransformersImageTower(nn.Module):
    """The image tower of a CLIP of transformers: its vision model and its projection, where it has one.

    Args:
        vision_model: From images "n 3 h w" to hidden states and pooled features.
        projection: From pooled features to those that are compared with texts.
    """

    def __init__(self, vision_model: nn.Module, projection: nn.Module | None) -> None:
        super().__init__()
        self.training = False
        self.vision_model, self.projection = vision_model, projection

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n width"]:
        """Return the features of images."""
        pooled = self.vision_model(images, return_dict=False)[1]
        return pooled if self.projection is None else self.projection(pooled)


def pick_features(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the features of an image tower that may return its tokens too, as CoCa's does."""
    return output if isinstance(output, Tensor) else output[0]
