"""Commands called as a person does, in this process."""

from typer.testing import CliRunner


def call(app, *arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(result, says):
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert says in line
