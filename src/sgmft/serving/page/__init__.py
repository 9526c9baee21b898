"""The page for people, in English and Chinese, beside the API on the same server."""
