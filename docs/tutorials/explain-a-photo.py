# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Explain a photo
#
# At the end you have heat maps that show on which parts of a photo the prediction of a vision transformer depends, and
# a measurement that shows how far one of them can be trusted. You also have the maps as a picture, as raw values and as
# an HTML report.
#
# ## Why did it say that?
#
# `vizlib.load` loads a network with its labels and its preprocessing. `vit_tiny-imagenet` is included with vizlib: a
# vision transformer that distinguishes the 1,000 classes of ImageNet. `predict` lists the most probable classes, and
# `explain` returns a heat map for the first of them. In a notebook, the result at the end of a cell is displayed.

# %%
import gradio.media

import vizlib

model = vizlib.load("vit_tiny-imagenet")
photo = vizlib.open_image(gradio.media.get_image("cheetah.jpg"))
for prediction in model.predict(photo, top=3):
    print(f"{prediction.probability:6.1%}  {prediction.label}")
why = vizlib.explain(model, photo, method="grad-cam")
why

# %% [markdown]
# The map is drawn on the photo at the place where the network saw it. The bright spots lie on the cheetah: there, the
# channels of the network that raise the logit of *cheetah* are active (Grad-CAM: Selvaraju et al., ICCV 2017,
# arXiv:1610.02391). The two dark strips were cropped away, because the network takes a square.
#
# The result is a `vizlib.Attribution`. `heat` holds the raw values, one for each of the 14 × 14 patches of 16 pixels
# into which this network divides its input. Only drawing rescales them.

# %%
print(why)
print(why.heat.shape, why.score, why.probability)

# %% [markdown]
# `photo` may be a path, bytes, an array or a PIL image. For your own photo, replace the line by
# `photo = vizlib.open_image("my.jpg")`.
#
# ## Why a cheetah and not a leopard?
#
# The network gives *leopard* a probability of 11 %. With `against`, the explained score is the difference between the
# two logits. Warm positions raise *cheetah* above *leopard*, cold ones do the opposite.

# %%
vizlib.explain(model, photo, method="hires-cam", target="cheetah", against="leopard")

# %% [markdown]
# `target` and `against` take a label, one of the names in a label, or the index of a class. `against="runner-up"` is
# the most probable class besides the target.
#
# HiResCAM (Draelos and Carin, 2020, arXiv:2011.08891) computes activation times gradient. Occlusion (Zeiler and Fergus,
# ECCV 2014, arXiv:1311.2901) uses no gradient: it covers one square of the photo after the other and measures how the
# score changes. Here it takes 169 forward passes, so `estimate` first measures how long that takes on this machine.

# %%
print(f"about {vizlib.estimate(model, 'occlusion', photo):.0f} s")
vizlib.explain(model, photo, method="occlusion", target="cheetah", against="leopard")

# %% [markdown]
# Covering the head lowers the score the most. A cheetah's face has black lines from the eyes to the mouth, and a
# leopard's has not; the map shows where the evidence is, but not which property of the face it is.
#
# ## Several methods side by side
#
# `explain_all` computes every method that needs one forward and one backward pass, from the same two passes. The result
# is a dictionary by the name of the method, and a notebook displays it as a grid.

# %%
maps = vizlib.explain_all(model, photo, target="cheetah")
maps

# %% [markdown]
# The maps differ, because the methods answer different questions:
#
# * `grad-cam`, `hires-cam`, `eigen-grad-cam` and `attention-relevance` show evidence for the class. Here they lie on
#   the animal.
# * `saliency` and `input-x-gradient` show how sensitive the score is to each pixel. In a vision transformer their
#   values follow the grid of the patches.
# * `eigen-cam`, `raw-attention` and `attention-rollout` do not depend on the class. `eigen-cam` shows the strongest
#   pattern in a layer, which is the background here.
# * `grad-cam++` and `layer-cam` were made for activations that are never negative. Those of a transformer can be
#   negative, and part of the heat lies on the background.
#
# `agreement` measures how similar two maps are: the rank correlation of their values, and the share of the strongest
# fifth of the pixels that both have. Two unrelated maps share about a fifth.

# %%
for name in ("hires-cam", "attention-relevance", "saliency", "eigen-cam"):
    similarity = vizlib.agreement(maps["grad-cam"], maps[name])
    print(f"grad-cam and {name:<20} correlation {similarity.correlation:5.2f}, overlap {similarity.overlap:4.0%}")

# %% [markdown]
# The methods of one layer also have a map for every block of the network, in `by_layer`.

# %%
vizlib.AttributionDict({layer: maps["hires-cam"].by_layer[layer] for layer in ("blocks.2", "blocks.5", "blocks.8")})

# %% [markdown]
# ## What the notes say
#
# `notes` lists what is wrong with a map or worth knowing about it, one sentence each. The notes are displayed below the
# map too. Read them before you read the map.

# %%
tower = gradio.media.get_image("tower.jpg")
for title, attribution in {
    "cheetah": why,
    "leopard, which is not the prediction": vizlib.explain(model, photo, target="leopard"),
    "the Eiffel tower, which is no class of ImageNet": vizlib.explain(model, tower),
}.items():
    print(title)
    for note in attribution.notes:
        print("  *", note)

