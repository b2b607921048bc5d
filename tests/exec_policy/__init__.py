"""Rules for commands, and what is known of commands without rules."""
