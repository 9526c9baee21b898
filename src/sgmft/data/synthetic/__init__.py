"""A seeded set of synthetic posts, for trying the package and testing it; never a benchmark."""
