"""The quantity of a parameter that names a file."""

File = str
"""The path of a file that is read, relative to the repository; its bytes are part of the key."""
