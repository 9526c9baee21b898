"""The same jobs on tables of any size: cut into pieces, done here or on a Ray cluster."""
