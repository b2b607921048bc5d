"""Which commands may run: what scripts consist of, which commands are safe or dangerous, and the rules of users.

Text in, verdict out (tools.md 4.1, 4.4, 5). Two modules touch the disk: `loading` reads rules files, `amendments` adds
to one; both block and belong in a worker thread. Starlark and the grammar of bash are loaded on first use.
"""
