"""The `.metav` file: a zip of canonical JSON and tensors, the same bytes for the same content, checked on reading."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.errors import ArtefactError
from metav.fingerprints.tensor_bytes import Tensors, pack, unpack
from metav.support.files import PathLike, path_text, write_atomically
from metav.support.json_values import canonical_json

FORMAT = "metav"
FORMAT_VERSION = 2
"""Version that is written; READABLE_VERSIONS are read."""
READABLE_VERSIONS = (1, 2)
DOCUMENT, TENSORS = "metav.json", "tensors.safetensors"
LIMITS = {DOCUMENT: 4 * 2**20, TENSORS: 2**31 - 2**20}
"""Largest sizes of the two members, in bytes: metav writes documents of some 20 kB, and larger ones take long to read;
larger tensors would need the 64-bit variant of zip files."""
DEEPEST, MOST_VALUES = 32, 200_000
"""Levels of tables and lists, and values in all, that a document may have: whatever walks through it ends soon."""
REMEDY = "get an intact copy, or save the fingerprint again"


def commitment_of(salt: str, document: Mapping[str, Any], tensors: Tensors) -> str:
    """Return the hexadecimal SHA-256 over salt, document and tensors.

    salt: hexadecimal digits.
    document: entered as canonical JSON, without its keys "commitment" and "salt".
    tensors: by name; names, dtypes, shapes and bytes enter, sorted by name.

    Nothing depends on the layout of a file.
    """
    sha = hashlib.sha256()
    content = {key: value for key, value in document.items() if key not in ("commitment", "salt")}
    parts = [bytes.fromhex(salt), canonical_json(content)]
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        parts += [name.encode(), array.dtype.name.encode(), canonical_json(list(array.shape)), little.tobytes()]
    for part in parts:
        sha.update(len(part).to_bytes(8, "big"))  # lengths keep neighbouring parts apart
        sha.update(part)
    return sha.hexdigest()


def write_file(path: PathLike, document: Mapping[str, Any], tensors: Tensors) -> None:
    """Write the file in one step: whoever looks sees the old file or the new one, never a part.

    Only its owner may read a new one, because whoever knows the queries can evade them.

    Raises ArtefactError if it cannot be written.
    """
    path = path_text(path)
    try:
        _check_values(document)
        members = {DOCUMENT: canonical_json(document), TENSORS: pack(tensors)}
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} cannot hold this fingerprint: {error}; make it from plain values") from error
    content = _zip(members, path)
    try:
        write_atomically(path, content, private=True)
    except OSError as error:
        raise ArtefactError(
            f"cannot write {path} ({error.strerror or error}); choose a file in an existing folder that you "
            "may write to"
        ) from error


def read_file(path: PathLike) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the document and tensors of a file, after all checks that need no knowledge of their meaning.

    Raises ArtefactError on a file that is missing, not a fingerprint, altered, too large or of an unknown version.
    """
    path = path_text(path)
    raw = _read_bytes(path)
    contents = _members(path, raw)
    if _zip(contents, path) != raw:
        raise _broken(path, "was altered: its zip structure differs from the one that metav writes")
    document = _parse_document(path, contents[DOCUMENT])
    tensors = _parse_tensors(path, contents[TENSORS])
    _check_commitment(path, document, tensors)
    return document, tensors


