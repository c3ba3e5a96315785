"""What the page computes: models, cached passes and results, and the executor that runs them."""
