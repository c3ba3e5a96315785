"""Quality of attribution maps: faithfulness to the model, dependence on it, stability, localisation, similarity."""

from vizlib.attribution.measurement import Measurement, Trust, TrustPart
from vizlib.metrics.benchmark_table import Benchmark, BenchmarkRow, BenchmarkSummary
from vizlib.metrics.benchmarking import benchmark
from vizlib.metrics.measuring import MeasurementStep, estimate_seconds, measure, measure_stream
from vizlib.metrics.metric import Metric
from vizlib.metrics.perturbation_curves import PerturbationCurve, deletion, insertion
from vizlib.metrics.reference_maps import centred_gaussian
from vizlib.metrics.registry import METRICS, list_metrics
from vizlib.metrics.similarity import Agreement, agreement, lift_to_common_region
from vizlib.metrics.top_fraction import keep_top_fraction
from vizlib.metrics.trust_parts import TrustAllStep, TrustStep, trust, trust_all, trust_all_stream, trust_stream

__all__ = [
    "METRICS",
    "Agreement",
    "Benchmark",
    "BenchmarkRow",
    "BenchmarkSummary",
    "Measurement",
    "MeasurementStep",
    "Metric",
    "PerturbationCurve",
    "Trust",
    "TrustAllStep",
    "TrustPart",
    "TrustStep",
    "agreement",
    "benchmark",
    "centred_gaussian",
    "deletion",
    "estimate_seconds",
    "insertion",
    "keep_top_fraction",
    "lift_to_common_region",
    "list_metrics",
    "measure",
    "measure_stream",
    "trust",
    "trust_all",
    "trust_all_stream",
    "trust_stream",
]
