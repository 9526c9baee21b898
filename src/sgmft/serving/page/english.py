"""The page in English."""

from __future__ import annotations

from sgmft.evaluation.explain.page import (
    describe_strongest,
    format_probability,
    summarize_explanation,
)
from sgmft.serving.page.wording import Wording


def _part(name: str) -> str:
    return {"nothing": "with nothing", "all": "this post"}.get(name, name)


ENGLISH = Wording(
    code="en",
    title="Where was this post written?",
    lead="A post’s words and pictures often tell what kind of place its author was in. "
    "Give one; the model says which, and why. Nothing you give leaves this server.",
    other="中文",
    other_code="zh",
    needs_script="This page needs JavaScript.",
    post_tab="One post",
    text="Text of the post",
    text_hint="What the author wrote, as it is",
    files="Pictures or a short video",
    coverage="Say “cannot tell” when unsure",
    coverage_hint="The model then lists every label that could be right; for this share of posts "
    "the true one is among them. It gives a label only where a single one is left.",
    off="off",
    ask="Where was it?",
    examples="Or try one of these",
    example_names=(
        "Chinese text and a picture",
        "English text and two pictures",
        "Text only",
        "A picture only",
    ),
    empty="The answer appears here.",
    cannot_tell="Cannot tell",
    most_probable="Most probable is {label}, {percent}.",
    label_set="Possible at {coverage} coverage: {labels}",
    none="no label",
    reasons={
        "several labels are possible": "Several labels are possible.",
        "no label is probable enough": "No label is probable enough.",
        "seems to be of none of the labels": "It seems to be of none of the labels.",
    },
    below="No label has a probability of {percent}.",
    reason=str,
    reading="Finding out why …",
    no_explanation="This model tells no reasons: it was exported without them.",
    too_long_to_explain="Finding out why takes too long for this post. Fewer pictures may help.",
    your_post="The post, as the model reads it",
    no_text="It has no text.",
    no_picture="It has no picture.",
    probabilities="Probabilities",
    more_labels="and {count} less probable",
    contributions="What each part brings to {label}",
    speaks_for="speaks for it",
    speaks_against="speaks against it",
    shades="The stronger the shade, the more. Numbers are percentage points.",
    part=_part,
    frame="frame {number}",
    picture_alt="Picture {number} of the post",
    heat_alt="The same picture, regions shaded by what they bring",
    alone="{part} alone: {label}",
    how="How to read this",
    how_told="Parts: Shapley values, each part’s mean gain over all orders in which text and "
    "pictures could come in. Words and regions: what the probability loses when one is taken "
    "away. Where several words say the same, none of them alone loses much. All this says what "
    "moved the model, not what is true, nor where anyone was.",
    percent=format_probability,
    summary_start="{label}, {percent}: ",
    summary=summarize_explanation,
    strongest=describe_strongest,
    table_tab="A table",
    table="Table of posts",
    table_hint="CSV, TSV, JSON lines or Parquet with a column “text”, and “image” or “images” "
    "for pictures",
    pictures="Pictures (zip)",
    pictures_hint="With the paths that the table has",
    label_table="Label the table",
    stop="Stop",
    stopped="Stopped. Nothing was kept.",
    download="Download the labelled table",
    unpacking="Unpacking the pictures",
    predicting="Reading posts",
    unit="posts",
    done="{labelled} of {posts} posts have a label.",
    withheld="{count} have none because the model cannot tell",
    unusable="{count} cannot be used",
    preview="The first {count} rows",
    table_empty="The summary and the first rows appear here.",
    failed="That did not work",
    nothing_given="Write a text or add a picture first.",
    no_table="Choose a table first.",
    gone="The file is no longer there: files are removed after an hour. Add it again.",
    too_large="The files have {size:.1f} MB together; at most {most:.0f} MB can be read. Take "
    "smaller or fewer ones.",
    text_too_long="The text has {count:,} characters; at most {most:,} can be read.",
    too_many_pictures="There are {count} pictures; at most {most} can be read.",
    problems={
        "busy": "The server is busy. Try again in a moment.",
        "worker-stopped": "The model had to be started again. Try again in a moment.",
        "takes-too-long": "The answer takes too long. Take fewer pictures, or a shorter video.",
        "internal": "The server made a mistake. Its log says where.",
        "": "{detail}",
    },
    zips={
        "damaged": "The zip is damaged, or no zip.",
        "encrypted": "The zip has a password: pack it without one ({name}).",
        "outside": "The zip has a file that would land outside its folder: {name}.",
        "link": "The zip has a link in place of a file: {name}.",
        "too-many": "The zip has too many files.",
        "too-large": "The zip is too large unpacked. Pack smaller or fewer pictures.",
    },
)
