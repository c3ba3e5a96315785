"""What only networks that read text have: the relevance of the words of a prompt, and checks of such networks."""
