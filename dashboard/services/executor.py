"""The executor of tasks that run a model, here or on the GPU that a ZeroGPU Space lends for a moment.

There a task runs in another process, a fork of this one: arguments and results are pickled, changes to objects are
lost, and of an error only its type comes back. So models are named, results lie in main memory, and errors are returned
like results. Everywhere else a task is an ordinary call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch

import vizlib
from dashboard.services.executor_tasks import STREAMS, TASKS, TASKS_READING_RUN
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.services.forward_cache import ForwardCache
from dashboard.services.metrics import RunMetrics
from dashboard.services.model_catalog import ModelCatalog
from dashboard.services.prompted_name import get_catalog_name
from vizlib import VizlibError
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES

try:
    import spaces  # pyright: ignore[reportMissingImports] - on every Space with gradio; its GPU does nothing but on ZeroGPU
except ImportError:
    spaces = None

BASE_GPU_SECONDS = 10  # for one pass and the transfers; a visitor has a few minutes of a GPU a day
GPU_SECONDS_PER_PASS = 0.02  # more for each of many passes
MAX_GPU_SECONDS = 110
TRUST_PASSES = 500  # of the measurement of trust
TRUST_PASSES_PER_METHOD = 50  # more for each of several methods, which share their reference maps
MIN_MANY_PASSES = 250  # counted for every method of many passes, as some depend on the photo


class ModelExecutor:
    """Runs tasks on the models of a catalog, on a lent GPU where there is one."""

    def __init__(self, catalog: ModelCatalog, metrics: RunMetrics, passes: ForwardCache) -> None:
        self.catalog, self.metrics, self.passes = catalog, metrics, passes
        lend = (lambda task: task) if spaces is None else spaces.GPU(duration=estimate_gpu_seconds)
        self._run_task, self._run_stream = lend(self._execute), lend(self._execute_stream)

    def run(self, task: str, model: str, *args: Any) -> Any:
        """Return the result of one of `TASKS` on a model given by name.

        Raises: VizlibError as the library does.
        """
        with self.metrics.measure_run(*self._metric_labels(task, model, args)):
            self.catalog.get(model)  # loaded here, as the other process would lose it
            return _raise_error(self._run_task(task, model, *args))

    def stream(self, task: str, model: str, *args: Any) -> Iterator[Any]:
        """Yield the steps of one of `STREAMS` on a model given by name.

        Raises: VizlibError as the library does.
        """
        with self.metrics.measure_run(*self._metric_labels(task, model, args)):
            self.catalog.get(model)
            for step in self._run_stream(task, model, *args):
                yield _raise_error(step)

    def _metric_labels(self, task: str, model: str, args: tuple) -> tuple[str, str]:
        """Return the labels of counts and logs: the method or else the task, and never a model name that was typed."""
        request = next((arg for arg in args if isinstance(arg, ExplanationRequest)), None)
        by_method = task in ("explanation", "seconds", "stream") and request is not None and request.method in METHODS
        name = get_catalog_name(str(model))
        return request.method if by_method and request else task, name if name in self.catalog.names else "other"

    def _execute(self, task: str, model: str, *args: Any) -> Any:
        """Run a task in the process that has the GPU, and return its result or its VizlibError."""
        try:
            network = _move_to_lent_gpu(self.catalog.get_loaded(model))
            if task not in TASKS_READING_RUN or _on_zero_gpu():
                return TASKS[task](network, *args)
            photo = args[0].photo if isinstance(args[0], ExplanationRequest) else args[0]
            return TASKS[task](network, *args, run=self.passes.find_or_run(network, photo))
        except VizlibError as error:
            return error

    def _execute_stream(self, task: str, model: str, *args: Any) -> Iterator[Any]:
        """Run a task of `STREAMS` in the process that has the GPU, and yield its steps or its VizlibError."""
        try:
            yield from STREAMS[task](_move_to_lent_gpu(self.catalog.get_loaded(model)), *args)
        except VizlibError as error:
            yield error


def estimate_gpu_seconds(task: str, model: str, *args: Any) -> int:
    """Return about how many seconds the executor borrows the GPU for a task, by its parameters for many passes."""
    passes = TRUST_PASSES if task == "trust" else 0
    if task == "trust_all":
        passes = TRUST_PASSES + TRUST_PASSES_PER_METHOD * len(args[0])
    if task in ("explanation", "stream"):
        request: ExplanationRequest = args[0]
        method = METHODS.get(request.method)
        if method is not None and method.cost == MANY_PASSES:
            passes = MIN_MANY_PASSES
            if method.count_passes is not None:
                defaults = {name: parameter.default for name, parameter in method.parameters.items()}
                count = method.count_passes({**defaults, **request.parameters})
                passes = max(passes, count) if isinstance(count, int) else passes  # a wrong value is refused later
    return min(round(BASE_GPU_SECONDS + GPU_SECONDS_PER_PASS * passes), MAX_GPU_SECONDS)


def _raise_error(result: Any) -> Any:
    """Return the result of an executor's task; raise it where it is an error."""
    if isinstance(result, VizlibError):
        raise result
    return result


def _on_zero_gpu() -> bool:
    """Return whether the executor's tasks run in another process, whose changes to objects are lost."""
    return bool(os.environ.get("SPACES_ZERO_GPU"))


def _move_to_lent_gpu(model: vizlib.Model) -> vizlib.Model:
    """Return the model, moved to the GPU that is lent to the executor, in the process that has it."""
    if _on_zero_gpu() and torch.cuda.is_available():
        model.module.to("cuda")
    return model
