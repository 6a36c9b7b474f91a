"""Error texts for names that do not exist."""

from scd.errors import DataError, UsageError, unknown


def test_the_nearest_name_and_all_names_are_given():
    error = unknown("tier", "cpuu", ["smoke", "gpu", "cpu"])
    assert isinstance(error, UsageError)
    assert str(error) == "unknown tier 'cpuu'; did you mean 'cpu'? valid: cpu, gpu, smoke"


def test_without_a_near_name_there_is_no_guess():
    assert str(unknown("arm", "xyz", ["moco"])) == "unknown arm 'xyz'; valid: moco"


def test_data_errors_are_usage_errors():
    assert issubclass(DataError, UsageError)
