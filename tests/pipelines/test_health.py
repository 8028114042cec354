import uuid

import pytest

from pipelines.health import bucket_check, machine_checks
from pipelines.storage import LocalStorage, open_storage


@pytest.fixture
def leaky(monkeypatch):
    """A disk that lets the second writer of a file through."""

    def create(self, path: str, data: bytes) -> bool:
        self.replace(path, data)
        return True

    monkeypatch.setattr(LocalStorage, "create", create)


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_place_that_holds_its_promises_is_fine_and_left_as_it_was(tmp_path, kind):
    url = str(tmp_path / "runs") if kind == "local" else f"memory://{uuid.uuid4().hex}/runs"
    check = bucket_check(url)
    assert (check.status, check.name) == ("ok", url)
    assert open_storage(url).names() == []


@pytest.mark.usefixtures("leaky")
def test_a_place_where_writers_overwrite_each_other_fails(tmp_path):
    check = bucket_check(str(tmp_path))
    assert check.status == "failed"
    assert "expected the second writer of an object to be refused" in check.found
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_used_fails_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    assert bucket_check("ftp://host/x").status == "failed"
    assert "expected a folder that can be written to" in bucket_check(str(tmp_path / "file")).found


@pytest.mark.slow
def test_the_machine_of_the_tests_is_fit_and_every_part_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    checks = {check.name: check for check in machine_checks(tmp_path / "cache")}
    assert {"versions", "CPUs", "GPUs", "ray", "apache-beam", "cache folder", "temporary folder"} <= checks.keys()
    assert checks["decoder AVIF"].status == "ok"
    assert {check.status for check in checks.values()} <= {"ok", "note"}
    assert "CUDA_VISIBLE_DEVICES empty" in checks["GPUs"].found
