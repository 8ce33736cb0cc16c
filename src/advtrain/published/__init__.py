"""What others published: their claims as data, to stand beside what was measured."""
