"""Every error a user can cause or mend, with the exit code that scripts rely on.

The message says what is wrong, where, and how to mend it; the command line prints it alone, without a traceback.
"""


class CdartsError(Exception):
    """Base of all errors that end a command with a documented exit code."""

    exit_code = 1


class ConfigurationError(CdartsError):
    """A flag, a configuration file or a combination of values cannot work."""

    exit_code = 2


class GenotypeError(ConfigurationError):
    """A genotype, in any of its text forms, is malformed or does not belong to its space."""


class DataError(CdartsError):
    """The data set is missing, malformed or unfit for the task."""

    exit_code = 3


class CheckpointError(CdartsError):
    """A checkpoint or a saved model cannot be used."""

    exit_code = 4


class NonFiniteError(CdartsError):
    """A loss or a gradient became infinite or not a number; nothing was stepped."""

    exit_code = 5


class DiskError(CdartsError):
    """A file could not be written: disk full, read-only, no permission."""

    exit_code = 6


class RunInUseError(CdartsError):
    """Another process works in this run directory."""

    exit_code = 7


class ExportError(CdartsError):
    """An exported network does not compute what the network itself does, or cannot be made; nothing was written."""

    exit_code = 8
