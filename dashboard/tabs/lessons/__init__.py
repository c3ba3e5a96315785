"""The steps of the Learn tab: each asks the real model about the real photo, and gives pictures and facts."""
