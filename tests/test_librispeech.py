"""LibriSpeech as it lies on disks and as OpenSLR serves it: from a server on this machine, in real audio."""

import hashlib
import io
import os
import shutil
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local import fetching
from local.config import CONF
from local.corpora import librispeech as module
from local.corpora.librispeech import LibriSpeech
from local.errors import InputError
from tests.conftest import here

SPLITS = {"pretrain": "train-clean-5", "train": "train-clean-5", "dev": "dev-clean-2", "test": "test-clean"}


class OpenSLR(BaseHTTPRequestHandler):
    """Serves the files of a folder, with ranges; the first answer for a file in `cuts` breaks off there."""

    def __init__(self, folder: Path, cuts: dict[str, int], log: list, *args) -> None:
        self.folder, self.cuts, self.log = folder, cuts, log
        super().__init__(*args)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, wanted = self.folder / self.path.lstrip("/"), self.headers["Range"]
        self.log.append((path.name, wanted))
        if not path.exists():
            return self.send_error(404)
        content = path.read_bytes()
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.cuts.pop(path.name, None)])


def corpus(root: Path, **more) -> LibriSpeech:
    settings = {
        "name": "librispeech", "root": str(root), "download_to": "nowhere", "mirror": "", "sample_rate": 16000,
        "splits": {split: [folder] for split, folder in SPLITS.items()},
    }  # fmt: skip
    return LibriSpeech(**settings | more)


@pytest.fixture
def tree(librispeech, tmp_path) -> Path:
    """An official tree of three folders with the begin of a real chapter each."""
    root = tmp_path / "disk" / "LibriSpeech"
    speakers = sorted((librispeech / "train-clean-5").glob("*"))[:3]
    chapters = (min(speaker.glob("*")) for speaker in speakers)
    for folder, chapter in zip(dict.fromkeys(SPLITS.values()), chapters, strict=True):
        (target := root / folder / chapter.parent.name / chapter.name).mkdir(parents=True)
        (table,) = chapter.glob("*.trans.txt")
        lines = table.read_text().splitlines(keepends=True)[:4]
        (target / table.name).write_text("".join(lines))
        for line in lines:
            shutil.copy(chapter / f"{line.split()[0]}.flac", target)
    for table in librispeech.glob("*.TXT"):
        shutil.copy(table, root)
    return root


@pytest.fixture
def openslr(tree, tmp_path, monkeypatch):
    """A mirror of `tree` as archives: its settings, its folder, the cuts that it will make and what it was asked."""
    folder, cuts, log = tmp_path / "served", {}, []
    for name in dict.fromkeys(SPLITS.values()):
        archive = folder / module.SUBSETS[name][0] / f"{name}.tar.gz"
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "w:gz") as tar:
            for path in (tree / name, *tree.glob("*.TXT")):
                tar.add(path, f"LibriSpeech/{path.name}")
        publish(archive, monkeypatch)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(OpenSLR, folder, cuts, log))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (job := tmp_path / "job").mkdir()
    splits = [f"corpus.splits.{split}=[{name}]" for split, name in SPLITS.items()]
    settings = ["corpus=librispeech", f"corpus.mirror=http://127.0.0.1:{server.server_port}", *splits]
    yield partial(here, job, tiny=settings), job, folder, cuts, log
    server.shutdown()
    server.server_close()


def publish(archive: Path, monkeypatch) -> None:
    """Make the archive's digest the published one."""
    name = archive.name.removesuffix(".tar.gz")
    digest = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(module.SUBSETS, name, (archive.parent.name, digest))


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "done.json"
    }


