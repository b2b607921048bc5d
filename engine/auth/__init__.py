"""Who the engine is at model servers: logins, where they are stored, how they are refreshed (config.md 7 and 15)."""
