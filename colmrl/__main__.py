"""python -m colmrl: the `colmrl` command."""

from colmrl.cli.main import main_app

main_app()