def test_a_missing_root_is_downloaded_and_each_folder_once(openslr, tree, caplog):
    run, job, _, _, log = openslr
    run(0, 1)
    (root,) = job.glob("data/audio/librispeech-????????")
    assert files(root) == files(tree)
    assert sorted(name for name, _ in log) == ["dev-clean-2.tar.gz", "test-clean.tar.gz", "train-clean-5.tar.gz"]
    run(0, 0, "corpus.splits.pretrain=[train-clean-5,dev-clean-2]")  # other folders of the same archives
    roots = list(job.glob("data/audio/librispeech-????????"))
    assert len(roots) == 2 and len(log) == 3 and files(roots[0]) == files(roots[1])
    run(0, 0)
    assert "download: done already" in caplog.text and len(log) == 3


def test_a_cut_download_continues_where_it_stopped(openslr, tree):
    run, job, _, cuts, log = openslr
    cuts["train-clean-5.tar.gz"] = 50_000
    with pytest.raises(InputError, match=r"train-clean-5.tar.gz: cut after 50000 of \d+ bytes; run the same command"):
        run(0, 0)
    assert not list(job.glob("data/audio/librispeech-????????"))
    run(0, 0)
    assert ("train-clean-5.tar.gz", "bytes=50000-") in log
    assert [name for name, _ in log].count("dev-clean-2.tar.gz") == 1
    (root,) = job.glob("data/audio/librispeech-????????")
    assert files(root) == files(tree)


def test_a_download_that_was_complete_when_it_was_killed_is_not_repeated(openslr, tmp_path):
    run, job, folder, _, log = openslr
    whole = folder / "12" / "test-clean.tar.gz"
    part = tmp_path / "test-clean.tar.gz.part"
    shutil.copy(whole, part)
    url = next(setting for setting in run.keywords["tiny"] if "mirror" in setting).partition("=")[2]
    fetching.fetch(f"{url}/12/test-clean.tar.gz", tmp_path / "test-clean.tar.gz", module.SUBSETS["test-clean"][1])
    assert (tmp_path / "test-clean.tar.gz").read_bytes() == whole.read_bytes() and not part.exists()


def test_another_checksum_is_refused_and_what_was_right_is_kept(openslr, monkeypatch):
    run, job, folder, _, log = openslr
    archive = folder / "12" / "test-clean.tar.gz"
    monkeypatch.setitem(module.SUBSETS, "test-clean", ("12", "0" * 32))
    with pytest.raises(InputError, match=r"test-clean.tar.gz: MD5 \w+, expected 00000000.*; what came is removed"):
        run(0, 0)
    assert not list(job.glob("data/audio/librispeech-????????")) and not list(job.rglob("test-clean.tar.gz*"))
    publish(archive, monkeypatch)
    run(0, 0)
    assert [name for name, _ in log].count("train-clean-5.tar.gz") == 1
    (root,) = job.glob("data/audio/librispeech-????????")
    assert (root / "test-clean").is_dir()


@pytest.mark.parametrize("name, kind", [("../../../escaped", tarfile.REGTYPE), ("LibriSpeech/link", tarfile.SYMTYPE)])
def test_a_member_that_escapes_is_refused(openslr, monkeypatch, tmp_path, name, kind):
    run, job, folder, _, _ = openslr
    archive = folder / "12" / "test-clean.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname = kind, 3 if kind == tarfile.REGTYPE else 0, "/etc/passwd"
        tar.addfile(member, io.BytesIO(b"out"))
    publish(archive, monkeypatch)
    with pytest.raises(InputError, match="test-clean.tar.gz: .* such an archive is refused"):
        run(0, 0)
    assert not list(tmp_path.rglob("escaped")) and not list(job.glob("data/audio/*.partial"))


def test_a_damaged_archive_is_one_line(openslr, monkeypatch):
    run, _, folder, _, _ = openslr
    archive = folder / "12" / "test-clean.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-20_000])
    publish(archive, monkeypatch)
    with pytest.raises(InputError, match="test-clean.tar.gz: damaged archive"):
        run(0, 0)


