"""Twenty concurrent visitors, then more than may wait: correctness, latency and memory.

One visitor sends queries alone, one after the other, then 20 do so at once; each uploads a photo and requests its most
probable classes or an explanation. Half of the photos are new, the others are the same few again and again. Every
result is compared with that of the library in this process; a wrong one that is correct for a query of another visitor
counts as mixed up.

The limit on latency: "alone" is the mean time of one visitor who is alone. Among 20, each gets a 20th of the throughput
of the server, so at the same throughput each would wait 20 times as long; with `gain` times the throughput (the server
has two workers) 20 / gain times. A gain below 1 counts as 1. 95 % of the results may take at most 3 times that long:
3 × alone × 20 / gain.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import httpx
import numpy as np
from common import (
    RESNET,
    TIMEOUT_SECONDS,
    VIT,
    Query,
    Reply,
    Server,
    compute_expected,
    is_close,
    is_correct,
    print_table,
    tables,
)

VISITORS = 20
DEFAULT_SECONDS, MAX_SECONDS = 60, 300
REPEATED_PHOTOS = 6  # that are sent again and again
MAX_QUEUE = 4  # queries that may wait in the second part
QUERIES = (  # model, method, class, parameters; without a method, the most probable classes
    (RESNET, "", "", "{}"),
    (VIT, "", "", "{}"),
    (RESNET, "grad-cam", "", "{}"),
    (RESNET, "grad-cam", "church", "{}"),
    (RESNET, "saliency", "parachute", "{}"),
    (RESNET, "grad-cam", "golf ball", '{"layer": "layer3"}'),
    (RESNET, "integrated-gradients", "", '{"steps": 4}'),
    (VIT, "legrad", "", "{}"),
    (VIT, "attention-rollout", "", "{}"),
    (VIT, "attention-relevance", "church", "{}"),
    (VIT, "input-x-gradient", "parachute", "{}"),
)
Result = tuple[Query, Reply, float]  # with its latency in seconds


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=int, default=DEFAULT_SECONDS, help=f"duration with 20 visitors; at most {MAX_SECONDS}"
    )
    parser.add_argument("--workers", type=int, default=2, help="of the server")
    parser.add_argument(
        "--quick", action="store_true", help="10 seconds, to check that the script runs; measures nothing"
    )
    options = parser.parse_args()
    seconds = 10 if options.quick else max(1, min(options.seconds, MAX_SECONDS))
    with tempfile.TemporaryDirectory() as folder:
        passed = [
            _measure_visitors(Path(folder) / "a", seconds, options),
            _measure_full_queue(Path(folder) / "b", options),
        ]
    if not all(passed):
        raise SystemExit(1)


def _measure_visitors(folder: Path, seconds: float, options) -> bool:
    """Print the table of 20 visitors, and return whether all goals are met."""
    with Server(folder, f"--workers={options.workers}") as server:
        for model in (RESNET, VIT):
            server.send(Query(0, model, "grad-cam"))  # loads the model
        alone_seconds, alone = _visit(server, 1, max(seconds / 3, 5))
        _visit(server, VISITORS, seconds / 3)  # allocates the memory of concurrent passes, which is reused later
        before, cached = server.resident_bytes(), _count_cached_bytes(server.metrics())
        concurrent_seconds, concurrent = _visit(server, VISITORS, seconds)
        after, metrics = server.resident_bytes(), server.metrics()
    wrong = mixed = errors = 0
    queries = {query for query, *_ in (*alone, *concurrent)}
    for query, reply, _ in (*alone, *concurrent):
        if reply.event != "complete":
            errors += 1
        elif not is_correct(reply, query):
            others = (compute_expected(other) for other in queries if other != query)
            swapped = any(is_close(reply.values(), other) for other in others)
            mixed, wrong = mixed + swapped, wrong + (not swapped)
    alone_times, concurrent_times = (np.array([time for _, _, time in results]) for results in (alone, concurrent))
    gain = (len(concurrent) / concurrent_seconds) / (len(alone) / alone_seconds)
    limit = 3 * alone_times.mean() * VISITORS / max(gain, 1)
    p95, growth = float(np.percentile(concurrent_times, 95)), after - before
    budget = metrics["vizlib_cache_budget_bytes"] + metrics["vizlib_pass_cache_budget_bytes"]
    goals = [
        ("wrong results", wrong, *tables.check_at_most(wrong, 0)),
        ("results mixed up between visitors", mixed, *tables.check_at_most(mixed, 0)),
        ("errors", errors, *tables.check_at_most(errors, 0)),
        (
            f"95th percentile of the latency, {VISITORS} visitors, s",
            f"{p95:.2f}",
            *tables.check_at_most(p95, float(f"{limit:.3g}")),
        ),
        ("growth of memory, MB", f"{growth / 1e6:.0f}", *tables.check_at_most(growth / 1e6, budget / 1e6)),
    ]
    figures = [
        ("one visitor alone: results", len(alone), "", ""),
        ("latency: mean, median, 95th percentile, s", _format_times(alone_times), "", ""),
        (f"{VISITORS} visitors: results", len(concurrent), "", ""),
        ("latency: mean, median, 95th percentile, s", _format_times(concurrent_times), "", ""),
        ("throughput, 20 visitors ÷ one (gain)", f"{gain:.2f}", "", ""),
        ("memory of the server before and after, MB", f"{before / 1e6:.0f}, {after / 1e6:.0f}", "", ""),
        ("of which cached results and passes, MB", f"{(_count_cached_bytes(metrics) - cached) / 1e6:+.0f}", "", ""),
    ]
    hits, misses = metrics["vizlib_cache_hits_total"], metrics["vizlib_cache_misses_total"]
    note = f"{options.workers} workers, {concurrent_seconds:.0f} s; cache hit rate {hits / (hits + misses):.0%}."
    print_table(("20 concurrent visitors", "result", "goal", "met"), [*goals, *figures], note, quick=options.quick)
    return all(row[-1] == "yes" for row in goals if options.quick is False or "95th" not in row[0])


def _count_cached_bytes(metrics: dict[str, float]) -> float:
    """Return the bytes of cached results and passes."""
    return metrics["vizlib_cache_bytes"] + metrics["vizlib_pass_cache_bytes"]


def _visit(server: Server, visitors: int, seconds: float) -> tuple[float, list[Result]]:
    """Let visitors send one query after the other; return the time until the last response, and all results."""
    results: list[Result] = []
    until = time.perf_counter() + seconds

    def visit(number: int) -> None:
        random = Random(f"{visitors} {number} {seconds}")
        with httpx.Client() as http:
            while time.perf_counter() < until:
                is_new = random.random() < 0.5
                photo = random.randrange(10**9) if is_new else random.randrange(REPEATED_PHOTOS)
                results.append(_send_timed(server, Query(photo, *random.choice(QUERIES)), http))

    started = time.perf_counter()
    _run_threads(visitors, visit)
    return time.perf_counter() - started, results


def _measure_full_queue(folder: Path, options) -> bool:
    """Print the table of 20 simultaneous queries where one is computed and four may wait; return whether it passed."""
    with Server(folder, f"--max-queue={MAX_QUEUE}", "--workers=1") as server:
        server.send(Query(0, RESNET, "grad-cam"))  # loads the model
        results: list[Result] = []
        start = threading.Barrier(VISITORS)

        def visit(number: int) -> None:
            query = Query(10**6 + number, RESNET, "integrated-gradients", "", '{"steps": 40}')
            with httpx.Client() as http:
                start.wait()
                results.append(_send_timed(server, query, http))

        unanswered = _run_threads(VISITORS, visit)
        afterwards = Query(2, VIT, "legrad")
        works = is_correct(server.send(afterwards), afterwards)
    correct = sum(is_correct(reply, query) for query, reply, _ in results if reply.status == 200)
    messages = [reply.message for _, reply, _ in results if reply.status == 503]
    refused = sum("full" in text or "busy" in text for text in messages)
    unexpected = VISITORS - correct - refused - unanswered
    rows = [
        ("correct results", correct, f"≥ {MAX_QUEUE + 1}", "yes" if correct > MAX_QUEUE else "**no**"),
        (f"refused with “{messages[0] if messages else ''}”", refused, *tables.check_at_least(refused, 1)),
        ("unanswered", unanswered, *tables.check_at_most(unanswered, 0)),
        ("errors and wrong results", unexpected, *tables.check_at_most(unexpected, 0)),
        ("a query afterwards gives a correct result", "yes" if works else "no", "yes", "yes" if works else "**no**"),
    ]
    note = f"The last response came after {max(time for _, _, time in results):.1f} s."
    columns = (f"20 simultaneous queries, {MAX_QUEUE} may wait", "result", "goal", "met")
    print_table(columns, rows, note, quick=options.quick)
    return all(row[-1] == "yes" for row in rows)


def _send_timed(server: Server, query: Query, http: httpx.Client) -> Result:
    started = time.perf_counter()
    return query, server.send(query, http=http), time.perf_counter() - started


def _run_threads(visitors: int, visit: Callable[[int], None]) -> int:
    """Run all visitors concurrently, and return how many got no response in time."""
    threads = [threading.Thread(target=visit, args=(number,), daemon=True) for number in range(visitors)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + MAX_SECONDS + TIMEOUT_SECONDS
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    return sum(thread.is_alive() for thread in threads)


def _format_times(seconds: np.ndarray) -> str:
    return ", ".join(f"{value:.3g}" for value in (seconds.mean(), np.median(seconds), np.percentile(seconds, 95)))


if __name__ == "__main__":
    main()
