"""The attribution methods: one file a kind, one row a method, all read from `registry`."""
