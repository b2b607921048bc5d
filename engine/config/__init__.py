"""Configuration: layers merged to one frozen Config, with the origin of every value."""
