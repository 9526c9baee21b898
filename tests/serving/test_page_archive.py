"""A zip of pictures from anyone, unpacked."""

import io
import zipfile

import pytest

from sgmft.errors import SgmftError
from sgmft.serving.page.tables import LANGUAGES, TableRefused, columns_html, unpack


def packed(path, files, kind=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", kind) as into:
        for name, data in files.items():
            into.writestr(name, data)
    return path


def test_a_zip_is_unpacked_with_its_folders(tmp_path):
    source = packed(tmp_path / "a.zip", {"a/b.jpg": b"1", "c.jpg": b"22", "__MACOSX/c.jpg": b"3"})
    assert unpack(source, tmp_path / "to", 100) == 2
    found = {str(x.relative_to(tmp_path / "to")) for x in (tmp_path / "to").rglob("*.*")}
    assert found == {"a/b.jpg", "c.jpg"}
    assert (tmp_path / "to" / "c.jpg").read_bytes() == b"22"


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8"])
def test_names_that_do_not_say_how_they_are_written_are_read(tmp_path, encoding):
    name = "图片/火锅.jpg".encode(encoding)
    placeholder = "x" * len(name)
    data = packed(tmp_path / "a.zip", {placeholder: b"1"}).read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(placeholder.encode(), name))
    unpack(tmp_path / "a.zip", tmp_path / "to", 100)
    assert (tmp_path / "to" / "图片" / "火锅.jpg").is_file()


def link():
    entry = zipfile.ZipInfo("link.jpg")
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"../a.jpg": b""}, "outside its folder"),
        ({"a/../../b.jpg": b""}, "outside its folder"),
        ({"/etc/a.jpg": b""}, "outside its folder"),
        ({"..\\a.jpg": b""}, "outside its folder"),
        ({"C:\\a.jpg": b""}, "outside its folder"),
        ({link(): b"/etc/passwd"}, "a link"),
        ({"a.jpg": b"0" * 2**21}, "too large"),
        ({f"{i}.bin": bytes(range(256)) * 200 for i in range(3)}, "too large"),
        ({f"{i}": b"" for i in range(20_001)}, "too many files"),
    ],
)
def test_a_dangerous_zip_leaves_nothing(tmp_path, files, reason):
    (tmp_path / "to").mkdir()
    with pytest.raises(SgmftError, match=reason):
        unpack(packed(tmp_path / "a.zip", files), tmp_path / "to", 100_000)
    assert sorted(x.name for x in tmp_path.rglob("*")) == ["a.zip", "to"]


def test_a_zip_that_lies_about_its_sizes_is_no_way_around_the_limit(tmp_path):
    source = packed(tmp_path / "a.zip", {"a.bin": bytes(range(256)) * 4000})
    size = (256 * 4000).to_bytes(4, "little")
    source.write_bytes(source.read_bytes().replace(size, (500).to_bytes(4, "little")))
    with pytest.raises(SgmftError):
        unpack(source, tmp_path / "to", 10_000)
    assert sum(x.stat().st_size for x in (tmp_path / "to").rglob("*.*")) <= 10_000


@pytest.mark.parametrize("how", ["cut", "flipped", "lzma", "name", "text", "encrypted"])
def test_a_zip_that_cannot_be_read_is_refused(tmp_path, how):
    kind = zipfile.ZIP_LZMA if how == "lzma" else zipfile.ZIP_DEFLATED
    name = "a场.bin" if how == "name" else "a.bin"
    files = {name: bytes(range(256)) * 40}
    data = bytearray(packed(tmp_path / "a.zip", files, kind).read_bytes())
    if how == "cut":
        data = data[: len(data) // 2]
    if how in ("flipped", "lzma"):
        data[60] ^= 0xFF
    if how == "name":
        data = data.replace("场".encode(), b"\xff\xff\xff")
    if how == "text":
        data = bytearray(b"no zip")
    if how == "encrypted":
        with zipfile.ZipFile(io.BytesIO(bytes(data))) as found:
            start = found.start_dir
        data[start + 8] |= 1  # the flag in the directory
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(SgmftError, match="password" if how == "encrypted" else "damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "to", 100_000)


@pytest.mark.parametrize("cut", [0, 30])
def test_a_workbook_that_unpacks_to_far_more_or_is_damaged_is_refused(tmp_path, cut):
    source = packed(tmp_path / "a.xlsx", {"xl/sharedStrings.xml": b"0" * (8 * 2**20)})
    data = source.read_bytes()
    damaged = data[: -22 - cut] + data[-22:] if cut else data  # before the record at the end
    message = "no Excel workbook|not an Excel|damaged" if cut else "too large unpacked"
    with pytest.raises(TableRefused, match=message):
        columns_html(LANGUAGES["en"], tmp_path, "a.xlsx", io.BytesIO(damaged))
