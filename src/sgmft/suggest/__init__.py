"""Which posts are most worth labelling: choosing them, and writing them out for annotators."""
