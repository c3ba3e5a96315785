"""Architecture rules that no linter checks, read from the source code: hooks, loading of weights, names, docstrings."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import vizlib
from vizlib.attribution.methods.registry import METHODS

ROOT = Path(__file__).resolve().parents[2]

PUBLIC = {
    *("Agreement", "Attribution", "AttributionDict", "Contributions", "EffectiveReceptiveField"),
    *("ExplanationStep", "Geometry", "Gradient", "Kernels", "Layer", "Model", "ModelEntry", "Note", "Prediction"),
    *("Preprocessing", "ReceptiveField", "Run"),
    *("VizlibError", "ImageError", "MethodError", "ModelError", "TargetError"),
    *("load", "wrap", "list_models", "list_methods", "open_image", "training_history"),
    *("explain", "explain_all", "explain_each", "explain_stream", "run_for_all", "estimate", "report"),
    *("contributions", "ablate", "gradient", "receptive_field", "effective_receptive_field", "kernels", "agreement"),
    *("load_clip", "wrap_clip", "ClipModel", "PhotoMatch", "explain_words", "WordRelevance"),
    *("trust", "Trust", "Measurement", "PerturbationCurve", "benchmark", "Benchmark"),
}
METHOD_NAMES = {
    *("saliency", "input-x-gradient", "guided-backprop", "smoothgrad", "integrated-gradients", "guided-grad-cam"),
    *("grad-cam", "grad-cam++", "hires-cam", "layer-cam", "xgrad-cam", "eigen-cam", "score-cam", "ablation-cam"),
    *("eigen-grad-cam", "normgrad", "patch-similarity"),
    *("occlusion", "rise", "raw-attention", "attention-rollout", "attention-relevance", "legrad"),
}

HOOKING = {
    f"vizlib/capture/{module}.py"
    for module in (
        *("attention_capture", "final_operation", "flop_counter", "hook_comparison", "intervene"),
        *("module_watch", "recorder"),
    )
}

FILES = sorted(
    path.relative_to(ROOT).as_posix() for package in ("vizlib", "dashboard") for path in (ROOT / package).rglob("*.py")
)


# Names that every module of a kind defines, so that one package holds them several times with one meaning.
CONVENTIONS = {
    "dashboard": {"main"},  # what `python -m` runs
    "dashboard.tabs": {"TITLE", "build_tab", "compute_content"},
    "vizlib.attribution.methods": {"METHODS"},  # the methods of one kind, and the table of all
    "vizlib.metrics": {"METRICS"},  # the same of metrics
}


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"), file)


@cache
def calls(file: str) -> tuple[tuple[str, ast.Call], ...]:
    """Return every call in a file, with the dotted name of the called function."""
    nodes = ast.walk(tree(file))
    return tuple((ast.unparse(node.func), node) for node in nodes if isinstance(node, ast.Call))


def module_file(name: str) -> str:
    path = name.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


def loads_only_weights(call: ast.Call) -> bool:
    return any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords)


def test_only_capture_registers_hooks():
    hooking = {file for file in FILES if any(re.search(r"\.register_\w*hook$", name) for name, _ in calls(file))}
    assert hooking == HOOKING


def test_only_checkpoint_files_loads_weights_and_nothing_is_unpickled():
    for file in FILES:
        for name, call in calls(file):
            last = name.rsplit(".", 1)[-1]
            if name in ("torch.load", "torch.jit.load") or last in ("safetensors.torch.load_file", "load_file"):
                assert file == "vizlib/models/loading/checkpoint_files.py", f"{file} calls {name}"
            if name == "torch.load" or last in ("get_state_dict", "load_state_dict_from_url"):
                assert loads_only_weights(call), f"{file} calls {name} without weights_only=True"
            assert name not in ("torch.hub.load", "torch.jit.load", "np.load", "numpy.load", "eval", "exec"), file


def public_definitions(file: str) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield the public functions and classes of a file, and the public methods of those classes."""
    for node in tree(file).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if any(ast.unparse(mark) == "overload" for mark in node.decorator_list):
            continue  # the implementation is documented
        for part in (node, *(node.body if isinstance(node, ast.ClassDef) else ())):
            if isinstance(part, (ast.FunctionDef, ast.ClassDef)) and not part.name.startswith("_"):
                yield part


def test_public_definitions_have_docstrings():
    undocumented = [file for file in FILES if tree(file).body and not ast.get_docstring(tree(file))]
    for file in FILES:
        for part in public_definitions(file):
            summary = (ast.get_docstring(part) or "").split("\n\n")[0].rstrip()
            if not summary.endswith((".", "?", ":", '"')):  # no docstring, or one without a first sentence
                undocumented.append(f"{file}: {part.name}")
    assert not undocumented


def test_public_names_are_the_expected_ones():
    assert set(vizlib.__all__) == PUBLIC
    assert list(vizlib.__all__) == sorted(vizlib.__all__)
    for name in vizlib.__all__:
        assert getattr(vizlib, name).__doc__
    assert all(issubclass(getattr(vizlib, name), vizlib.VizlibError) for name in PUBLIC if name.endswith("Error"))
    assert issubclass(vizlib.VizlibError, ValueError)


def test_no_public_name_is_a_submodule():
    submodules = {path.stem for path in (ROOT / "vizlib").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not submodules & set(vizlib.__all__)


def defined_names(file: str) -> set[str]:
    """Return the functions, classes and constants that a file defines at top level."""
    names = set()
    for node in tree(file).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
    return names - {"__all__"}


def test_a_name_is_defined_once_per_package():
    modules: dict[tuple[str, str], list[str]] = {}
    for file in FILES:
        package = Path(file).parent.as_posix().replace("/", ".")
        for name in defined_names(file) - CONVENTIONS.get(package, set()):
            modules.setdefault((package, name), []).append(Path(file).stem)
    assert not {name: stems for name, stems in modules.items() if len(stems) > 1}


def test_modules_are_imported_under_their_own_names():
    aliases = [
        f"{file}: {alias.name} as {alias.asname}"
        for file in FILES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.asname not in (None, alias.name) and module_file(f"{node.module}.{alias.name}") in FILES
    ]
    assert not aliases


def test_method_names_are_the_expected_ones():
    assert set(METHODS) == METHOD_NAMES


def test_methods_have_papers_and_descriptions():
    for name, method in METHODS.items():
        assert name == method.name
        assert re.search(r"\b(19|20)\d\d$", method.paper), f"{name}: authors: title, venue, year"
        for text in (method.shows, method.does_not_show):
            assert text.endswith("."), name
            assert len(text.split()) > 5, name
        assert all(parameter.help for parameter in method.parameters.values()), name


def test_import_loads_no_heavy_dependencies():
    """In one process: first `vizlib`, then its command line, which may import the dashboard's command."""
    heavy = ["gradio", "matplotlib", "jinja2", "captum", "pytorch_grad_cam"]
    code = f"""
import sys
import vizlib
print([name for name in {[*heavy, "dashboard"]} if name in sys.modules])
import vizlib.cli
print([name for name in {heavy} if name in sys.modules])"""
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert output.stdout.split() == ["[]", "[]"]