def test_a_server_that_lacks_the_file_or_does_not_answer_is_one_line(openslr):
    run, _, folder, _, _ = openslr
    (folder / "31" / "dev-clean-2.tar.gz").unlink()
    with pytest.raises(InputError, match="dev-clean-2.tar.gz: HTTP Error 404: Not Found; .*corpus.mirror"):
        run(0, 0)
    with pytest.raises(InputError, match="dev-clean-2.tar.gz: .*refused; .*corpus.mirror"):
        run(0, 0, "corpus.mirror=http://127.0.0.1:9")


def test_a_folder_that_openslr_lacks_is_refused_before_anything_is_fetched(openslr):
    run, job, _, _, log = openslr
    with pytest.raises(InputError, match="train-clean-7 is no subset that OpenSLR has"):
        run(0, 0, "corpus.splits.train=[train-clean-7]")
    with pytest.raises(InputError, match="train-clean-8 is no subset that OpenSLR has"):
        run(0, 0, "corpus.splits.train=train-clean-8")
    assert not log and not list(job.iterdir())


@pytest.mark.parametrize("place", [".", "..", "train-clean-5", "../.."])
def test_a_root_a_level_or_two_off_is_found(tree, place):
    direct = list(corpus(tree).utterances("train"))
    found = list(corpus(tree / place).utterances("train"))
    assert direct and [(u.id, u.duration) for u in found] == [(u.id, u.duration) for u in direct]


def test_a_root_without_the_folders_says_what_it_looked_for(tree):
    shutil.rmtree(tree / "dev-clean-2")
    with pytest.raises(InputError, match="LibriSpeech/dev-clean-2: no such folder for corpus.splits.dev.*holds: test-"):
        list(corpus(tree).utterances("dev"))


def test_what_the_tables_know_of_an_utterance(tree, librispeech):
    for utterance in corpus(tree).utterances("train"):
        speaker, chapter, _ = utterance.id.split("-")
        assert utterance.session == f"{speaker}-{chapter}" and utterance.speaker == speaker
        rows = [line.split("|") for line in (librispeech / "CHAPTERS.TXT").read_text().splitlines() if "|" in line]
        (row,) = (row for row in rows if row[0].strip() == chapter)
        assert utterance.book == row[5].strip() and utterance.book.isdigit()
        assert utterance.gender in ("m", "f")


def test_every_broken_chapter_is_listed_and_the_rest_is_read(tree):
    (chapter,) = (tree / "train-clean-5").glob("*/*")
    good = {u.id for u in corpus(tree).utterances("train")}
    one, other, third = sorted(good)[:3]
    (chapter / f"{one}.flac").unlink()
    (chapter / f"{other}.flac").unlink()
    (chapter / f"{other}.flac").symlink_to(f"{other}.flac")  # a loop
    os.rename(chapter / f"{third}.flac", os.fsencode(chapter) + b"/\xff.flac")
    (chapter.parent / "loop").symlink_to("loop")
    (chapter.parent / "up").symlink_to("..")
    shutil.copytree(chapter, tree / "train-clean-5" / "1" / "2", symlinks=True)  # without its transcripts' name
    found = list(corpus(tree).utterances("train"))
    errors = [str(one) for one in found if isinstance(one, InputError)]
    assert {u.id for u in found if not isinstance(u, InputError)} == good - {one, other, third}
    for message in (
        f"text for {one}, but no {one}.flac", f"{other}.flac: unreadable audio", f"text for {third}, but no",
        "\\udcff.flac: the name is not UTF-8", "up.trans.txt: cannot be read", "1-2.trans.txt: cannot be read",
    ):  # fmt: skip
        assert any(message in error for error in errors), (message, errors)
    "\n".join(errors).encode()  # all of it can be printed


@pytest.mark.parametrize("recipe", ["librispeech", "librispeech_960", "mini_librispeech"])
def test_the_recipes_name_subsets_that_can_be_downloaded(tmp_path, recipe, caplog):
    assert (CONF / "recipe" / f"{recipe}.yaml").exists()
    here(tmp_path, 0, 0, f"recipe={recipe}", "dry_run=true", tiny=[])
    assert "to run 0 download" in caplog.text
