"""Networks that read text: tokenizers."""
