"""The table of model families, with one module of rows for each library, and the layouts of their outputs."""
