"""What the page is about: the selection, its transitions, and the context that every tab receives."""
