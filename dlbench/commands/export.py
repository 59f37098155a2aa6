"""`dlbench export`: export results for other programs."""

import argparse
from typing import Any

from dlbench.atomic_file import save_text
from dlbench.commands.arguments import add_command, add_flag, add_path, add_results_to_read
from dlbench.errors import BadInput
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "export", _run_export_command, "results --format csv -o results.csv")
    add_results_to_read(parser)
    parser.add_argument(
        "--format",
        choices=_EXPORT_FORMATS,
        required=True,
        help="output format; mlperf contains only system descriptions",
    )
    add_path(parser, "-o", "--output", help="output file (default: stdout; required for parquet)")
    add_flag(parser, "--public", "with --format parquet: remove host and user names, paths, environment and job ids")


_EXPORT_FORMATS = ("csv", "json", "parquet", "mlperf", "bencher", "prometheus", "junit", "mllog", "jube")


def _run_export_command(options: argparse.Namespace) -> None:
    if options.public and options.format != "parquet":
        raise BadInput(
            f"--public needs --format parquet, not {options.format}; export to Parquet first, then convert that file"
        )
    if options.format == "parquet":
        from dlbench.results import anonymization

        if options.output is None:
            raise BadInput("--format parquet needs -o FILE")
        count = anonymization.write_records(options.sources, options.output, private=not options.public)
        say(f"wrote {count} rows to {options.output}")
        return
    from dlbench.report.export import export_chunks

    parts = export_chunks(options.sources, options.format)
    if options.output is None:
        for part in parts:
            print(part, end="")
        return
    save_text(options.output, parts)
    say(f"wrote {options.output}")
