"""An embeddable session engine for coding agents, on Trio."""

__version__ = "0.1.0"
