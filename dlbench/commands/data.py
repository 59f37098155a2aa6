"""The commands that give results to people and programs: `show`, `query`, `export`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlbench.commands.arguments import add_command, say, some_path

_EXPORTS = ("csv", "json", "mlperf", "parquet")


def add(commands: Any) -> None:
    """Add the commands to argparse's subparsers."""
    show = add_command(commands, "show", _show, "one record with everything that is known of it")
    show.add_argument("record", help="an attempt's id, or a part of it that no other has")
    show.add_argument("--format", choices=("text", "json"), default="text", help="(default: text)")
    _add_results(show)

    query = add_command(commands, "query", _query, "ask the results in SQL, by DuckDB")
    query.add_argument("sql", help="of the tables records, ceilings, all_reduces and layers")
    query.add_argument("--format", choices=("text", "csv", "json", "markdown"), default="text", help="(default: text)")
    _add_results(query)

    export = add_command(commands, "export", _export, "give all results to other programs")
    export.add_argument("sources", nargs="*", default=["results"], help="results folders, Parquet files or patterns")
    export.add_argument("--format", choices=_EXPORTS, required=True, help="mlperf describes the systems alone")
    export.add_argument("-o", "--output", type=some_path, help="the file to write (default: stdout; parquet needs one)")
    export.add_argument(
        "--public",
        action="store_true",
        help="parquet without host and user names, paths, environment and job numbers, fit to be published",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        action="append",
        metavar="SOURCE",
        help="a results folder, a Parquet file or a pattern; may be repeated (default: results)",
    )


def _show(options: argparse.Namespace) -> int:
    from dlbench.report.listings import record

    print(record.show(options.record, options.results or ["results"], options.format), end="")
    return 0


def _query(options: argparse.Namespace) -> int:
    from dlbench.report.listings.query_result import answer

    print(answer(options.sql, options.results or ["results"], options.format), end="")
    return 0


def _export(options: argparse.Namespace) -> int:
    from dlbench.errors import BadInput

    if options.public and options.format != "parquet":
        raise BadInput(f"--public is for --format parquet, not {options.format}; export that, and then from its file")
    if options.format == "parquet":
        from dlbench.results import public

        if options.output is None:
            raise BadInput("--format parquet needs -o FILE")
        count = public.write(options.sources, options.output, private=not options.public)
        say(f"{count} rows in {options.output}")
        return 0
    from dlbench.report.export import export_parts

    parts = export_parts(options.sources, options.format)
    if options.output is None:
        for part in parts:
            print(part, end="")
        return 0
    return _written(options.output, parts)


def _written(file: Path, text: Iterable[str]) -> int:
    from dlbench.atomic_file import write_atomically
    from dlbench.errors import StoreError

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)
    except OSError as error:
        raise StoreError(f"cannot write {file}: {error.strerror or error}") from error
    say(f"written: {file}")
    return 0
