"""Models: providers, catalogue, the Responses client, the scripted model."""
