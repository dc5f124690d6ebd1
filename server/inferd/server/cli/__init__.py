"""The command line. One module per group of commands; each has `add(subparsers)`."""
