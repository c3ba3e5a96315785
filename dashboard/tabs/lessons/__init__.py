"""The steps of the Learn tab: each computes pictures and facts from the selected model and photo."""
