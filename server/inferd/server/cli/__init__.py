"""The command line. One module for each group of commands; each has a function `add(subparsers)`."""
