"""Watch forward passes of a network without touching it: the only room that hooks.

Nothing is written to the network: no `.grad`, no flag, no mode; every hook leaves with the block that set it.
"""

from vizlib.capture.altering import alter, substitute
from vizlib.capture.flops import count_flops
from vizlib.capture.recording import Recording, gradients
from vizlib.capture.watching import watch

__all__ = ["Recording", "alter", "count_flops", "gradients", "substitute", "watch"]
