"""Published results at a web address, as `dlbench publish` lays them out; any server of static files will do.

    URL/SHA256SUMS              names every file with its SHA-256, as `sha256sum` prints it
    URL/records.parquet         and the other files that SHA256SUMS names

Files are kept in dlbench's cache, by the content of SHA256SUMS: a changed publication is downloaded again.
"""

import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from dlbench.cache import cache_folder
from dlbench.errors import StoreError
from dlbench.results.parts import open_file_atomically
from dlbench.safe_names import short_repr

_CHECKSUM_FILE = "SHA256SUMS"
#: Servers that do not answer for so long are given up [s].
_TIMEOUT_S = 60.0
#: No publication names more files, and no list of them is larger.
_MOST_FILES, _MOST_SUMS_BYTES = 10_000, 4_000_000
_URL_SOURCE = re.compile(r"(?:([^=/:]+)=)?(https?://[^\s]+)", re.IGNORECASE)
_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S.*)")
#: Parts of a file's name; a name of other characters, or with `..`, could leave the folder.
_SAFE_PATH = re.compile(r"[\w+@=-][\w.+@=-]*(?:/[\w+@=-][\w.+@=-]*)*")


def download_source(source: str, on_progress: Callable[[str], None] = lambda _: None) -> str:
    """Return the source itself; results at a web address (or NAME=address) are downloaded, and become NAME=FOLDER.

    `on_progress` gets the name of each file that is downloaded. Raises StoreError if an address cannot be read, or a
    file differs from its checksum.
    """
    found = _URL_SOURCE.fullmatch(str(source))
    if not found:
        return source
    name, url = found[1], found[2].rstrip("/")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise StoreError(f"{url} is not a web address: {error}") from None
    name = name or Path(parts.path).stem or parts.netloc
    if url.lower().endswith(".parquet"):
        content = b"".join(_download_in_blocks(url))
        file = cache_folder() / "published" / hashlib.sha256(content).hexdigest()[:16] / Path(parts.path).name
        if not file.is_file():
            _save_if_checksum_matches(file, iter([content]), None)
        return f"{name}={file}"
    sums = b"".join(_download_in_blocks(f"{url}/{_CHECKSUM_FILE}", _MOST_SUMS_BYTES))
    folder = cache_folder() / "published" / hashlib.sha256(sums).hexdigest()[:16]
    for digest, path in _parse_checksums(sums.decode(errors="replace"), url):
        if not (folder / path).is_file():
            on_progress(path)
            _save_if_checksum_matches(folder / path, _download_in_blocks(f"{url}/{quote(path)}"), digest)
    return f"{name}={folder}"


def _parse_checksums(sums: str, url: str) -> list[tuple[str, str]]:
    """Return checksum and name of each file of results."""
    lines = [_CHECKSUM_LINE.fullmatch(line) for line in sums.splitlines() if line.strip()]
    if not lines or len(lines) > _MOST_FILES or not all(lines):
        raise StoreError(f"{url}/{_CHECKSUM_FILE} is not a list of checksums; `dlbench publish` writes it")
    files = [(line[1], line[2]) for line in lines if line]
    for _, path in files:
        if not _SAFE_PATH.fullmatch(path):
            raise StoreError(f"{url}/{_CHECKSUM_FILE} contains {short_repr(path)}, which is not a plain file name")
    return [(digest, path) for digest, path in files if path.endswith((".parquet", ".json")) and "report/" not in path]


def _download_in_blocks(url: str, most_bytes: int | None = None) -> Iterator[bytes]:
    try:
        # The address is http or https, and so is every address that it leads to.
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            size = 0
            while block := answer.read(1 << 20):
                size += len(block)
                if most_bytes is not None and size > most_bytes:
                    raise StoreError(f"cannot read {url}: it has more than {most_bytes} bytes")
                yield block
    except urllib.error.HTTPError as error:
        error.close()
        hint = "; give a folder written by `dlbench publish`, or a Parquet file" if url.endswith(_CHECKSUM_FILE) else ""
        raise StoreError(f"cannot read {url}: {error.code} {error.reason}{hint}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise StoreError(f"cannot read {url}: {' '.join(str(reason).split())}") from None


def _save_if_checksum_matches(file: Path, blocks: Iterator[bytes], digest: str | None) -> None:
    """Write the file, and give it its name once it is complete and has the right checksum."""
    hashed = hashlib.sha256()
    with open_file_atomically(file) as out:
        for block in blocks:
            hashed.update(block)
            out.write(block)
        if digest is not None and hashed.hexdigest() != digest:
            raise StoreError(
                f"{file.name} differs from its checksum in {_CHECKSUM_FILE}: it was changed after publication"
            )
