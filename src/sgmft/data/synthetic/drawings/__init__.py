"""The drawings: a board to draw on, props, and one file per place."""
