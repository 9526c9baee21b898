"""Why a post or a table cannot be used, in simplified Chinese."""

from __future__ import annotations

import re

# The common reasons of the library, as it words them, and the page's own. Names in braces stand for
# a word or number; a few, for anything but the next of several reasons.
REASONS = {
    "nothing to go on: no text and no picture": "没有文字，也没有图片",
    "nothing to go on: no words are left after cleaning and there is no picture": "没有图片，文字"
    "去掉网址、表情等之后也没有剩下词语",
    "the text has more than {most} characters": "文字超过 {most} 个字符",
    "there are more than {most} pictures": "图片超过 {most} 张",
    "has {count} pictures; at most {most} of one post are read": "共有 {count} 张图片，"
    "一条帖子最多读取 {most} 张",
    "has files of more than {most} MiB together; give fewer or smaller copies": "文件合计超过 "
    "{most} MiB，请减少文件或换成小一些的",
    "the model cannot read it (takes too long)": "模型无法读取：处理时间过长",
    "the model cannot read it (worker stopped)": "模型无法读取：处理时程序意外停止",
    "there is no file {name}": "找不到文件 {name}",
    "{name} is empty ({size} bytes)": "{name} 是空文件",
    "{name} is cut off or damaged": "{name} 不完整或已损坏",
    "{name} needs more memory than there is, or is damaged": "{name} 所需内存过大，或者已损坏",
    "{name} is not a picture ({kinds} are read, and MP4, MOV and WebM videos)": "{name} 不是图片"
    "（可以读取 {kinds}，以及 MP4、MOV、WebM 视频）",
    "{name} has at least {count} bytes; at most {most} MiB are read": "{name} 过大，最多读取 "
    "{most} MiB",
    "{name} has frames of {width} x {height} pixels; at most {most} million are read": "{name} 的"
    "画面有 {width} x {height} 像素，最多读取 {most} 百万像素",
    "{name} has {width} x {height} pixels; at most {most} million are read": "{name} 有 "
    "{width} x {height} 像素，最多读取 {most} 百万像素",
    "{name} has too many pixels; at most {most} million are read": "{name} 像素过多，"
    "最多读取 {most} 百万像素",
    "The post: {name} has {count} pixels; at most {most}": "{name} 有 {count} 像素，最多 {most}",
    "{name} has {count} pixels; at most {most}": "{name} 有 {count} 像素，最多 {most}",
    "{name} takes more than {most} seconds to read; give a shorter or a smaller copy": "{name} "
    "读取时间超过 {most} 秒，请换一个短一些或小一些的",
    "{name} is a video without a frame, or is cut off or damaged": "{name} 是没有画面的视频，"
    "或者不完整、已损坏",
    "{name} has no video in it, only sound or data": "{name} 里没有画面，只有声音或数据",
    "{name} cannot be decoded; save the video in another format": "{name} 无法解码，"
    "请把视频另存为其他格式",
    "{name} has more than {most} frames; give a shorter copy": "{name} 超过 {most} 帧，"
    "请换一段短一些的",
    "{name} lies outside the table's folder; allow it with --allow-outside": "{name} "
    "不在表格所在的文件夹里",
    "pictures on the web are not fetched: {name} (download the picture and give its path)": "不会"
    "读取网络图片：{name}（请下载后填写文件路径）",
    "the id {name} is already that of row {row}": "编号 {name} 与第 {row} 行重复",
    "no label has a probability of {share}": "没有标签的概率达到 {share}",
    "{name} is empty: a table needs at least a header": "{name} 是空的，表格至少要有标题行",
    "{name} has neither a text nor an image column: say which of its columns holds them, as in "
    "--column text=NAME: {columns}": "{name} 里没有文字列或图片列，请把相应的列改名为 text 或 "
    "image；现有的列：{columns}",
    "{name}, line {line}, is neither UTF-8 nor GB18030: save the file as UTF-8": "{name} 第 {line} "
    "行既不是 UTF-8 也不是 GB18030 编码，请另存为 UTF-8",
}

_ANYTHING = ("name", "kinds", "columns")

_LONGEST = 500  # characters; what is longer holds more of a table than of a reason

_BLANK = re.compile(r"\{(\w+)\}")


def reason(told: str) -> str:
    """A reason in Chinese, or as it was told where it is not among `REASONS`.

    Several may be in one, separated by "; ".
    """
    if len(told) > _LONGEST:
        return told
    bare = told.removesuffix(".")
    stop = "。" * (bare != told)
    for one, chinese in _PATTERNS:
        if found := one.fullmatch(bare):
            return chinese.format(**found.groupdict()) + stop
    if "; " in bare:
        return "；".join(reason(part) for part in bare.split("; ")) + stop
    return told


def _pattern(english: str) -> re.Pattern[str]:
    parts = _BLANK.split(english)  # texts and, between them, names
    parts[::2] = map(re.escape, parts[::2])
    for i, name in enumerate(parts[1::2]):
        parts[2 * i + 1] = f"(?P<{name}>(?:{'(?!; ).' if name in _ANYTHING else '[^ ]'})+)"
    return re.compile("".join(parts), re.DOTALL)


_PATTERNS = [(_pattern(english), chinese) for english, chinese in REASONS.items()]
