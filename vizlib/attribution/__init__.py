"""`explain` and everything behind it: requests, evidence, methods and the `Attribution` they return."""
