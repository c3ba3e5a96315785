# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A folder of photos
#
# At the end you have one heat map and one line of JSON for each photo in a folder, although one file of it is damaged,
# from Python and from the command line. The memory that this takes does not depend on how many photos there are.
#
# ## A folder with a damaged file
#
# The folder holds four photos that come with gradio and matplotlib. A fifth file is cut off after 5,000 bytes, as after
# an incomplete download.

# %%
import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import gradio.media
import numpy as np
from matplotlib.cbook import get_sample_data

import vizlib

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
photos = folder / "photos"
photos.mkdir()
for name in ("cheetah.jpg", "lion.jpg", "tower.jpg"):
    shutil.copy(gradio.media.get_image(name), photos / name)
shutil.copy(get_sample_data("grace_hopper.jpg", asfileobj=False), photos)
(photos / "damaged.jpg").write_bytes((photos / "tower.jpg").read_bytes()[:5000])

paths = sorted(photos.iterdir())
print([path.name for path in paths])
model = vizlib.load("vit_tiny-imagenet")

# %% [markdown]
# ## One attribution after another
#
# `explain_each` takes any iterable of photos and yields their attributions in the same order. It takes the arguments of
# `explain`: a method, a target for all photos or a list with one for each, and the parameters of the method. Without a
# target, the most probable class of each photo is explained.
#
# A photo that cannot be used raises an `ImageError`, after the attributions of the photos before it.

# %%
try:
    for why in vizlib.explain_each(model, paths, "grad-cam"):
        print(f"{why.probability:6.1%}  {why.label}")
except vizlib.ImageError as error:
    print("ImageError:", error)

# %% [markdown]
# ## Leave out what cannot be opened
#
# To go on after a damaged file, open the photos yourself in a generator, and leave out those that `open_image` refuses.
# `explain_each` takes a photo from the generator when its turn comes, so the photos are not all in memory.

# %%
opened, refused = [], {}


def open_usable(paths):
    """Yield the photos that can be opened, and write down which those are."""
    for path in paths:
        try:
            photo = vizlib.open_image(path)
        except vizlib.ImageError as error:
            refused[path.name] = str(error)
            continue
        opened.append(path)
        yield photo


maps = folder / "maps"
maps.mkdir()
with (folder / "results.jsonl").open("w", encoding="utf-8") as results:
    for number, why in enumerate(vizlib.explain_each(model, open_usable(paths), "grad-cam")):
        path = opened[number]
        file = why.save(maps / f"{path.stem}.png")
        results.write(json.dumps({"path": path.name, "file": file.name, **why.to_dict()}) + "\n")

print(len(opened), "photos are explained")
print("refused:", refused)

# %%
why  # the last one

# %% [markdown]
# ## Lines of JSON
#
# `to_dict` returns everything about an attribution but the map itself: model, method, parameters, class, probability,
# notes. One JSON object a line is a format that can be written and read one result at a time. pandas reads it with
# `pandas.read_json("results.jsonl", lines=True)`.

# %%
with (folder / "results.jsonl").open(encoding="utf-8") as results:
    for row in map(json.loads, results):
        print(f"{row['path']:<18} {row['probability']:6.1%}  {row['label'].split(',')[0]}")
print(json.dumps(row, indent=1))

# %% [markdown]
# The notes are part of the result. For example, they say which predictions are uncertain.

# %%
with (folder / "results.jsonl").open(encoding="utf-8") as results:
    for row in map(json.loads, results):
        print(row["path"], *row["notes"], sep="\n  * ")

# %% [markdown]
# ## Memory
#
# `explain_each` computes up to 16 small photos in one pass, or fewer if they have more than 24 megapixels together.
# Only these photos are in memory. The generator below counts how many of 100 photos are open when the first attribution
# arrives.


# %%
def make_photos(count):
    """Yield random photos, and count them."""
    random = np.random.default_rng(0)
    for number in range(count):
        opened.append(number)
        yield random.integers(0, 256, (64, 64, 3), dtype=np.uint8)


opened.clear()
stream = vizlib.explain_each(model, make_photos(100), "grad-cam", target="cheetah")
next(stream)
print("photos opened before the first attribution:", len(opened))
assert len(opened) <= 16
stream.close()

# %% [markdown]
# An attribution holds its photo. Save it or take from it what you need, and let it go: a list of all attributions holds
# all photos. `explain(model, [photo, photo])` with a list returns a list, so it is meant for a few photos.
#
# Methods of many passes, such as `rise` and `occlusion`, choose the size of their batches from a budget:
# `budget_mb=256` limits them to 256 MB.
#
# ## On the command line
#
# `vizlib explain` takes files, folders with all in them, patterns in quotation marks such as `'photos/**/*.jpg'`, and
# `-` for a list on standard input. A file that cannot be used is reported on a line of its own, and the others are
# explained.
#
# In a notebook, `!vizlib explain photos --out maps` runs the command. The function below does the same in any script,
# and prints the exit code: 0 if all photos are explained, 1 if some cannot be used, 2 if there is no result.

# %%
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])


def run(command):
    """Run a command in the folder, print what it reports, and return what it prints."""
    print("$", command)
    done = subprocess.run(command.split(), cwd=folder, text=True, capture_output=True)
    print(done.stderr + f"exit code {done.returncode}")
    return done.stdout


lines = run("vizlib explain photos --as npz --out arrays --jsonl").splitlines()

# %% [markdown]
# With `--jsonl`, the results are printed as one JSON object a line, each as soon as it is there; `--json` prints one
# list. The reports about files that cannot be used are printed to standard error, so they do not mix with the results.
# In a shell, `vizlib explain photos --jsonl > results.jsonl` writes the results to a file.

# %%
for row in map(json.loads, lines):
    with np.load(folder / row["file"]) as values:
        print(f"{row['file']:<36} {row['probability']:6.1%}  {values['heat'].shape} {values['on_photo'].shape}")

# %% [markdown]
# An `.npz` file holds the raw values (`heat`), the heat at every pixel of the photo (`on_photo`), and everything else
# as JSON (`about`). Other formats are `png` (the default), `svg` and `json`. `--report all.html` writes all results as
# one page.
#
# `predict` lists classes without heat maps:

# %%
print(run("vizlib predict photos --top 2"))

# %%
temporary.cleanup()

# %% [markdown]
# ## Where to go next
#
# * [The command line](../how-to/command-line.md): patterns, lists, reports and JSON, by task.
# * [All commands and options](../reference/command-line.md).
# * [The page and a Space](the-page-and-a-space.py): results from a running page, from any program.
