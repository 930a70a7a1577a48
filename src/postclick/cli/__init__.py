"""The command line: a skin. Each command parses, makes one library call and prints."""
