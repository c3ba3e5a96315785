"""Server options, health, metrics, request limits and temporary folders."""
