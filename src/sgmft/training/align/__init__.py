"""An encoder adapted to a user's own pairs of text and picture, without labels."""
