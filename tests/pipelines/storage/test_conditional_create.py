import errno

import pytest

from pipelines.storage import conditional_create
from pipelines.storage.conditional_create import create_object


class S3Error(Exception):
    """As botocore's ClientError: the store's answer in `response`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


class Store:
    """A driver whose uploads end as listed: an error, or None for success."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)

    def pipe_file(self, path: str, data: bytes, mode: str) -> None:
        assert mode == "create"
        if (answer := self.answers.pop(0)) is not None:
            raise answer


def translated(code: str) -> OSError:
    """What s3fs makes of an answer it has no word for."""
    error = OSError(errno.EIO, code)
    error.__cause__ = S3Error(code)
    return error


@pytest.mark.parametrize(
    "answer", [FileExistsError(), translated("PreconditionFailed"), S3Error("412")], ids=["driver", "cause", "bare"]
)
def test_an_object_that_is_there_is_a_lost_race_in_any_words(answer):
    assert create_object(Store(answer), "b/x", b"") is False


@pytest.mark.parametrize(("last", "result"), [(None, True), (FileExistsError(), False)])
def test_a_contested_key_is_asked_for_again(monkeypatch, last, result):
    monkeypatch.setattr(conditional_create, "_FIRST_PAUSE_SECONDS", 0.0)
    store = Store(translated("ConditionalRequestConflict"), translated("409"), last)
    assert create_object(store, "b/x", b"") is result
    assert store.answers == []


def test_a_key_that_stays_contested_and_any_other_answer_are_errors(monkeypatch):
    monkeypatch.setattr(conditional_create, "_FIRST_PAUSE_SECONDS", 0.0)
    with pytest.raises(OSError, match="409"):
        create_object(Store(*(translated("409") for _ in range(6))), "b/x", b"")
    with pytest.raises(S3Error, match="AccessDenied"):
        create_object(Store(S3Error("AccessDenied")), "b/x", b"")
