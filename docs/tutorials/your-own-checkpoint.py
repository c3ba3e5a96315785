# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own checkpoint
#
# At the end you have a folder of weight files that vizlib loads by name, in Python, on the command line and on the
# page. You also know what vizlib finds in a file, what it has to assume, and how to state it instead.
#
# ## Save a state dict
#
# A state dict holds the weights of a network by name, and nothing else. As a stand-in for a checkpoint of your own,
# this tutorial saves the weights of a network that is included with vizlib. The file does not state where they come
# from.

# %%
import json
import os
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import gradio.media
import torch
from safetensors.torch import save_file

import vizlib

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
photo = vizlib.open_image(gradio.media.get_image("cheetah.jpg"))

original = vizlib.load("vit_tiny-imagenet")
weights = original.module.state_dict()
save_file(weights, folder / "my.safetensors")
print(f"{len(weights)} tensors, {(folder / 'my.safetensors').stat().st_size / 1e6:.0f} MB")
print(list(weights)[:6])

# %% [markdown]
# `torch.save(network.state_dict(), "my.pth")` is accepted too. The suffixes are `.safetensors`, `.pth`, `.pt`, `.ckpt`
# and `.bin`. A safetensors file is preferred: it cannot contain code.
#
# ## Load it by its path

# %%
model = vizlib.load(folder / "my.safetensors")
print(model)
for note in model.notes:
    print("*", note)

# %% [markdown]
# The architecture and the number of classes were detected from the names and shapes of the weights. This works for
# ResNets, vision transformers and Swin transformers of timm and torchvision. Three things are not in the weights, and
# the notes say what was assumed:
#
# * The number of heads, the activation, and the epsilon of the normalisation. The names and shapes are the same for any
#   number of heads.
# * How photos are prepared. The mean and the standard deviation of the normalisation are those that timm uses for this
#   architecture, and this network was trained with others.
# * The labels. There are 1,000 of them, so those of ImageNet are assumed. A file with another number of classes gets
#   the labels "class 0", "class 1" and so on.
#
# The notes are also notes of every map. Wrong assumptions change the prediction:


# %%
def print_predictions(model):
    """Print the two most probable classes of the photo."""
    print(model.name, *(f"{row.probability:.1%} {row.label.split(',')[0]}" for row in model.predict(photo, top=2)))


print_predictions(original)
print_predictions(model)

# %% [markdown]
# ## State it in a sidecar
#
# A sidecar is a JSON file of the same name beside the weights: `my.json` beside `my.safetensors`. All its fields are
# optional. `preprocessing` takes the names of timm.

