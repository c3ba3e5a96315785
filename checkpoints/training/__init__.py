"""Training, distillation, evaluation and export of the bundled networks."""
