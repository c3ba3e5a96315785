# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The page and a Space
#
# At the end you have a running page that explains photos in the browser, links that open it at a certain view, and a
# program that gets the same numbers from it. You also have a folder that can be uploaded as a Hugging Face Space or run
# anywhere else.
#
# ## Start the page
#
# On the command line:
#
# ```bash
# vizlib serve
# ```
#
# The page opens at <http://127.0.0.1:7860> and offers the included networks and some pretrained ones. Uploaded photos
# do not leave the machine. `--checkpoints FOLDER` adds your weight files, and `--port 0` takes any free port. All
# options are in [The command line](../reference/command-line.md).
#
# From a script or a notebook, `dashboard.serve` shows models that `vizlib.load` or `vizlib.wrap` returned:
#
# ```python
# import dashboard
# import vizlib
#
# model = vizlib.wrap(network, preprocessing=preprocessing, labels=labels, name="mine")
# address = dashboard.serve(model)
# ```
#
# A script waits there until it is interrupted. In a notebook, `serve` returns the address, the page is shown below the
# cell, and it is served until the process of the notebook ends.
#
# ## Start and stop it within a program
#
# A program that has to stop the page again uses two functions of the package `dashboard`: `build_app` returns the page
# for a catalog of models, and `launch` starts its server. This cell offers two of the included networks on a free port.
# It neither opens a browser nor shows the page below the cell.

# %%
import tempfile
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import gradio.media
from gradio_client import Client, handle_file

import vizlib
from dashboard.app import build_app
from dashboard.server.server import launch
from dashboard.services.model_catalog import ModelCatalog
from dashboard.space import stage_space

catalog = ModelCatalog(only=["vit_tiny-imagenet", "resnet18-imagenette"])
page = build_app(catalog)
_, address, _ = launch(page, port=0, prevent_thread_lock=True, inline=False, quiet=True)
with urlopen(address) as response:
    print(response.status, response.headers["content-type"])

# %% [markdown]
# ## Links that restore the view
#
# The address of the page contains the selection. While you click, the browser writes it; *Copy link* copies it. A link
# opens the same model, class, method and tab. It never contains your own photo, so `img` names one of the example
# photos.
#
# | key | what it selects | example |
# |---|---|---|
# | `m` | the model | `vit_tiny-imagenet` |
# | `img` | an example photo | `ex:cheetah`, `ex:lion`, `ex:tower`, `ex:grace_hopper` |
# | `c` | the class | `cheetah` |
# | `vs` | the class to compare with | `leopard` |
# | `v` | the tab | `why`, `attention`, `inside`, `compare`, `learn`, `model`, `use-in-code` |
# | `w` | the method | `attention-relevance` |
# | `k` | parameters of the method | `layer:blocks.5` |
# | `l`, `h`, `p` | layer, head and patch of the Attention tab | `blocks.8.attn`, `mean`, `6,11` |
# | `u`, `o` | a unit of the Inside tab, and ablated units | `blocks.5.attn:2` |
# | `s` | the step of the lessons | `3` |
#
# A value that does not exist is replaced by the default, and the page names it. The link below is for a page that
# `vizlib serve` started.

# %%
view = {"m": "vit_tiny-imagenet", "img": "ex:cheetah", "c": "cheetah", "vs": "leopard", "v": "why", "w": "hires-cam"}
link = f"?{urlencode(view, safe=':')}"
print("http://127.0.0.1:7860/" + link)
with urlopen(address + link) as response:
    print(response.status)

# %% [markdown]
# ## Ask the page from another program
#
# The page has endpoints for programs: `/models`, `/predict`, `/explain`, `/attention`, `/channels`, `/compare`, `/trust`,
# `/gradient` and `/report`. `gradio_client` calls them. The tab *Use in code* shows such a call for the current view.

# %%
client = Client(address, verbose=False)
for entry in client.predict(api_name="/models"):
    print(f"{entry['name']:<22} {entry['megabytes']:5.1f} MB  {entry['accuracy']} %")

