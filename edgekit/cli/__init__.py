"""The command line. Importing this loads nothing; `main` is the entry point."""
