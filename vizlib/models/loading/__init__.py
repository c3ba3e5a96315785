"""From a name or a file to a `Model`: the only package that loads weights."""
