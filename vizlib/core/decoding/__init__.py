"""Decode photos whose values Pillow reads wrongly or not at all, and recognise files that hold no photo."""
