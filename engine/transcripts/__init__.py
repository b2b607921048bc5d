"""Threads as people read them: what was said and done, as Markdown or HTML."""
