"""Tables of posts, in and out: CSV, TSV, JSON lines, Parquet, Label Studio, ImageFolder."""

from sgmft.data.tables.base import RawRow, RawTable
from sgmft.data.tables.formats import open_table
from sgmft.data.tables.posts import Columns, iter_posts, read_posts
from sgmft.data.tables.writing import open_writer

__all__ = ["Columns", "RawRow", "RawTable", "iter_posts", "open_table", "open_writer", "read_posts"]
