"""Draw heat maps as images, figures and HTML: the only package that rescales or colours raw values."""
