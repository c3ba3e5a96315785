"""What a network is and how to hold it: `Model`, families, preprocessing, layer summary, out-of-distribution score."""
