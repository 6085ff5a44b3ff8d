"""``latentwire``: the commands, and how their errors become one line and an exit code.

Exit codes: 0 ok, 1 failed, 2 usage, 3 a check failed, 75 stopped early and can be resumed, 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
from typing import Any

import typer
from typer.exceptions import TyperException

from latentwire.cli import (
    ablate,
    bench,
    bridges,
    cache,
    capacity,
    compare,
    demo,
    evaluate,
    experiments,
    explain,
    fetch,
    limits,
    methods,
    nano,
    plot,
    preflight,
    pretrain,
    recall,
    send,
    settings,
    slurm,
    table,
    tasks,
    train,
)
from latentwire.errors import LatentWireError

app = typer.Typer(
    name="latentwire",
    help="Two language models of different families talk without writing text.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("pretrain-bridge")(pretrain.pretrain_bridge)
app.command("ablate")(ablate.ablate)
app.command("eval")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("bench")(bench.bench)
app.command("capacity")(capacity.capacity)
app.command("recall")(recall.recall)
app.command("explain")(explain.explain)
app.command("preflight")(preflight.preflight)
app.command("bridges")(bridges.bridges)
app.command("methods")(methods.methods)
app.command("settings")(settings.settings)
app.command("table")(table.table)
app.command("send")(send.send)
app.command("fetch")(fetch.fetch)
app.command("demo")(demo.demo)
app.add_typer(cache.app, name="cache")
app.add_typer(experiments.app, name="experiments")
app.add_typer(limits.app, name="limits")
app.add_typer(nano.app, name="nano")
app.add_typer(plot.app, name="plot")
app.add_typer(slurm.app, name="slurm")
app.add_typer(tasks.app, name="tasks")


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Options that belong to no command."""
    if version:
        from latentwire import __version__

        print(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    return guarded(lambda: typer.main.get_command(app).main(args=arguments, prog_name="latentwire", standalone_mode=False))


def guarded(run: Any) -> int:
    """Runs a command; known errors become one line on stderr and their exit code, never a traceback."""
    try:
        result = run()
    except LatentWireError as error:
        return _fail(str(error), error.exit_code)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        if not error.format_message():  # a group without a command has shown its help
            return error.exit_code
        hint = f"; see `{context.command_path} --help`" if context else ""
        return _fail(error.format_message().rstrip(".") + hint, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return _fail(f"no file has so long a name: {str(error.filename)[:60]!r}…; give a name or a path", 2)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        return _fail(f"{error.strerror}: {error.filename or 'while writing'}; free space or choose another folder", 1)
    except RuntimeError as error:
        if "out of memory" not in str(error).lower():
            raise
        return _fail(f"out of memory: {str(error).splitlines()[0]}; lower training.batch_size or use a smaller model", 1)
    return int(result or 0)


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def entry_point() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry_point()
