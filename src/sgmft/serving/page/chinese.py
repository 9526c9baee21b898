"""The page in simplified Chinese."""

from __future__ import annotations

from sgmft.evaluation.explain.explanation import Explanation, PartAttribution
from sgmft.evaluation.explain.page import dissenting_parts, largest_effects, main_parts, main_words
from sgmft.serving.page.chinese_reasons import reason
from sgmft.serving.page.wording import Wording


def part_name(name: str) -> str:
    """ "picture 2" -> "图片 2"."""
    kind, _, number = name.partition(" ")
    known = {"nothing": "空白帖子", "all": "这条帖子", "text": "文字", "picture": "图片"}
    return f"{known.get(kind, kind)} {number}".strip()


def percent(share: float) -> str:
    """0.874 -> "87%"."""
    if 0 < share < 0.005:
        return "不到 1%"
    return "超过 99%" if 0.995 <= share < 1 else f"{100 * share:.0f}%"


def summary(found: Explanation) -> str:
    """For instance "Restaurant，87%：主要因为“火锅”“好吃”这些词。" """
    told = f"{found.label}，{percent(found.probability)}：{_because(found)}"
    if others := dissenting_parts(found):
        said = [f"单看{part_name(part.name)}会判断为 {part.alone}" for part in others]
        told += "；" + "，".join(said)
    return told + "。"


def strongest(found: Explanation) -> str:
    """How far single words and regions move the probability."""
    names = {"words": "词", "regions": "区域"}
    told = [f"影响最大的{names[what]}为 {x:.1f}" for what, x in largest_effects(found).items()]
    return f"对概率的影响（百分点）：{'，'.join(told)}。"


def _because(found: Explanation) -> str:
    main = main_parts(found)
    if not main:
        return "帖子里没有支持它的内容"
    alone = len(main) == 1 and len(found.parts) > 1
    return f"{'主要' if alone else ''}因为{'、'.join(_named(found, part) for part in main)}"


def _named(found: Explanation, part: PartAttribution) -> str:
    if part.name != "text":
        return part_name(part.name)
    best = main_words(found)
    return "".join(f"“{word}”" for word in best) + "这些词" * (len(best) > 1) or "整段文字"


CHINESE = Wording(
    code="zh-CN",
    title="这条帖子是在哪里发的？",
    lead="文字和图片里，常常藏着作者身处何地。给出一条帖子，模型会判断地点类型，并说明依据。"
    "您提供的内容不会离开这台服务器。",
    other="English",
    other_code="en",
    needs_script="本页面需要启用 JavaScript。",
    post_tab="单条帖子",
    text="帖子文字",
    text_hint="原样粘贴作者写的内容",
    files="图片或短视频",
    coverage="没有把握时回答“无法判断”",
    coverage_hint="模型会列出所有可能的标签，正确标签在其中的帖子达到这个比例；"
    "只剩一个标签时才给出结论。",
    off="关闭",
    ask="判断地点",
    examples="或者试试这些例子",
    example_names=("中文文字加图片", "英文文字加两张图片", "只有文字", "只有图片"),
    empty="结果会显示在这里。",
    cannot_tell="无法判断",
    most_probable="最有可能的是 {label}，{percent}。",
    label_set="覆盖率 {coverage} 下的可能标签：{labels}",
    none="无",
    reasons={
        "several labels are possible": "有多个标签都可能。",
        "no label is probable enough": "没有哪个标签足够可信。",
        "seems to be of none of the labels": "它似乎不属于任何一个标签。",
    },
    below="没有标签的概率达到 {percent}。",
    reason=reason,
    reading="正在分析原因……",
    no_explanation="这个模型导出时不带解释功能，因此只给出结论。",
    too_long_to_explain="分析这条帖子的原因耗时过长，减少图片后可以再试。",
    your_post="模型眼中的帖子",
    no_text="没有文字。",
    no_picture="没有图片。",
    probabilities="各标签的概率",
    more_labels="另有 {count} 个概率更低的标签",
    contributions="各部分对 {label} 的贡献",
    speaks_for="支持",
    speaks_against="反对",
    shades="颜色越深，影响越大。数字为百分点。",
    part=part_name,
    frame="第 {number} 帧",
    picture_alt="帖子的图片 {number}",
    heat_alt="同一张图片，按各区域的影响着色",
    alone="单看{part}：{label}",
    how="如何看懂这些结果",
    how_told="各部分的贡献是沙普利值：文字和图片按所有可能的先后顺序加入时，每一部分带来的平均增益。"
    "词和区域的数值，是去掉它之后概率的下降；如果几个词说的是同一件事，去掉其中一个影响不大。"
    "这些只说明模型依据了什么，不代表事实，也不能证明谁到过哪里。",
    percent=percent,
    summary_start="{label}，{percent}：",
    summary=summary,
    strongest=strongest,
    table_tab="整张表格",
    table="帖子表格",
    table_hint="CSV、TSV、JSON Lines 或 Parquet；文字列名为 text，图片路径列名为 image 或 images",
    pictures="图片压缩包（zip）",
    pictures_hint="包内路径与表格中的一致",
    label_table="为表格加标签",
    stop="停止",
    stopped="已停止，没有保留任何结果。",
    download="下载加好标签的表格",
    unpacking="正在解压图片",
    predicting="正在读取帖子",
    unit="条",
    done="{posts} 条帖子中，{labelled} 条有了标签。",
    withheld="{count} 条无法判断，没有给出标签",
    unusable="{count} 条无法使用",
    preview="前 {count} 行",
    table_empty="统计和前几行会显示在这里。",
    failed="没有成功",
    nothing_given="请先输入文字或添加图片。",
    no_table="请先选择一张表格。",
    gone="文件已经不在了：上传的文件会在一小时后删除，请重新添加。",
    too_large="文件共 {size:.1f} MB，最多只能读取 {most:.0f} MB，请减少文件或换成小一些的。",
    text_too_long="文字有 {count:,} 个字符，最多 {most:,} 个。",
    too_many_pictures="共有 {count} 张图片，最多 {most} 张。",
    problems={
        "busy": "服务器正忙，请稍后再试。",
        "worker-stopped": "模型需要重新启动，请稍后再试。",
        "takes-too-long": "处理时间过长，请减少图片或换一段短一些的视频。",
        "internal": "服务器出错了，日志中有记录。",
        "too-many-pixels": "图片像素过多，请换一张小一些的：{detail}",
        "unusable-post": "这条帖子无法使用：{detail}",
        "": "无法处理：{detail}",
    },
    zips={
        "damaged": "压缩包已损坏，或者不是 zip 文件。",
        "encrypted": "压缩包有密码，请去掉密码后重新打包（{name}）。",
        "outside": "压缩包里有文件会解压到文件夹之外：{name}。",
        "link": "压缩包里有链接而不是文件：{name}。",
        "too-many": "压缩包里的文件太多。",
        "too-large": "压缩包解压后过大，请减少图片或换成小一些的。",
    },
)
