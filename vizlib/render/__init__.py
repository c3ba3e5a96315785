"""From raw values to pictures and HTML: the only package that rescales or colours."""
