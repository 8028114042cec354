"""Is this machine fit to run the pipelines? One check after another, each tried for real where that is possible."""

import importlib
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from PIL import Image, features

from pipelines.devices import num_cpu_cores
from pipelines.errors import PipelineError
from pipelines.provenance import installed_versions
from pipelines.storage import Storage, open_storage

#: Pillow's format, its feature, and whether the project promises to read it.
_FORMATS = (
    ("JPEG", "jpg", True),
    ("PNG", "zlib", True),
    ("WEBP", "webp", True),
    ("TIFF", "libtiff", True),
    ("AVIF", "avif", True),
    ("JPEG2000", "jpg_2000", False),
)
_LEAST_FREE_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What one check found.

    Attributes:
        name: What was looked at.
        status: `ok`; `note`: works, but know it; `failed`: something will not work.
        found: One line: what is there, or what is wrong and the remedy.
    """

    name: str
    status: Literal["ok", "note", "failed"]
    found: str


def machine_checks(cache: Path) -> Iterator[Check]:
    """Everything about this machine; yields as it goes, since some checks take seconds.

    Args:
        cache: Folder that assets are fetched to.
    """
    yield Check(name="versions", status="ok", found=", ".join(f"{n} {v}" for n, v in installed_versions().items()))
    yield _cpus()
    yield from _decoders()
    yield _gpus()
    for name, module in (("ray", "ray.data"), ("apache-beam", "apache_beam")):
        yield _engine(name, module)
    yield from _models()
    yield _writable("cache folder", cache)
    yield _writable("temporary folder", Path(tempfile.gettempdir()))


def bucket_check(url: str) -> Check:
    """Try in a bucket, or a folder, what commits rest on, with a small object that is removed again.

    Args:
        url: Where a run is to be written.
    """
    path = f".spae-doctor-{uuid.uuid4().hex}"
    try:
        storage = open_storage(url)
        storage.prepare()  # Before the object, so that a place that cannot be used says so and not its clean-up.
        try:
            return Check(name=url, status="ok", found=_try_preconditions(storage, path))
        finally:
            storage.delete(path)
            storage.clean()
    except (PipelineError, OSError) as error:
        return Check(name=url, status="failed", found=str(error))


def _try_preconditions(storage: Storage, path: str) -> str:
    """Create, create again, replace an older version; what was found.

    Raises:
        OSError: If the store lets a second writer through, or cannot be reached.
    """
    if not storage.create(path, b"first"):
        raise OSError("expected to create a new object, got the answer that it exists. Check the bucket's rules.")
    version = storage.version(path)
    if storage.create(path, b"second") or storage.read_bytes(path) != b"first":
        raise OSError(
            "expected the second writer of an object to be refused, got it overwritten. Do not write runs here."
        )
    if not storage.replace_version(path, b"third", version):
        raise OSError("expected to replace the version just seen, got a refusal. Check the bucket's rules.")
    if storage.replace_version(path, b"fourth", version) or storage.read_bytes(path) != b"third":
        raise OSError("expected an old version to be refused, got it overwritten. Do not use --extend here.")
    return "reads, writes, deletes; create-if-absent and replace-if-unchanged hold"


def _cpus() -> Check:
    threads = os.environ.get("OMP_NUM_THREADS")
    return Check(
        name="CPUs",
        status="ok",
        found=f"{num_cpu_cores()} of {os.cpu_count()} usable, OMP_NUM_THREADS {threads or 'not set'}",
    )


def _decoders() -> Iterator[Check]:
    for name, feature, is_promised in _FORMATS:
        version = features.version(feature) if features.check(feature) else None
        try:
            sink = io.BytesIO()
            Image.new("RGB", (16, 16), "red").save(sink, format=name)
            sink.seek(0)
            with Image.open(sink) as again:
                again.load()
        except (OSError, KeyError, ValueError) as error:
            status: Literal["note", "failed"] = "failed" if is_promised else "note"
            yield Check(
                name=f"decoder {name}",
                status=status,
                found=f"Pillow cannot read it ({error}); such pictures go to the quarantine. Install Pillow's wheel.",
            )
        else:
            yield Check(name=f"decoder {name}", status="ok", found=f"Pillow, {feature} {version or ''}".rstrip())


def _gpus() -> Check:
    import torch

    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = f"CUDA_VISIBLE_DEVICES {'not set' if wanted is None else wanted or 'empty'}"
    if not torch.cuda.is_available():
        if wanted:
            return Check(
                name="GPUs",
                status="failed",
                found=f"none that torch {torch.__version__} can use, though {shown}. Check the driver, or unset it.",
            )
        return Check(name="GPUs", status="note", found=f"none, models run on the CPU; {shown}")
    lines = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        lines.append(f"{torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
    return Check(name="GPUs", status="ok", found=f"{'; '.join(lines)}; {shown}")


def _engine(name: str, module: str) -> Check:
    try:
        version = metadata.version(name)
        importlib.import_module(module)
    except (ImportError, metadata.PackageNotFoundError) as error:
        return Check(name=name, status="failed", found=f"cannot be imported: {error}. Install the project again.")
    return Check(name=name, status="ok", found=version)


def _models() -> Iterator[Check]:
    from spae_core.errors import ModelError
    from spae_core.model_files import pretrained_names
    from spae_core.tokenizer import SpaeTokenizer

    names = pretrained_names()
    if not names:
        yield Check(name="models", status="note", found="none come along; name a folder with --model")
    for name in names:
        try:
            model = SpaeTokenizer.from_pretrained(name)
        except ModelError as error:
            yield Check(name=f"model {name}", status="failed", found=str(error))
        else:
            yield Check(
                name=f"model {name}",
                status="ok",
                found=f"{model.codebook.codebook_size} words, {model.config.image_size_px} px, "
                f"sha256 {model.model_sha256[:12]}…",
            )


def _writable(name: str, folder: Path) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except OSError as error:
        remedy = "Give another one (TMPDIR, SPAE_CACHE)."
        return Check(name=name, status="failed", found=f"{folder}: {error.strerror}. {remedy}")
    status: Literal["ok", "note"] = "ok" if free >= _LEAST_FREE_BYTES else "note"
    return Check(name=name, status=status, found=f"{folder}, {free / 1e9:.1f} GB free")
