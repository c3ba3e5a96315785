"""Quality of attribution maps: faithfulness to the model, and similarity of two maps."""

from vizlib.metrics.faithfulness import Deletion, centred_gaussian, deletion, keep_top_fraction
from vizlib.metrics.similarity import Agreement, agreement, lift_to_common_region

__all__ = [
    "Agreement",
    "Deletion",
    "agreement",
    "centred_gaussian",
    "deletion",
    "keep_top_fraction",
    "lift_to_common_region",
]
