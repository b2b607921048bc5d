"""Where threads live: the store interface, live threads with their guard, local files, memory."""
