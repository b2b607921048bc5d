"""Host names in network rules: one spelling for each host (tools.md 5.4). Pure."""

from __future__ import annotations

import re

__all__ = ["normalize_host"]

_BRACKETED = re.compile(r"\[(?P<host>[^\]]*)\](?P<suffix>.*)", re.DOTALL)


def normalize_host(text: str) -> str:
    """Lower case, without port, brackets and trailing dots. Raises `ValueError` for what is no single host."""
    host = text.strip()
    if re.search(r"\s", host):
        raise ValueError("a host has no blanks in it")
    if re.search(r"[/?#]", host):
        raise ValueError("give only the name or the address, without a scheme or a path")
    if "*" in host:
        raise ValueError("name one host; wildcards are not allowed")
    if host.startswith("["):
        bracketed = _BRACKETED.fullmatch(host)
        if bracketed is None:
            raise ValueError("the bracket around the address is not closed")
        if not re.fullmatch(r"(:[0-9]+)?", bracketed["suffix"]):
            raise ValueError("only a port may follow the address in brackets")
        host = bracketed["host"]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    host = host.rstrip(".").lower()
    if not host:
        raise ValueError("the host is empty")
    return host