# %% [markdown]
# ## Check a map: hide the hottest fifth
#
# A map that looks right may still be wrong about the network. Remove the fifth of the pixels with the highest heat: if
# the map is faithful, the probability of the class falls more than if any other fifth is removed. `deletion` removes
# the pixels in equal steps (Petsiuk, Das, Saenko: RISE, BMVC 2018, arXiv:1806.07421), so of five steps the first
# removes the hottest fifth. `keep_top_fraction` does the reverse: it keeps only the hottest fifth. Removed pixels get
# the mean colour of the training photos.
#
# Compare the result with maps that contain no information about the network: random values, and a spot in the middle of
# the photo, where most objects are.

# %%
from dataclasses import replace

import torch

from vizlib.metrics import centred_gaussian, deletion, keep_top_fraction

rows, columns = why.heat.shape
noise = torch.rand(rows, columns, generator=torch.Generator().manual_seed(0))
candidates = {
    "grad-cam": why,
    "attention-relevance": maps["attention-relevance"],
    "eigen-cam": maps["eigen-cam"],
    "a spot in the middle": replace(why, heat=centred_gaussian((rows, columns))),
    "random values": replace(why, heat=noise),
}
print("probability of cheetah          whole photo   fifth hidden   fifth kept")
for name, candidate in candidates.items():
    whole, kept = keep_top_fraction(model, candidate, fraction=0.2)
    hidden = deletion(model, candidate, steps=5).score[1]
    print(f"{name:<30} {whole:12.1%} {hidden:14.1%} {kept:12.1%}")

# %% [markdown]
# Without the hottest fifth of `grad-cam` the probability of *cheetah* is nearly zero, and without a random fifth it is
# about 40 %. So the network depends on the pixels that the map marks. This does not prove that the map is complete, nor
# that the network would treat another photo alike. Photos with removed pixels are also unlike the training photos
# (Hooker et al., NeurIPS 2019, arXiv:1806.10758). More in
# [What a heat map cannot tell](../explanations/limits-of-heat-maps.md).
#
# ## The attention of a patch
#
# A vision transformer computes, in every layer and head, how much each patch attends to each other patch. Method
# `raw-attention` shows the weights of one patch, which `query` names by row and column. `find_cell` returns the patch
# at a pixel of the photo, here on the head of the cheetah. `run` is one forward pass that keeps the attention weights,
# so the four maps need no further pass.

# %%
run = model.run(photo, attention=True)
head_of_the_cheetah = why.geometry.find_cell(y=160, x=365, grid=(14, 14))
print("row and column of the patch:", head_of_the_cheetah)
vizlib.AttributionDict(
    {
        layer: vizlib.explain(model, photo, "raw-attention", run=run, layer=layer, query=head_of_the_cheetah)
        for layer in ("blocks.2.attn", "blocks.5.attn", "blocks.8.attn", "blocks.11.attn")
    }
)

# %% [markdown]
# In the early layers the patch attends to its neighbours, later to other parts of the animal. In the last layer, it
# attends to a few patches of the background. Such patches occur in many vision transformers: the network stores
# information about the whole image in them (Darcet et al.: Vision Transformers Need Registers, ICLR 2024,
# arXiv:2309.16588). Attention weights show where information is read, and not whether it is evidence for a class.
#
# `head` selects one head instead of the mean over all: `head=2`. The attention from the class token, which the
# classifier reads, is the default of `query`.
#
# ## Save the result
#
# `save` writes the overlay (`.png`), the overlay with a colour bar (`.svg`), or the raw values (`.npz`, `.json`).
# `report` writes one HTML page for one or more maps: photo, maps, raw values, notes, versions, a hash of the weights,
# and the code that computes the maps again. The page needs no network connection.

# %%
import tempfile
from pathlib import Path

import numpy as np

folder = tempfile.TemporaryDirectory()
why.save(Path(folder.name) / "why.png")
why.save(Path(folder.name) / "why.npz")
vizlib.report([why, maps["attention-relevance"]], Path(folder.name) / "why.html", model=model)
for path in sorted(Path(folder.name).iterdir()):
    print(f"{path.name:<10} {path.stat().st_size / 1000:6.0f} kB")

# %% [markdown]
# An `.npz` file holds the raw map (`heat`), the map at every pixel of the photo (`on_photo`, NaN where the photo was
# cropped away), and everything else as JSON (`about`).

# %%
with np.load(Path(folder.name) / "why.npz") as values:
    print({name: values[name].shape for name in ("heat", "on_photo")})
    print(str(values["about"])[:150], "...")
folder.cleanup()

# %% [markdown]
# ## Where to go next
#
# * [Your own model](your-own-model.py): the same for an `nn.Module` that you wrote.
# * [A folder of photos](a-folder-of-photos.py): the same for many photos.
# * [The page and a Space](the-page-and-a-space.py): the same in the browser.
# * [The methods](../reference/methods.md), with their formulas, parameters and papers.
# * [Why the logit and not the probability is explained](../explanations/logit-or-softmax.md).
