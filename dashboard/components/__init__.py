"""What gradio does not have: parts of the page with their own browser code beside them, drawn from raw values."""
