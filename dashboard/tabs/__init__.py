"""One file a tab: its title, plain functions that make what it shows, and a thin `build(shared)`."""
