"""Processes: the only room that starts any. Supervisor, commands, background terminals, shells, environments.

`supervisor` starts processes (`process`), `oneshot` runs one to its end, `terminals` keeps those that run on. Behind
them stand `_link` (the host's end), `_request` (what goes over) and what the supervisor runs: `_supervisor_main`,
`_process_tree`, `_procfs` and `_sealed_devices`. `environment`, `shells` and `git_info` start none.
"""