# %%
sidecar = {
    "architecture": "vit_tiny_patch16_224",
    "labels": list(original.labels),
    "output_kind": "softmax",
    "preprocessing": {
        "input_size": [3, 224, 224],
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}
(folder / "my.json").write_text(json.dumps(sidecar))

model = vizlib.load(folder / "my.safetensors")
print("notes:", model.notes)
print_predictions(model)
assert abs(model.predict(photo)[0].probability - original.predict(photo)[0].probability) < 1e-3

# %% [markdown]
# Now there is nothing to assume, and the probabilities are those of the original network. Further arguments of
# `timm.create_model` are given as `arguments`, for example `{"img_size": 384}`. `load` also takes `architecture=`,
# `labels=` and `output_kind=`, which replace what the sidecar states.

# %%
vizlib.explain(model, photo, "attention-relevance", target="cheetah")

# %% [markdown]
# ## What training scripts put around the weights
#
# Training scripts save more than a state dict: the state of the optimizer, the number of the epoch, an averaged copy of
# the network. Wrappers such as `DistributedDataParallel` put a prefix before every name. All of this is removed.

# %%
torch.save(
    {
        "epoch": 12,
        "optimizer": {"lr": 0.001},
        "model": {f"module.{name}": tensor for name, tensor in weights.items()},
        "loss.weight": torch.ones(1000),
    },
    folder / "wrapped.pth",
)
wrapped = vizlib.load(folder / "wrapped.pth", architecture="vit_tiny_patch16_224")
print(wrapped)

# %% [markdown]
# A file with several networks is loaded too: a note names the one that was chosen. `state_dict` in the sidecar chooses
# another one.

# %%
torch.save(
    {
        "student": {f"module.backbone.{name}": tensor for name, tensor in weights.items()},
        "teacher": weights,
    },
    folder / "two.pth",
)
print(*(note for note in vizlib.load(folder / "two.pth").notes if note.code == "model.one-of-several"))
(folder / "two.json").write_text(json.dumps({**sidecar, "state_dict": "student"}))
print_predictions(vizlib.load(folder / "two.pth"))

# %% [markdown]
# Weights that belong to no part of the architecture are an error, because the network that was trained may compute
# something else. If they are of no use for the prediction, the sidecar leaves them out by the beginning of their names.

# %%
torch.save({**weights, "probe.weight": torch.zeros(3, 192)}, folder / "extra.pth")
try:
    vizlib.load(folder / "extra.pth")
except vizlib.ModelError as error:
    print(error)
(folder / "extra.json").write_text(json.dumps({**sidecar, "ignore": ["probe."]}))
print_predictions(vizlib.load(folder / "extra.pth"))

# %% [markdown]
# ## Files that are refused
#
# `.pth` files are pickles, and a pickle can run code when it is opened. vizlib opens them with `weights_only=True` and
# executes nothing that is in them. `torch.save(network)` writes a pickle of the whole network, which is refused for the
# same reason. The message says what to do instead.


# %%
class Harmful:
    """An object whose pickle creates a folder when it is opened without precautions."""

    def __reduce__(self):
        """Return what pickle calls when it opens the object."""
        return os.mkdir, (str(folder / "created"),)


torch.save(original.module, folder / "whole-network.pth")
torch.save({"model": weights, "extra": Harmful()}, folder / "harmful.pth")
content = (folder / "my.safetensors").read_bytes()
(folder / "truncated.safetensors").write_bytes(content[: len(content) // 2])


def print_refusal(name):
    """Try to load a file, and print the message of the error."""
    try:
        vizlib.load(folder / name)
    except vizlib.ModelError as error:
        print("*", str(error).replace(temporary.name, "FOLDER"))


for name in ("whole-network.pth", "harmful.pth", "truncated.safetensors", "missing.safetensors"):
    print_refusal(name)
assert not (folder / "created").exists()

# %% [markdown]
# A `sha256` in the sidecar is compared with that of the file before the file is opened.
#
# ## A folder of checkpoints
#
# Every command, `vizlib.load` and `vizlib.list_models` take a folder of checkpoints. Its files are then loaded by name,
# without path and suffix.

# %%
for name in ("extra", "harmful", "truncated", "two", "whole-network", "wrapped"):
    for path in folder.glob(f"{name}.*"):
        path.unlink()

print([entry.name for entry in vizlib.list_models(folder) if entry.source == "folder"])
print(vizlib.load("my", checkpoints=folder))

# %% [markdown]
# The same on the command line. In a notebook, `!vizlib models --checkpoints FOLDER` runs a command; the function below
# does the same in any script. `sysconfig` knows where the command `vizlib` was installed.

# %%
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])


def run(command):
    """Run a command in the folder of checkpoints, and print what it prints."""
    print("$", command)
    done = subprocess.run(command.split(), cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout)


run("vizlib models --checkpoints .")

# %%
photo.save(folder / "photo.png")
run("vizlib explain photo.png --checkpoints . --model my --target cheetah")

# %%
temporary.cleanup()

# %% [markdown]
# ## On the page
#
# ```bash
# vizlib serve --checkpoints FOLDER
# ```
#
# starts the page, with the files of the folder in its menu of models. What was assumed is shown below every map. From
# Python, `dashboard.serve(model)` shows a model that `load` or `wrap` returned; see [The page and a
# Space](the-page-and-a-space.py).
#
# ## Where to go next
#
# * [Your own model](your-own-model.py): a network that is no architecture of timm or torchvision.
# * [Add a checkpoint](../how-to/add-a-checkpoint.md): train a network with the scripts of this repository.
# * [Architectures](../reference/architectures.md) whose layers are known.
# * [Models](../reference/models.md) that are included.
