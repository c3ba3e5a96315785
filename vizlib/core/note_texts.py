"""The English text of every note, by its code; `vizlib.core.text` makes notes of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TEXTS: Mapping[str, str] = MappingProxyType(
    {  # code -> English text; names in braces stand for facts
        "contrast.not-class-specific": "The map of {method} does not depend on the class, so there is no contrast.",
        "contrast.same-class": "The target is compared with itself, so the score is always zero.",
        "gradient.bfloat16": (
            "Computed in bfloat16; the correlation of one gradient with single precision is {correlation}."
        ),
        "jacobian.inexact": (
            "The dual identity <v, J u> = <J^T v, u> holds only up to a relative error of {error}: rounding, or an "
            "operation with a wrong derivative, distorts this gradient."
        ),
        "jacobian.unchecked": (
            "The dual identity was not checked: an operation of the network has no second derivative here."
        ),
        "jacobian.zero": "The gradient of {output} with respect to {of} is zero: on this photo it has no effect.",
        "image.alpha": "Its transparent parts were composited on white.",
        "image.animation": "Only frame {frame} of this animation is used.",
        "image.archive": "{file} is a {format} archive, not a photo: extract it first, expected a photo as {formats}",
        "image.avif": "{file} is an AVIF photo, which this Pillow does not read, expected a photo as {formats}",
        "image.bands-as-colors": (
            "Bands 1, 2 and 3 of its {count} are shown as red, green and blue; the file states no colours."
        ),
        "image.bands-left-out": "Of its {count} bands the last {left_out} are not shown.",
        "image.cmyk": (
            "Its printing colours (CMYK) were converted without a colour profile, so they may be slightly off."
        ),
        "image.damaged": "{file} is damaged or incomplete: it starts as an image but cannot be decoded",
        "image.empty": "{file} is empty, expected a photo as {formats}",
        "image.heic": (
            "{file} is a HEIC photo, which is read only where pillow-heif is installed (pip install 'vizlib[images]'), "
            "expected a photo as {formats}"
        ),
        "image.incomplete": "{file} is damaged or incomplete: it {started}cannot be decoded to its end",
        "image.lost-bits": "Only the highest 8 of the {bits} bits of each of its values could be read.",
        "image.needs-codec": (
            "{file} holds {bits}-bit numbers with compression {compression}, which are read only where imagecodecs is "
            "installed (pip install 'vizlib[images]'), expected a photo as {formats}"
        ),
        "image.no-data": "Where it has no data ({share} of its pixels) it is shown white.",
        "image.not-finite": "{file} holds NaN or infinite values, expected finite numbers",
        "image.not-image": "{file} is not an image, expected a photo as {formats}",
        "image.numbers": (
            "{file} is in {format} format, which is not read here: read it with {package} and give its values as an "
            "array, expected a photo as {formats}"
        ),
        "image.other-format": "{file} is in {format} format, which is not read here, expected a photo as {formats}",
        "image.pages": "Only image {frame} of the several in its file is used.",
        "image.pdf": "{file} is a PDF, not an image, expected a photo as {formats}",
        "image.raw": (
            "{file} is a raw file of a camera ({format}), of which only a small preview could be read: export it as a "
            "photo first, expected a photo as {formats}"
        ),
        "image.scaled": "Its {kind} values from {low} (now black) to {high} (now white) were scaled to 8 bits.",
        "image.svg": "{file} is an SVG drawing, not a photo, expected a photo as {formats}",
        "image.text": "{file} is text, not an image, expected a photo as {formats}",
        "image.too-deep": (
            "{file} has {bands} bands of {bits}-bit numbers, {megabytes} MB once decoded, expected at most {limit} MB"
        ),
        "image.too-large": "{file} is {size} pixels, {megapixels} megapixels, expected at most {limit} megapixels",
        "image.too-long": "{file} is {size} pixels, expected a photo at most {limit} times as long as it is wide",
        "image.too-many-pixels": "{file} has more than {limit} megapixels, the most allowed",
        "image.too-small": "{file} is {size} pixels, expected at least {limit} on each side",
        "image.unit-floats": "Its float values were taken as 0 (black) to 1 (white).",
        "image.unsupported-tiff": (
            "{file} is a TIFF of {bands} bands of {numbers} ({photometric}, compression {compression}), which is not "
            "read here, expected grey values or colours"
        ),
        "image.video": "{file} is a video or a photo of a kind that cannot be read here, expected a photo as {formats}",
        "image.web-page": "{file} is a web page, not an image, expected a photo as {formats}",
        "integrated-gradients.sum": "The map sums to {sum}; the score difference to the baseline is {difference}.",
        "integrated-gradients.sum-with-gap": (
            "The map sums to {sum}; the score difference to the baseline is {difference}: a gap of {gap}."
        ),
        "map.constant-channels": (
            "Every channel of this layer has the same value at all positions; choose an earlier layer."
        ),
        "map.empty": "The map is empty: no region contributes to {label}.",
        "map.no-gradient": (
            "The map is empty: the gradient at the positions of {layer} is exactly zero, as the score does not depend "
            "on them or the network cuts the path there (detach, no_grad); choose an earlier layer."
        ),
        "map.not-finite": "The map holds values that are not finite, so it cannot be trusted.",
        "map.partial-layer": (
            "No single layer carries all that the output depends on; about {share} of the gradient at the image passes "
            "through {layer}, the rest bypasses it."
        ),
        "metric.constant-map": "The metric {metric} is not defined for a map whose values are equal or not finite.",
        "metric.not-defined": "The metric {metric} is not defined here, as what it divides by is zero.",
        "metric.object-not-seen": "The input of the model holds no part of the object, so there is nothing to compare.",
        "metric.score-not-positive": "The metric {metric} is a fraction of the score, which is not positive here.",
        "model.assumed-imagenet": (
            "{model} does not state how photos are prepared; the preprocessing of ImageNet is assumed ({height} × "
            "{width} pixels, mean {mean}...). Pass preprocessing= if the model was trained with another one."
        ),
        "model.assumed-inner": (
            "{model} does not state how photos are prepared; the preprocessing of its part {part} is assumed ({height} "
            "× {width} pixels, mean {mean}...). Pass preprocessing= if the model was trained with another one."
        ),
        "model.assumed-labels": (
            "{file} does not name its {count} classes; ImageNet's are assumed, as they are as many. Put labels into "
            "{sidecar} if it was trained on others."
        ),
        "model.assumed-preprocessing": (
            "{file} does not state how photos are prepared; the default preprocessing of {architecture} is assumed "
            "({height} × {width} pixels, mean {mean}...). Put preprocessing into {sidecar} if the model was "
            "trained with another one."
        ),
        "model.assumed-processor": (
            "The config of {model} does not state how photos are prepared; the defaults of {processor} are assumed "
            "({height} × {width} pixels, mean {mean}...). Pass preprocessing= if the model was trained with another "
            "one."
        ),
        "model.detected-convolutional": (
            "{file} does not state its architecture; its weights fit {architecture}. Weights do not show strides, "
            "dilation, pooling, the activation and the epsilon of the normalisation: those of {architecture}, such as "
            "{activation} and {epsilon}, are assumed. Put architecture and arguments into {sidecar} if it has others."
        ),
        "model.detected-transformer": (
            "{file} does not state its architecture; its weights fit {architecture}. Weights do not show the number of "
            "heads, the activation and the epsilon of the normalisation: {heads} heads, {activation} and {epsilon} are "
            "assumed. Put architecture and arguments into {sidecar} if it has others."
        ),
        "model.detected-windows": (
            "{file} does not state its architecture; its weights fit {architecture}. Weights do not show all windows, "
            "the activation and the epsilon of the normalisation: windows of {window} tokens, {activation} and "
            "{epsilon} are assumed. Put architecture and arguments into {sidecar} if it has others."
        ),
        "model.embedding-network": (
            "{network} in {file} is a network of self-supervised training, so its {count} outputs may be an embedding "
            "instead of classes."
        ),
        "model.ignored-weights": (
            "Left out of {file}, as by their names they take part in the training alone: {names}."
        ),
        "model.no-classifier": "{file} has no classifier: the outputs are features, not classes.",
        "model.not-finite": "The model's output holds values that are not finite, so no map of it can be trusted.",
        "model.one-of-several": (
            "{file} holds several networks; {chosen} is loaded, {others} not. Put the name of another, as state_dict, "
            "into {sidecar} to load that one."
        ),
        "model.other-architectures": (
            "The weights of {file} also fit architectures that compute something else than {architecture}: {others}. "
            "Give architecture= if it is one of them."
        ),
        "model.ood-not-applicable": (
            "Photos are not compared with the calibration data: its score, the {score}, is not defined for {meaning}."
        ),
        "model.out-of-distribution": (
            "This photo is unlike the photos that the model was calibrated on: its {score} is {value}, and "
            "{coverage} % of {data} reach {threshold}. It may show none of the {classes} classes."
        ),
        "model.digit-scenes": (
            "This model was trained on scenes of coloured digits only; its scores of other photos mean nothing."
        ),
        "model.training-mode": (
            "The model was in training mode; it was run in evaluation mode and left in training mode."
        ),
        "model.unused-weights": "Left out of {file}, as {architecture} does not use them: {names}.",
        "output.features": (
            "The network has no classifier: its {count} outputs are features, which stand for no classes."
        ),
        "output.log-softmax": (
            "The network ends in a log-softmax, so the score that is explained is the logarithm of the probability of "
            "the class."
        ),
        "output.one-logit": (
            "The network has one output, which is taken as the logit of one label (sigmoid); declare "
            "output_kind='values' if it is a regression."
        ),
        "output.probabilities": (
            "The network ends in a softmax or sigmoid, so it is probabilities that are explained, not logits."
        ),
        "output.rows-sum-to-1": (
            "The outputs are positive and sum to 1, so they are taken as probabilities, not as logits; declare "
            "output_kind if they are something else."
        ),
        "output.structured": (
            "The output is {output}, not one row of numbers for each photo, so there are no classes to predict; "
            "explain takes functions of it as target=."
        ),
        "photo.cropped": "The model input covers {share} of the photo; the rest was cropped away and is dimmed.",
        "preprocessing.8-bit-mean": (
            "The given mean ({mean}) and standard deviation ({std}) are those of pixel values from 0 to 255; they were "
            "divided by 255."
        ),
        "preprocessing.assumed-mean": (
            "The given preprocessing does not state {keys}; the values of {source} are assumed ({values})."
        ),
        "prompts.templates": "The features of each prompt are the mean over {count} templates.",
        "prompts.truncated": (
            "Only the beginning of {count} of the prompts is read, as the text tower takes no longer texts: {names}."
        ),
        "prompts.words-without-templates": (
            "The relevance of the words is that of the prompt as it is, without the templates of the model."
        ),
        "score.bfloat16": "Computed in bfloat16; its error of a score is {share} of the spread of the scores.",
        "score.bfloat16-refused": (
            "Computed in single precision: the error of bfloat16 in a score was {share} of the spread of the scores."
        ),
        "score.bfloat16-too-coarse": "Computed in single precision: bfloat16 cannot distinguish the scores.",
        "score.saturated-output": (
            "The network returns a probability near 1, whose gradient is nearly zero everywhere; wrap it without its "
            "last softmax or sigmoid to explain logits."
        ),
        "score.saturated-sigmoid": (
            "The sigmoid is saturated, so the gradient of the probability is nearly zero everywhere; that of the logit "
            "is not."
        ),
        "score.saturated": (
            "The softmax is saturated, so the gradient of the probability is nearly zero everywhere; that of the "
            "logit is not."
        ),
        "target.not-predicted": "The model does not predict {label}: it gives it a probability of {share}.",
        "target.not-top": "The model predicts {best} ({share}); {label} is number {rank} ({other}).",
        "target.uncertain": "The model is uncertain: its most likely class has a probability of {share}.",
        "trust.constant-map": (
            "How far the map can be trusted is not measured, as its values are equal or not finite: it has no order."
        ),
        "trust.depends": (
            "With random parameters, level by level from the output on, the map changes: its rank correlation with the "
            "map of the trained network is {first} after the first of {levels} levels and {mean} on average, without "
            "sign (the same values in random places: {shuffled})."
        ),
        "trust.faithful": (
            "What it marks matters more to {label} than what {beaten} of {count} random maps mark: deletion {deletion} "
            "(random {random_deletion}), insertion {insertion} (random {random_insertion})."
        ),
        "trust.hardly-depends": (
            "The map hardly depends on what the network has learned: with random parameters, level by level from the "
            "output on, its rank correlation with the map of the trained network is {first} after the first of "
            "{levels} "
            "levels and {mean} on average, without sign (the same values in random places: {shuffled})."
        ),
        "trust.many-passes": (
            "Dependence and stability are not measured unless asked for, as {method} would run many times, each with "
            "many passes."
        ),
        "trust.not-defined": "Not defined for this map, as what it is divided by is zero.",
        "trust.stable": (
            "Noise that one hardly sees changes the map by at most {change} (the same values in random places: "
            "{shuffled})."
        ),
        "trust.unfaithful": (
            "What it marks matters no more to {label} than what random maps mark: it beats {beaten} of {count}; "
            "deletion {deletion} (random {random_deletion}), insertion {insertion} (random {random_insertion})."
        ),
        "trust.unstable": (
            "Noise that one hardly sees changes the map by up to {change} (the same values in random places: "
            "{shuffled})."
        ),
    }
)
