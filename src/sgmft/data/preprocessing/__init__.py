"""Preprocessing of texts, pictures and videos."""