photo = handle_file(gradio.media.get_image("cheetah.jpg"))
for row in client.predict(photo, "vit_tiny-imagenet", 3, api_name="/predict"):
    print(f"{row['probability']:6.1%}  {row['label']}")

# %% [markdown]
# `/explain` returns the raw values with all that describes them, and the file of the overlay. Its arguments are the
# photo, the model, the method, the class (empty for the most probable one) and the parameters of the method. The
# numbers are the same as in Python.

# %%
result, picture = client.predict(
    photo, "vit_tiny-imagenet", "hires-cam", "cheetah", {"against": "leopard"}, api_name="/explain"
)
print({name: result[name] for name in ("label", "probability", "score", "notes")})

model = vizlib.load("vit_tiny-imagenet")
same = vizlib.explain(model, gradio.media.get_image("cheetah.jpg"), "hires-cam", target="cheetah", against="leopard")
difference = max(
    abs(ours - theirs)
    for our_row, their_row in zip(same.heat.tolist(), result["values"], strict=True)
    for ours, theirs in zip(our_row, their_row, strict=True)
)
print(f"largest difference to Python: {difference:.1e}, largest value: {same.heat.abs().max():.1e}")
assert difference < 1e-3 * same.heat.abs().max()

# %%
from PIL import Image

Image.open(picture)

# %% [markdown]
# Any program that sends HTTP requests can call the endpoints; *Use via API* at the bottom of the page describes them.
# With `vizlib serve --mcp` (it needs `pip install "vizlib[mcp]"`) they are also tools for language models.
#
# Close the page, which frees the port.

# %%
client.close()
page.close(verbose=False)

# %% [markdown]
# ## Make a Space
#
# A Space is a page that Hugging Face runs from a folder. On the command line, `python -m dashboard.space my-space`
# writes this folder; `stage_space` is the same function.

# %%
temporary = tempfile.TemporaryDirectory()
space = stage_space(Path(temporary.name) / "my-space")
for path in sorted(space.iterdir()):
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{path.name + '/' * path.is_dir():<18} {len(files):4} files  {size:6.2f} MB")

# %% [markdown]
# * `app.py` starts the page. Its host and port come from the environment variables that Hugging Face sets.
# * `README.md` begins with the metadata that Hugging Face reads: the version of gradio, the version of Python, and the
#   pretrained networks that are downloaded while the Space is built.
# * `requirements.txt` pins the versions that are installed here.
# * `vizlib/`, `dashboard/` and `checkpoints/` are copies of the packages and of the included networks. They are run
#   from the folder and not installed.
# * `Dockerfile` and `.dockerignore` run the same folder with Docker. `.gitattributes` lets Git store the weights with
#   LFS.

# %%
print((space / "app.py").read_text())
print((space / "README.md").read_text().split("---")[1][:800])
print((space / "requirements.txt").read_text())

# %% [markdown]
# Upload the folder with the command of the package `huggingface_hub`, after `hf auth login`:
#
# ```bash
# hf upload YOUR_NAME/vizlib my-space . --type space
# ```
#
# The folder also runs without Hugging Face:
#
# ```bash
# cd my-space && pip install -r requirements.txt && python app.py
# docker build -t vizlib my-space && docker run --rm -p 7860:7860 vizlib
# ```
#
# To stage it again after a change of the packages, call the command with the same folder: it replaces what it wrote
# before and leaves other files, such as `.git`, as they are. A folder with other content is refused.

# %%
(Path(temporary.name) / "other").mkdir()
(Path(temporary.name) / "other" / "notes.txt").write_text("mine")
try:
    stage_space(Path(temporary.name) / "other")
except vizlib.VizlibError as error:
    print(str(error).replace(temporary.name, "FOLDER"))
temporary.cleanup()

# %% [markdown]
# ## Where to go next
#
# * [Deploy the page](../how-to/deploy.md): a server for a group, with logins, limits and metrics.
# * [The page](../reference/page.md): what each tab shows.
# * [Add a tab](../how-to/add-a-tab.md) and [add a language](../how-to/add-a-language.md).
