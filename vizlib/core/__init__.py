"""Errors, photos, geometry, class labels, text formatting and atomic file writing: what every other package uses."""
