"""Archives are unpacked whole and inside their folder, or refused with a reason and nothing left behind."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import time
import zipfile

import pytest

from reelwright.storage.errors import InputError
from reelwright.storage.tables.archives import ArchiveLimits, extract, is_archive

SMALL = ArchiveLimits(max_entries=10, max_bytes=1 << 20)
FILES = {"a/one.txt": b"1", "a/b/two.txt": b"22" * 5000}


def write_zip(path, files, *, mode=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (mode or 0o100644) << 16
            archive.writestr(entry, content)


def write_tar(path, files, **changes):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for attribute, value in changes.items():
                setattr(entry, attribute, value)
            archive.addfile(entry, io.BytesIO(content) if entry.isreg() else None)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_unpacks(tmp_path, name):
    write = write_zip if name.endswith("zip") else write_tar
    write(tmp_path / name, FILES)
    assert is_archive(tmp_path / name)
    assert extract(tmp_path / name, tmp_path / "out", SMALL) == 2
    out = tmp_path / "out"
    assert {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.txt")} == FILES


def many(number):
    return {f"{index}.txt": b"" for index in range(number)}


def patch(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def zip_with_false_size(path):
    """Claims 10 bytes in its directory and its own header, and holds 10,000."""
    write_zip(path, {"a.txt": b"22" * 5000})
    patch(path, struct.pack("<L", 10_000), struct.pack("<L", 10))


def zip_with_false_count(path):
    """Its end record claims 65,000 entries, as one of many has."""
    write_zip(path, many(1))
    content = bytearray(path.read_bytes())
    content[-12:-10] = content[-14:-12] = struct.pack("<H", 65_000)
    path.write_bytes(content)


def zip_that_hides_entries(path):
    """Its end record claims one entry, and its directory has eleven."""
    write_zip(path, many(11))
    content = bytearray(path.read_bytes())
    content[-12:-10] = content[-14:-12] = struct.pack("<H", 1)
    path.write_bytes(content)


def tar_with_a_long_name(path):
    write_tar(path, {"x" * 70_000: b""})


def tar_with_false_size(path):
    """Its only entry claims 900,000 bytes and 10 follow."""
    entry = tarfile.TarInfo("a.txt")
    entry.size = 900_000
    path.write_bytes(entry.tobuf() + b"1234567890".ljust(512, b"\0") + bytes(1024))


def encrypted(path):
    write_zip(path, {"a.txt": b"x"})
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def cut(path):
    write_tar(path, FILES)
    path.write_bytes(path.read_bytes()[:1200])


def damaged(path):
    write_tar(path, FILES)
    content = bytearray(path.read_bytes())
    content[1024 + 150] ^= 1  # the checksum of the second entry's header
    path.write_bytes(content)


ZIP, TAR = "x.zip", "x.tar"
REFUSED = {
    "zip up": (ZIP, lambda path: write_zip(path, {"../../escaped.txt": b"x"}), "leads out"),
    "zip absolute": (ZIP, lambda path: write_zip(path, {"/tmp/escaped.txt": b"x"}), "leads out"),
    "zip of another system": (ZIP, lambda path: write_zip(path, {"..\\escaped.txt": b"x", "C:x": b""}), "leads out"),
    "zip link": (ZIP, lambda path: write_zip(path, {"a": b"/etc/passwd"}, mode=0o120777), "link or a device"),
    "zip of many": (ZIP, lambda path: write_zip(path, many(11)), "11 entries .*at most 10"),
    "zip false count": (ZIP, zip_with_false_count, "65,000 entries .*at most 10"),
    "zip hides entries": (ZIP, zip_that_hides_entries, "11 entries .*at most 10"),
    "zip bomb": (ZIP, lambda path: write_zip(path, {"a": bytes(2 << 20)}), "2,097,152 bytes unpacked, more than"),
    "zip false size": (ZIP, zip_with_false_size, "cannot be unpacked|claims"),
    "zip encrypted": (ZIP, encrypted, "encrypted"),
    "no zip": (ZIP, lambda path: path.write_text("hello"), "no zip archive"),
    "tar up": (TAR, lambda path: write_tar(path, {"../escaped.txt": b"x"}), "leads out"),
    "tar absolute": (TAR, lambda path: write_tar(path, {"/tmp/escaped.txt": b"x"}), "leads out"),
    "tar symlink": (TAR, lambda path: write_tar(path, {"a": b""}, type=tarfile.SYMTYPE, linkname="/etc"), "a link"),
    "tar hard link": (TAR, lambda path: write_tar(path, {"a": b""}, type=tarfile.LNKTYPE, linkname="/etc/x"), "a link"),
    "tar device": (TAR, lambda path: write_tar(path, {"a": b""}, type=tarfile.CHRTYPE), "a device"),
    "tar of many": (TAR, lambda path: write_tar(path, many(11)), "more than 10 entries"),
    "tar of many long names": (
        TAR,
        lambda path: write_tar(path, {f"{i}" * 200: b"x" for i in range(11)}),
        "more than 10",
    ),
    "tar false size": (TAR, tar_with_false_size, "cannot be unpacked"),
    "tar bomb": ("x.tar.gz", lambda path: write_tar(path, {"a": bytes(2 << 20)}), "bytes unpacked, more than"),
    "tar long name": (TAR, tar_with_a_long_name, "a name or header of 70,"),
    "tar cut": (TAR, cut, "cannot be unpacked"),
    "tar damaged": (TAR, damaged, "header of an entry is damaged"),
    "no tar": (TAR, lambda path: path.write_text("hello"), "cannot be unpacked"),
}


@pytest.mark.parametrize(("name", "write", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_and_nothing_stays(tmp_path, name, write, message):
    folder = tmp_path / "deep" / "down"
    folder.mkdir(parents=True)
    write(folder / name)
    with pytest.raises(InputError, match=message):
        extract(folder / name, folder / "out", SMALL)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [name]


def test_refused_when_an_entry_is_there_twice(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for content in (b"1", b"2"):
            entry = tarfile.TarInfo("a.txt")
            entry.size = 1
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(InputError, match=r"'a\.txt' is there twice"):
        extract(tmp_path / "x.tar", tmp_path / "out", SMALL)


def write_million(path):
    """A million entries, of one name, so that they are written in seconds."""
    if path.suffix == ".gz":
        with gzip.open(path, "wb", compresslevel=1) as file:
            headers = tarfile.TarInfo("a.txt").tobuf() * 10_000
            for _ in range(100):
                file.write(headers)
        return
    write_zip(path, many(1))
    content = path.read_bytes()
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    directory = content[start:end] * 1_000_000
    counts = struct.pack("<HHLL", 0xFFFF, 0xFFFF, len(directory), start)
    path.write_bytes(content[:start] + directory + content[end : end + 8] + counts + bytes(2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_a_million_entries_are_refused_in_seconds(tmp_path, name):
    write_million(tmp_path / name)
    started = time.process_time()  # of this process: others may be busy
    with pytest.raises(InputError, match=r"entries .*--max-entries"):
        extract(tmp_path / name, tmp_path / "out", ArchiveLimits())
    seconds = time.process_time() - started
    print(f"{name}: a million entries refused after {seconds:.1f} s")
    assert seconds < 30  # 5 s where tarfile alone takes 47 s
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_quick_count_of_a_tar_is_that_of_its_entries(tmp_path):
    write_tar(tmp_path / "x.tar", {**FILES, "folder/" + "long" * 60: b"x" * 513})
    assert extract(tmp_path / "x.tar", tmp_path / "out", ArchiveLimits(max_entries=3)) == 3
    with pytest.raises(InputError, match=r"more than 2 entries \(3\)"):
        extract(tmp_path / "x.tar", tmp_path / "out2", ArchiveLimits(max_entries=2))
