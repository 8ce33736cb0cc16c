"""Steps: each reads files, calls the library once, and writes files."""
