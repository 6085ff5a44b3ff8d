"""The command line: one module per command, nothing else here parses arguments."""
