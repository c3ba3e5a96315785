# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own model
#
# At the end you have a small network that you trained yourself, and heat maps of it that can be judged, because you
# know where the evidence is. You also know which methods support such a network, how to choose a layer, and how to
# explain other values than the score of a class.
#
# ## Photos with a known answer
#
# In each image there is a disc, a square, or nothing, at a random place, in a random dark or bright colour, on a noisy
# background. A network that predicts the shape must look at the shape. So a correct heat map lies on it.

# %%
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

import vizlib

LABELS = ["disc", "square", "nothing"]
SIDE = 192  # pixels of an image


def draw(shapes, random):
    """Return an image with shapes: pairs of a label and a box (left, top, right, bottom) in fractions of the side."""
    noise = random.integers(90, 166, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for label, box in shapes:
        darkest = random.choice([0, 196])
        color = tuple(random.integers(darkest, darkest + 60, 3).tolist())
        draw_shape = pen.ellipse if label == "disc" else pen.rectangle
        draw_shape([value * SIDE for value in box], fill=color)
    return image


def choose_box(random):
    """Return a random box that is 25 to 45 % of the image wide."""
    size = random.uniform(0.25, 0.45)
    left, top = random.uniform(0.02, 0.98 - size, 2)
    return left, top, left + size, top + size


def draw_example(label, random):
    """Return a random image of a class."""
    return draw([] if label == "nothing" else [(label, choose_box(random))], random)


examples = [draw_example(label, np.random.default_rng(seed)) for seed, label in enumerate(LABELS)]
row = Image.new("RGB", (3 * SIDE + 20, SIDE), "white")
for number, example in enumerate(examples):
    row.paste(example, (number * (SIDE + 10), 0))
row

# %% [markdown]
# ## A network, and `wrap`
#
# The network is an ordinary `nn.Module`: four convolutions with batch normalisation, the mean over all positions, and a
# linear classifier.


# %%
def make_block(inputs, outputs, stride):
    """Return a convolution with batch normalisation and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class ShapeNet(nn.Module):
    """A classifier of shapes."""

    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(make_block(3, 16, 2), make_block(16, 32, 2), make_block(32, 48, 1))
        self.last = make_block(48, 48, 1)
        self.classifier = nn.Linear(48, classes)

    def forward(self, images):
        maps = self.last(self.features(images))
        return self.classifier(maps.mean((2, 3)))


torch.manual_seed(0)
network = ShapeNet(len(LABELS))

# %% [markdown]
# `vizlib.wrap` adds what vizlib has to know besides the network: how a photo becomes its input, and the labels.
# Preprocessing is stated with the names of timm: the size of the input, the share of the photo that is kept
# (`crop_pct`), and the mean and standard deviation of the normalisation, for pixel values from 0 to 1. Evaluation
# transforms of torchvision, timm and open_clip and image processors of transformers are accepted as well. From all of
# them vizlib computes where the input lies on the photo; see [Geometry](../explanations/geometry.md).

# %%
preprocessing = {"input_size": (3, 64, 64), "crop_pct": 1.0, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
model = vizlib.wrap(network, preprocessing=preprocessing, labels=LABELS, name="shapes")
print(model)
print(model.notes)

# %% [markdown]
# ## Train it
#
# `model.tensor(photo)` returns the input for a photo, with that preprocessing. The training uses it too, so training
# and explanation prepare photos in the same way. The training is ordinary PyTorch: 1,200 images, four epochs, a few
# seconds. The seeds make it repeatable.

# %%
IMAGES, EPOCHS, BATCH_SIZE = 1200, 4, 40

random = np.random.default_rng(0)
targets = torch.arange(IMAGES) % len(LABELS)
images = torch.cat([model.tensor(draw_example(LABELS[target], random)) for target in targets.tolist()])

generator = torch.Generator().manual_seed(0)
optimizer = torch.optim.AdamW(network.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=EPOCHS * IMAGES // BATCH_SIZE)
network.train()
for epoch in range(EPOCHS):
    losses = []
    for batch in torch.randperm(IMAGES, generator=generator).split(BATCH_SIZE):
        loss = nn.functional.cross_entropy(network(images[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    print(f"epoch {epoch + 1}: mean loss {np.mean(losses):.3f}")
optimizer.zero_grad()  # drop the gradients of the last step
network.eval()

random = np.random.default_rng(1)
tests = [(label, draw_example(label, random)) for label in LABELS for _ in range(20)]
correct = sum(model.predict(photo)[0].label == label for label, photo in tests)
print(f"{correct} of {len(tests)} new images are classified correctly")
assert correct >= 55

# %% [markdown]
# ## One image, two explanations
#
# Now an image with a disc and a square. The network has never seen two shapes in one image. The explanation for *disc*
# must lie on the disc, and the explanation for *square* on the square.

# %%
boxes = {"disc": (0.07, 0.10, 0.43, 0.46), "square": (0.56, 0.52, 0.92, 0.88)}
photo = draw(boxes.items(), np.random.default_rng(5))
maps = {label: vizlib.explain(model, photo, "grad-cam", target=label) for label in boxes}
maps["disc"]

# %%
maps["square"]

# %% [markdown]
# Judge the maps with a number: the share of the positive heat that lies in the box of a shape. `project_to_photo`
# returns the heat at every pixel of the photo. A value of the map stands for one of 16 × 16 cells, and each cell sees
# some pixels around it, so the box is enlarged by one cell on each side. It then covers about a quarter of the image.


# %%
def measure_share(attribution, box, margin=1 / 16):
    """Return the share of the positive heat that lies in a box, enlarged by a margin."""
    heat = attribution.project_to_photo().clip(min=0)
    left, top, right, bottom = box
    rows = slice(round(max(top - margin, 0) * SIDE), round(min(bottom + margin, 1) * SIDE))
    columns = slice(round(max(left - margin, 0) * SIDE), round(min(right + margin, 1) * SIDE))
    return float(heat[rows, columns].sum() / heat.sum())


for label, attribution in maps.items():
    shares = {shape: measure_share(attribution, box) for shape, box in boxes.items()}
    print(f"heat for {label:<7}", {shape: f"{share:.0%}" for shape, share in shares.items()})
    others = [share for shape, share in shares.items() if shape != label]
    assert shares[label] > 0.5
    assert shares[label] > 3 * max(others)

# %% [markdown]
# Most of the heat for a class lies on the shape of that class, and only little of it on the other shape.
#
# ## Which methods support the network
#
# `list_methods(model)` returns the names of the methods that support the network. Calling another one raises a
# `MethodError`, whose sentence says why.

# %%
supported = vizlib.list_methods(model)
print(len(supported), "methods:", ", ".join(supported))
for method in vizlib.list_methods():
    if method not in supported:
        try:
            vizlib.explain(model, photo, method)
        except vizlib.MethodError as error:
            print(str(error).partition(";")[0])

# %% [markdown]
# ## Layers
#
# `summary` returns a table of all layers. `stages` are the layers whose output has positions, and `cam_layer` is the
# one that class activation maps use by default. For a network that vizlib does not know, both are measured: the default
# is the deepest layer that all of the dependence of the output on the image passes through.

# %%
print(model.summary())
print("stages:", model.stages)
print("default layer:", model.cam_layer)

# %% [markdown]
# `layer` selects another one. Early layers have more positions, and their channels respond to edges and colours instead
# of shapes.

# %%
vizlib.AttributionDict(
    {layer: vizlib.explain(model, photo, "layer-cam", "square", layer=layer) for layer in model.stages}
)

# %% [markdown]
# ## One output: a single sigmoid logit
#
# Many networks have one output: the logit of *yes*, trained with `BCEWithLogitsLoss`. Here such a network is made from
# the trained one; its output is the logit of *disc* minus that of *square*.


# %%
class DiscOrSquare(nn.Module):
    """A network with one output, which is positive for a disc and negative for a square."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        logits = self.network(images)
        return logits[:, :1] - logits[:, 1:2]


single = DiscOrSquare(network).eval()
print(*vizlib.wrap(single, preprocessing=preprocessing).notes, sep="\n")

# %% [markdown]
# What the outputs mean is the `output_kind`. It is found where that is possible, and a note says what was assumed.
# State it, and the note is gone: `"softmax"` for logits of classes that exclude each other, `"sigmoid"` for logits of
# independent labels or of one label, `"probabilities"`, `"values"` for a regression, `"features"`, `"structured"`.
#
# The opposite of a single label can be explained too. Its name is the label with *not*.

# %%
disc = vizlib.wrap(single, preprocessing=preprocessing, labels=["disc"], output_kind="sigmoid", name="disc or square")
square_alone = draw([("square", boxes["square"])], np.random.default_rng(6))
for prediction in disc.list_outcomes(disc.predict(square_alone)):
    print(f"{prediction.probability:6.1%}  {prediction.label}")
not_a_disc = vizlib.explain(disc, square_alone, target="not disc")
assert measure_share(not_a_disc, boxes["square"]) > 0.5
not_a_disc

# %% [markdown]
# ## A function as target
#
# `target` may be any function of the output. It takes what the network returns for `n` photos, and returns a tensor of
# `n` values. Here it is the entropy of the prediction, a measure of its uncertainty. The heat lies on what raises it:
# the shape that is not the most probable class.


# %%
def entropy(logits):
    """Return the entropy of the predicted probabilities of each image."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


print({prediction.label: f"{prediction.probability:.1%}" for prediction in model.predict(photo)})
uncertainty = vizlib.explain(model, photo, "grad-cam", target=entropy)
print(uncertainty.label, uncertainty.score)
print({label: f"{measure_share(uncertainty, box):.0%}" for label, box in boxes.items()})
uncertainty

# %% [markdown]
# A weighted sum of classes needs no function: `target={"disc": 1.0, "square": -0.5}`. Outputs that are no row of
# numbers, such as those of segmentation and detection, are explained with functions; see [Explain segmentation and
# detection](../how-to/explain-segmentation-and-detection.md).
#
# ## The network is not changed
#
# vizlib removes its hooks after every pass and writes to no module. Take a record of the network, run every method that
# supports it, and compare.


# %%
def record(network):
    """Return everything about a network that an explanation could have changed."""
    modules = {
        name: (module.training, len(module._forward_hooks), len(module._backward_hooks), sorted(vars(module)))
        for name, module in network.named_modules()
    }
    weights = {
        name: (parameter.requires_grad, parameter.grad is None) for name, parameter in network.named_parameters()
    }
    return modules, weights


before, state = record(network), {name: tensor.clone() for name, tensor in network.state_dict().items()}
for method in supported:
    vizlib.explain(model, photo, method, **({"masks": 32} if method == "rise" else {}))
assert record(network) == before
assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
print(f"{len(supported)} methods ran; modules, flags, gradients, hooks and weights are the same as before")

# %% [markdown]
# So a network can be explained in the middle of a training. If it is in training mode, it is run in evaluation mode on
# a copy that shares its weights, and a note says so.
#
# ## Where to go next
#
# * [Your own checkpoint](your-own-checkpoint.py): load weights from a file.
# * [The page and a Space](the-page-and-a-space.py): `dashboard.serve(model)` shows this network in the browser.
# * [Capture and threads](../explanations/capture-and-threads.md): how activations and gradients are recorded.
# * [Add a model family](../how-to/add-a-model-family.md): teach vizlib the layers of an architecture.