def _zip(contents: Mapping[str, bytes], path: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in (DOCUMENT, TENSORS):
            if len(contents[name]) > LIMITS[name]:
                raise ArtefactError(
                    f"{name} of {path} has {len(contents[name])} bytes, expected at most {LIMITS[name]}; "
                    "use fewer queries or a smaller verifier"
                )
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o600 << 16  # the same on every system
            archive.writestr(info, contents[name])
    return buffer.getvalue()


def _read_bytes(path: str) -> bytes:
    limit = sum(LIMITS.values()) + 2**16
    try:
        with open(path, "rb", opener=_open_regular) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise _broken(path, f"has {size} bytes", f"at most {limit}")
            return file.read(size)
    except FileNotFoundError as error:
        raise ArtefactError(
            f"there is no file {path}; expected a fingerprint made by Fingerprint.save: check the path"
        ) from error
    except OSError as error:
        raise ArtefactError(
            f"cannot read {path} ({error.strerror or error}); expected a fingerprint file: check its path "
            "and permissions"
        ) from error


def _open_regular(path: str, flags: int) -> int:
    # a pipe would block for ever
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor


def _members(path: str, raw: bytes) -> dict[str, bytes]:
    if raw and not raw.startswith(b"PK") and not zipfile.is_zipfile(io.BytesIO(raw)):
        raise ArtefactError(
            f"{path} is no fingerprint; expected a file made by Fingerprint.save: check the path, and that the "
            "fingerprint is named before the suspect"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if names != [DOCUMENT, TENSORS]:
                raise _broken(path, f"has the members {', '.join(names) or 'none'}", f"exactly {DOCUMENT}, {TENSORS}")
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                    raise _broken(path, f"has a compressed member {entry.filename}", "stored members")
                if entry.file_size > LIMITS[entry.filename]:
                    limit = LIMITS[entry.filename]
                    raise _broken(path, f"has {entry.file_size} bytes in {entry.filename}", f"at most {limit}")
            return {entry.filename: archive.read(entry) for entry in entries}
    except ArtefactError:
        raise
    # zipfile raises all of these on damaged headers: wrong signatures, sizes, encodings, encryption flags
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, OSError, OverflowError) as error:
        raise _broken(path, f"is no intact zip file ({error})", "a fingerprint made by Fingerprint.save") from error


def _parse_document(path: str, text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
        _check_values(document)
        canonical = canonical_json(document)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"has an unreadable {DOCUMENT} ({error})", "canonical JSON") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _broken(path, f"has a {DOCUMENT} of another kind", f'an object with "format": "{FORMAT}"')
    version = document.get("format_version")
    if type(version) is not int or version not in READABLE_VERSIONS:
        raise ArtefactError(
            f"{path} has format version {version!r}, expected {FORMAT_VERSION} or less; read it with the "
            "version of metav that wrote it, or upgrade metav"
        )
    if canonical != text:
        raise _broken(path, f"was altered: its {DOCUMENT} is not canonical JSON")
    return document


def _check_values(document: object) -> None:
    """Raise ValueError for values that a part of metav would fail on later: too many, too deep, or no Unicode."""
    level, depth, count = [document], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > DEEPEST or count > MOST_VALUES:
            raise ValueError(f"more than {DEEPEST} levels of tables and lists, or {MOST_VALUES} values")
        tables = [entry for entry in level if isinstance(entry, dict)]
        lists = [entry for entry in level if isinstance(entry, list | tuple)]
        for text in (*level, *(key for table in tables for key in table)):
            if isinstance(text, str):
                text.encode()  # a surrogate alone has no bytes
        level = [value for table in tables for value in table.values()] + [value for each in lists for value in each]


def _parse_tensors(path: str, content: bytes) -> dict[str, NDArray[Any]]:
    try:
        return unpack(content)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"has unreadable tensors ({error})", f"safetensors in {TENSORS}") from error


def _check_commitment(path: str, document: Mapping[str, Any], tensors: Tensors) -> None:
    salt, stored = document.get("salt"), document.get("commitment")
    if not is_digest(salt) or not is_digest(stored):
        raise _broken(path, "has no valid salt and commitment", "64 hexadecimal digits each")
    found = commitment_of(str(salt), document, tensors)
    if found != stored:
        raise _broken(path, f"was altered: its content has the commitment {found}", f"{stored}, which it states")


def is_digest(value: object) -> bool:
    """Return whether a value is a SHA-256 in lower-case hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _broken(path: str, found: str, expected: str | None = None) -> ArtefactError:
    middle = f", expected {expected}" if expected else ""
    return ArtefactError(f"{path} {found}{middle}; {REMEDY}")
