"""Many passes through one model efficiently: batches by memory, folded copies, incremental inference on windows."""
