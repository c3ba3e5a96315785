"""Many passes through one model: batches sized by memory, folded copies, incremental inference on windows."""
