"""Record, alter and measure forward passes of a network through hooks; no other package registers hooks.

Nothing is written to the network (no `.grad`, no flag, no mode), and every hook is removed when its `with` block ends.
"""

from vizlib.capture.final_operation import OutputTrace, trace_output
from vizlib.capture.flop_counter import count_flops
from vizlib.capture.hook_comparison import HookArguments, compare_relu_hooks
from vizlib.capture.intervene import alter_output, substitute_output
from vizlib.capture.recorder import Recording, compute_gradients, record_pass

__all__ = [
    "HookArguments",
    "OutputTrace",
    "Recording",
    "alter_output",
    "compare_relu_hooks",
    "compute_gradients",
    "count_flops",
    "record_pass",
    "substitute_output",
    "trace_output",
]
