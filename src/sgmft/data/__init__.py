"""Posts, tables, preprocessing and synthetic data."""
