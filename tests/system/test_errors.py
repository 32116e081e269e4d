"""The errors for people: one base, each also the builtin error expected there, the message as it was written."""

import pickle

import pytest

from odkit.browsing.services import AppError
from odkit.data.audit.inspection import DatasetFaultError
from odkit.data.formats.reader_base import DatasetFormatError
from odkit.data.images import ImageReadError
from odkit.detection.loading import DataWorkerError
from odkit.detection.weights import WeightsUnavailableError
from odkit.runs.worker import RunError
from odkit.system.errors import (
    FileInTheWayError,
    InputError,
    MissingFileError,
    MissingPackageError,
    OdkitError,
    OutOfRangeError,
    UnknownNameError,
    UnknownSettingError,
)

KIN = {
    InputError: ValueError,
    UnknownNameError: KeyError,
    UnknownSettingError: TypeError,
    OutOfRangeError: IndexError,
    MissingFileError: FileNotFoundError,
    FileInTheWayError: FileExistsError,
    MissingPackageError: RuntimeError,
    DatasetFormatError: ValueError,
    DatasetFaultError: ValueError,
    ImageReadError: ValueError,
    DataWorkerError: RuntimeError,
    WeightsUnavailableError: RuntimeError,
    RunError: RuntimeError,
    AppError: RuntimeError,
}


@pytest.mark.parametrize("kind", [kind for kind in KIN if kind is not DatasetFaultError])
def test_an_error_for_people_is_odkits_and_pythons_and_says_what_was_written(kind: type[Exception]) -> None:
    with pytest.raises(OdkitError) as caught:
        raise kind("no image 'a.jpg'; near it: b.jpg")
    assert isinstance(caught.value, KIN[kind])
    assert str(caught.value) == "no image 'a.jpg'; near it: b.jpg"
    # data workers send theirs to the process that asked
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_audit_s_refusal_is_one_too() -> None:
    assert issubclass(DatasetFaultError, OdkitError)
    assert issubclass(DatasetFaultError, KIN[DatasetFaultError])
