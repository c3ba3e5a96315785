"""Channel and head contributions, ablation, receptive fields, first-layer kernels and adversarial examples."""
