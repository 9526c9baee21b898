"""What `mkdocs build` needs beside the pages, which read as they are on GitHub, too.

Pages of the repository's root become pages of the site, notebooks become pages with their stored
outputs, and the reference part of python.md is taken from the docstrings by mkdocstrings.
"""

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PROJECT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")  # shown under project/
NOTEBOOKS = ROOT / "examples" / "notebooks"
FENCE = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s#]*\.md)")
REPOSITORY = re.compile(r"\[([^\]]+)\]\((?:README(?:\.zh)?\.md|CITATION\.cff|LICENSE)\)")


def on_config(config: Any) -> Any:
    """Put pages that the navigation does not name yet behind the others."""
    named = set(re.findall(r"[\w/-]+\.md", json.dumps(config.nav)))
    if rest := sorted({path.name for path in (ROOT / "docs").glob("*.md")} - named):
        config.nav.append({"More": rest})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that do not lie in docs/."""
    for name in PROJECT:
        text = (ROOT / name).read_text("utf-8")
        text = LINK.sub(lambda found: f"]({_from_project(found[1])}", REPOSITORY.sub(r"\1", text))
        files.append(File.generated(config, f"project/{name}", content=text))
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        name = f"notebooks/{path.stem}"
        text, pictures = _notebook(json.loads(path.read_text("utf-8")), path.stem)
        files.append(File.generated(config, f"{name}.md", content=text))
        for picture, data in pictures.items():
            files.append(File.generated(config, f"notebooks/{picture}", content=data))
    return files


def _from_project(target: str) -> str:
    if target in PROJECT:
        return target
    assert target.startswith("docs/"), f"a page of the root links to {target}"
    return f"../{target.removeprefix('docs/')}"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Follow links out of docs/, and let lists begin behind a paragraph as on GitHub."""
    if page.file.src_uri == "python.md":
        markdown = _with_docstrings(markdown)
    kept: list[str] = []

    def hide(found: re.Match[str]) -> str:
        kept.append(found[0])
        return f"\0{len(kept) - 1}\0"

    text = FENCE.sub(hide, markdown)
    text = re.sub(rf"\]\(\.\./({'|'.join(PROJECT)})", r"](project/\1", text)
    text = re.sub(r"\[([\w-]+)\.md\]\(", r"[\1](", text)
    text = re.sub(r"\]\(\.\./examples/notebooks/(\w+)\.ipynb\)", r"](notebooks/\1.md)", text)
    text = re.sub(r"^((?![-*|#> ]|\d+\. ).+)\n(?=(?:[-*]|\d+\.) |\|)", r"\1\n\n", text, flags=re.M)
    text = re.sub(r"^(\0\d+\0)\n(?=\S)", r"\1\n\n", text, flags=re.M)
    text = re.sub(r"(?<=\S)\n(?=\0\d+\0)", r"\n\n", text)
    return re.sub(r"\0(\d+)\0", lambda found: kept[int(found[1])], text)


def _with_docstrings(markdown: str) -> str:
    """Put mkdocstrings' blocks in the place of the reference that docs/reference.py writes."""
    start = markdown.index("\n## Locator\n")
    parts = [markdown[:start]]
    for section in re.split(r"\n(?=###? )", markdown[start:]):
        if found := re.search(r"^```python\nfrom (sgmft[\w.]*) import (\w+)\n```", section, re.M):
            block = f"\n::: {found[1]}.{found[2]}\n"
            members = re.findall(r"^#### \w+\.(\w+)$", section, re.M)
            parts.append(f"{block}    options:\n      members: {json.dumps(members)}\n")
        else:
            parts.append(f"\n{section}\n")
    return "\n".join(parts)


def _notebook(notebook: dict[str, Any], stem: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and its pictures by name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"\]\(\.\./\.\./docs/", "](../", source))
            continue
        language = "bash" if source.startswith("%%bash") else "python"
        code = re.sub(r"^%%writefile (.+)", r"# \1", source.removeprefix("%%bash\n"))
        parts.append(f"```{language}\n{code}\n```")
        for output in cell["outputs"]:
            parts.append(_output(output, f"{stem}-{len(pictures) + 1}.png", pictures))
    return "\n\n".join(parts) + "\n", pictures


def _output(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        pictures[name] = base64.b64decode(data["image/png"])
        return f'<div class="notebook-output" markdown>\n\n![figure]({name})\n\n</div>'
    if "text/html" in data:
        table = re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.DOTALL)
        table = re.sub(r"\n\s*", "", table)
        return f'<div class="notebook-output">{table}</div>'
    text = "".join(output.get("text", data.get("text/plain", "")))
    return (
        f'<div class="notebook-output"><pre><code>{html.escape(text.rstrip())}</code></pre></div>'
    )
