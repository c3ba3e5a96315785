"""How good a map is: faithfulness to the model, and similarity of two maps."""
