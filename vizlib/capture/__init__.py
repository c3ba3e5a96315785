"""Watch forward passes of a network without touching it: the only room that hooks.

Nothing is written to the network: no `.grad`, no flag, no mode; every hook leaves with the block that set it.
"""

from vizlib.capture.flop_counter import count_flops
from vizlib.capture.intervene import alter, substitute
from vizlib.capture.recorder import watch
from vizlib.capture.recording import Recording, gradients

__all__ = ["Recording", "alter", "count_flops", "gradients", "substitute", "watch"]
