"""Commands of the command line, one module a group; everything heavy is imported by the command that needs it."""
