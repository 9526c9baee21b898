"""Posts, tables and preprocessing."""
