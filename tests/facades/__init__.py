"""The engine for hosts that are not on Trio: the same scenarios three ways, and what is special about each."""
