"""What ends a training script with one line instead of a traceback."""


class TrainingError(RuntimeError):
    """Something the user can put right; the message says what was found, where, and what to do."""


class DataError(TrainingError):
    """The data cannot be had."""


class CheckpointError(TrainingError):
    """A file is not the checkpoint it should be, or not this run's."""


def one_line(error):
    """Another library's error, to be quoted."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
