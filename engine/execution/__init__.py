"""Processes: the only room that starts any. Supervisor, commands, background terminals, shells, environments.

`supervisor` starts processes (`process`), `oneshot` runs one to its end, `terminals` keeps those that run on. Behind
them stand `_link` (the host's end), `_supervisor_main` and `_process_tree` (what the supervisor runs). `environment`,
`shells` and `git_info` start none.
"""
