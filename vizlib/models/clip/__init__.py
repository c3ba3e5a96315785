"""Networks with an image tower and a text tower, as CLIP and SigLIP: classifiers whose classes are prompts."""
