"""The version of vizlib."""

__version__ = "0.1.0"
