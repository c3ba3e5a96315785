"""The named HTTP endpoints of the page."""
