"""Jobs cut into pieces, done in this process or on a Ray cluster."""
