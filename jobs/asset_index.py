"""Reads one file from the package index that pip is set up with, without giving it to pip.

For source archives: pip would run their build backend to learn their dependencies.
Source: PEP 503, the simple repository API; pip's own `config list` and `download --help` name the index.
"""

import base64
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import urllib.response
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

from jobs.asset_records import Package
from pipelines.errors import PipelineError, UsageError

_ATTEMPTS = 3
_TIMEOUT_SECONDS = 120
_CHUNK_BYTES = 1 << 20


def index_download(
    package: Package, folder: Path, on_bytes: Callable[[int], None], ask_pip: Callable[..., str]
) -> Path:
    """Download a package's file from the first index that has it.

    Args:
        package: What to download; its `file_name` is looked for on the index's page.
        folder: Where to put it.
        on_bytes: Told the size of each piece.
        ask_pip: Runs pip with the given arguments and returns what it says.

    Returns:
        The file, its hash not looked at yet.

    Raises:
        UsageError: If pip names no index.
        PipelineError: If no index delivers it.
    """
    indexes, certificate = _settings(package, ask_pip)
    context = ssl.create_default_context(cafile=certificate)
    path = folder / package.file_name
    reasons: list[str] = []
    for index in indexes:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                url = _file_url(package, index, context)
                if url is None:
                    reasons.append(f"no {package.file_name} on its page")
                    break
                with _open(url, context) as source, path.open("wb") as out:
                    while piece := source.read(_CHUNK_BYTES):
                        out.write(piece)
                        on_bytes(len(piece))
            except OSError as error:
                reasons.append(str(error))
                is_final = isinstance(error, urllib.error.HTTPError) and error.code < 500
                if is_final or index.startswith("file:"):
                    break
                time.sleep(attempt)
            else:
                return path
    raise PipelineError(
        f"{package}: expected a package index to serve it, got: {' / '.join(dict.fromkeys(reasons))}. "
        "Check the network and pip's index settings (`pip config list`), then fetch again."
    )


def _settings(package: Package, ask_pip: Callable[..., str]) -> tuple[list[str], str | None]:
    """The index URLs that pip is set up with, first choice first, and its certificate file if it has one."""
    listing = ask_pip("config", "list")
    settings = dict(re.findall(r"^\S*?([\w-]+)='(.*)'$", listing, flags=re.MULTILINE))
    # The environment beats the files, wherever pip lists it.
    settings |= dict(re.findall(r"^:env:\.([\w-]+)='(.*)'$", listing, flags=re.MULTILINE))
    index = settings.get("index-url")
    if index is None:
        default = re.search(r"--index-url <url>.*?\(default\s+(\S+?)\)", ask_pip("download", "--help"), re.DOTALL)
        if default is None:
            raise UsageError(f"{package}: expected pip to name its index, got none. Set PIP_INDEX_URL.")
        index = default.group(1)
    return [index, *settings.get("extra-index-url", "").split()], settings.get("cert")


class _Links(HTMLParser):
    """Collects the href of each anchor by its text."""

    def __init__(self) -> None:
        super().__init__()
        self.by_text: dict[str, str] = {}
        self._href: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember where an anchor points."""
        if tag == "a":
            self._href = dict(attrs).get("href")

    def handle_data(self, data: str) -> None:
        """Pair an anchor's text with where it points."""
        if self._href is not None and data.strip():
            self.by_text[data.strip()] = self._href
            self._href = None


def _file_url(package: Package, index: str, context: ssl.SSLContext) -> str | None:
    project = re.sub(r"[-_.]+", "-", package.name).lower()
    page_url = f"{index.rstrip('/')}/{project}/"
    if page_url.startswith("file:"):
        page_url += "index.html"
    parser = _Links()
    with _open(page_url, context) as page:
        parser.feed(page.read().decode("utf-8", "replace"))
    href = parser.by_text.get(package.file_name)
    return None if href is None else urllib.parse.urljoin(page_url, href)


def _open(url: str, context: ssl.SSLContext) -> urllib.response.addinfourl:
    """Open a URL; a user and password in it, as private indexes have, become the header they stand for."""
    parts = urllib.parse.urlsplit(url)
    headers = {"Accept": "text/html, application/octet-stream"}
    if parts.username is not None:
        secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    request = urllib.request.Request(urllib.parse.urlunsplit(parts), headers=headers)
    response: urllib.response.addinfourl = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=context)
    return response
