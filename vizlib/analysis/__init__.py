"""Analysis of networks: contributions, ablation, effective receptive fields, kernels, adversarial examples."""
