"""One module a command: a frozen dataclass, whose fields are the flags, with a `run`."""
