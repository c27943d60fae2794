"""A parser for command lines whose error is what one sees, and types for argparse's `type=`: the value, or an error that
says what was expected."""

import math
import os
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from pathlib import Path

from ._near import did_you_mean


class Parser(ArgumentParser):
    """One that says what is wrong, without all options before it, and whose description stands as it was written."""

    def __init__(self, *args, **others):
        super().__init__(*args, formatter_class=RawDescriptionHelpFormatter, **others)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n(all options: {self.prog} --help)\n")


def one_of(names):
    """A type for one of these names."""

    def parse(text):
        if text in names:
            return text
        raise ArgumentTypeError(f"{text!r} is unknown: {did_you_mean(text, names)}choose one of {', '.join(names)}")

    return parse


def whole_number(least):
    """A type for whole numbers from `least` up."""

    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least:
            raise ArgumentTypeError(f"{text!r} is no whole number from {least} up")
        return value

    return parse


def positive(text):
    """A finite number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf):
        raise ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def device(text):
    """cpu, cuda or cuda:N, as a torch.device that can be used here."""
    import torch  # not above: the doctor asks whether there is one

    try:
        value = torch.device(text)
    except RuntimeError:
        value = None
    if value is None or value.type not in ("cpu", "cuda"):
        raise ArgumentTypeError(f"{text!r} is no device convlab has layers for: cpu, cuda or cuda:N")
    if value.type == "cuda":
        count = torch.cuda.device_count()
        if count == 0:
            why = "this torch was built without CUDA" if torch.version.cuda is None else "torch finds no usable GPU"
            raise ArgumentTypeError(f"{text!r}: {why}; train with --device cpu")
        if (value.index or 0) >= count:
            raise ArgumentTypeError(f"{text!r}: torch finds {count} GPU(s), cuda:0 to cuda:{count - 1}")
    return value


def output_folder(text):
    """A folder that can be written to: it is made now, so that a mistake shows before the work, not after it."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentTypeError(f"{text!r} cannot be made a folder ({error})") from error
    if not os.access(path, os.W_OK):
        raise ArgumentTypeError(f"{text!r}: this folder cannot be written to")
    return path


def output_file(text):
    """The path of a file in a folder that can be written to."""
    path = Path(text)
    if path.is_dir():
        raise ArgumentTypeError(f"{text!r} is a folder, expected the name of a file")
    output_folder(path.parent)
    return path
