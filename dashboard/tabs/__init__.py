"""One module for each tab: its title, functions that compute the values of its components, and `build_tab`."""
