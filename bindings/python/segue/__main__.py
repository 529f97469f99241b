"""``python -m segue convert``: data files of other kinds, made sequence files."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Sequence

from . import _segue, errors
from ._convert import Converted, convert, targets_of
from ._readers import KINDS, Choice, Reader, alike, declared, kind_of

_DESCRIPTION = f"""\
Writes a sequence file, which segue.Files reads, of data files
({" ".join(KINDS)}).

A file is one sequence, whose arrays, or columns, are its features; a single
value is context. Several sequences are in a file of HDF5 with groups (one
each), of JSON lines (one a line), in a table with columns of lists (one a
row), in any table with --group-by, and in arrays with --lengths. Keys are
names of files, with what is in them: recording.h5:take7, table.parquet:12.
The array of a .npy has the name of its file; of several with different names,
which are a sequence each, it is called x, or as --name says.
"""


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _dtype(text: str) -> tuple[str, str]:
    name, _, dtype = text.rpartition("=")
    if dtype not in _segue.DTYPES or dtype == "bfloat16":
        raise argparse.ArgumentTypeError(f"{dtype!r} is none of {', '.join(_segue.DTYPES)}")
    return name, dtype


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segue convert",
        usage="segue convert INPUT... -o OUT.segue [OPTION]...",
        description=_DESCRIPTION,
        epilog="Exit status: 0 fine, 1 something is wrong (a message says what), 2 wrong\nusage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="a data file")
    add("-o", "--output", required=True, metavar="OUT", help="the sequence file to write")
    add("--key", metavar="NAME", help="the value that is a sequence's key")
    add(
        "--name",
        metavar="NAME",
        help="what the array of each .npy is called; else as its file, or x if they differ",
    )
    add(
        "--group-by",
        metavar="COLUMN",
        help="a run of equal values there is a sequence, and its key",
    )
    add(
        "--lengths",
        metavar="NAME|FILE",
        help="steps of each sequence in arrays of all of them: an array of the inputs, or a .npy",
    )
    for place, what in (
        ("sequences", "these alone have a value a step"),
        ("context", "these have one value a sequence"),
        ("states", "these are the states of first segments"),
        ("drop", "leave these out"),
    ):
        add(f"--{place}", type=_words, default=[], metavar="A,B", help=what)
    add(
        "--dtype",
        type=_dtype,
        action="append",
        default=[],
        metavar="[NAME=]DTYPE",
        help="dtype of a feature, or of all of its kind; values that do not fit are an error",
    )
    add(
        "--shards", type=int, default=1, metavar="N", help="write N files, a sequence each by turns"
    )
    add("--force", action="store_true", help="replace OUT")
    return parser


def _write(options: argparse.Namespace, reader: Reader) -> Converted:
    items = iter(reader)
    first = next(items, None)
    if first is None:
        raise errors.ArgumentError(f"{options.inputs[0]}: there is no sequence in it")
    done = convert(
        itertools.chain([first], alike(first, items)),
        options.output,
        shards=options.shards,
        force=options.force,
        **declared(first),
    )
    for name in reader.left_out.missed:
        print(f"segue: --drop: there is no {name!r} in what was read", file=sys.stderr)
    return done


def _name_of_arrays(options: argparse.Namespace) -> str | None:
    """What the array of each .npy is called, all alike; None: as its file is."""
    stems = {
        os.path.splitext(os.path.basename(path))[0]
        for path in options.inputs
        if kind_of(path) == "npy"
    }
    name: str | None = options.name
    if name is not None:
        if not name or ":" in name:
            raise errors.ArgumentError(
                f"--name: {name!r} is not a name (non-empty, without ':' and NUL)"
            )
        if not stems:
            raise errors.ArgumentError(
                "--name: none of the files is a .npy: arrays and columns of others have names"
            )
    elif len(stems) > 1:
        name = "x"
        print(
            "segue: each .npy is a sequence, and their arrays are the feature 'x': --name calls it "
            "otherwise, and with --lengths each is a feature of its own",
            file=sys.stderr,
        )
    return name


def _convert(options: argparse.Namespace) -> Converted:
    targets = targets_of(options.output, options.shards)
    for path in options.inputs:
        kind_of(path)
        if any(os.path.exists(to) and os.path.samefile(path, to) for to in targets):
            raise errors.ArgumentError(f"{path} is what is to be read: give -o another name")
    choice = Choice(
        key=options.key,
        name=None if options.lengths is not None else _name_of_arrays(options),
        group_by=options.group_by,
        lengths=options.lengths,
        sequences=options.sequences,
        context=options.context,
        states=options.states,
        drop=options.drop,
        dtypes=dict(options.dtype),
    )
    reader = Reader(options.inputs, choice)
    # Nothing is read for what is not going to be written.
    for target in targets:
        if os.path.lexists(target) and not options.force:
            raise errors.ArgumentError(f"{target} is there already: --force replaces it")
    return _write(options, reader)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] != ["convert"]:
        print("Usage: python -m segue convert INPUT... -o OUT.segue [OPTION]...", file=sys.stderr)
        return 2
    options = _parser().parse_args(words[1:])
    for one, other in (("group_by", "lengths"), ("name", "lengths")):
        if getattr(options, one) is not None and getattr(options, other) is not None:
            print(f"segue convert: give --{one.replace('_', '-')} or --{other}", file=sys.stderr)
            return 2
    try:
        print(repr(_convert(options))[len("<segue.Converted: ") : -1])
    except (errors.Error, OSError) as error:
        print(f"segue: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("segue: interrupted: nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
