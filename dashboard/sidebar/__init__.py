"""The left column: photo, model and class, and the links that restore a view."""
