"""Data sets: one file each, prepared as Arrow files, loaded as one tensor."""
