"""The names under which people have the columns of a post."""

import re
from collections.abc import Collection, Iterable

USUAL: dict[str, tuple[str, ...]] = {
    role: (role,) for role in ("text", "image", "id", "label", "user", "time")
}
USUAL["image"] += ("images", "file_name")
"""Best first; images of all that there are count together."""
_NUMBERED = re.compile(r"(images?|img|pic|picture|photo|file_name|图片?|配图|照片)[ _-]?\d{1,3}")

_ENGLISH = {
    "text": "full_text content caption message post_text body tweet sentence",
    "image": "picture pictures image_path image_paths img photo photos filename",
    "id": "post_id tweet_id weibo_id note_id mid id_str",
    "label": "category class",
    "user": "username user_name screen_name nickname author user_id",
    "time": "created_at create_time timestamp date datetime publish_time",
}
_CHINESE = {
    "text": "正文 微博正文 微博内容 微博文本 博文 内容 文本 文案 正文内容 笔记内容 "
    "帖子内容 发帖内容 贴文",
    "image": "图片 图片路径 图像 照片 配图 微博图片 图片链接 图片地址",
    "id": "微博id 编号 帖子id 贴文id 笔记id 作品id",
    "label": "标签 类别 分类 语义位置 位置标签 位置类别",
    "user": "用户 用户昵称 昵称 用户名 作者 作者昵称 博主 用户id 使用者",
    "time": "发布时间 时间 日期 创建时间 完整日期",
}
SYNONYMS = {role: [*_ENGLISH[role].split(), *_CHINESE[role].split()] for role in USUAL}
"""Counted only in a table that has none of the usual names; best first."""
NAMES = [name for role in USUAL for name in (*USUAL[role], *SYNONYMS[role])]
COMMENTS = re.compile("comment|评论|評論|repl(y|ies)|回复|回覆", re.IGNORECASE)  # in a table's name
IDS = ("id", "comment_id", "评论id", *SYNONYMS["id"])
_SIMPLIFIED = str.maketrans(
    "標籤內類圖號戶稱發時間創語義編暱筆記貼連結", "标签内类图号户称发时间创语义编昵笔记贴连结"
)


def fold_name(name: str) -> str:
    """Return a column's name without what people write in one way or another."""
    return "_".join(name.strip('\ufeff "').casefold().translate(_SIMPLIFIED).split())


def find_columns(columns: Iterable[str], names: Iterable[str]) -> list[str]:
    """List those of `columns` that have one of the names, in any case, in the order of these."""
    there = list(columns)
    folded = {fold_name(name): name for name in reversed(there)}
    found = [name if name in there else folded.get(fold_name(name)) for name in names]
    return [name for name in found if name is not None]


def find_role(columns: Iterable[str], role: str) -> list[str]:
    """List the columns that can hold a role by their usual names, or else by one synonym."""
    there = list(columns)
    found = find_columns(there, USUAL[role])
    if role == "image":  # and "image1", "image_2", "图片3"
        found += [name for name in there if _NUMBERED.fullmatch(fold_name(name))]
    return found or find_columns(there, SYNONYMS[role])[:1]


def holds_posts(columns: Collection[str]) -> bool:
    """Return whether a table of these columns has texts or pictures."""
    return bool(find_role(columns, "text") or find_role(columns, "image"))
