"""From the content of a checkpoint to a network: find its weights, detect its architecture, name what was assumed."""
