"""Errors, notes, photos, geometry, class labels, text formatting and atomic file writing, used by all packages."""
