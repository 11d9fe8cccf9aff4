"""The command line. Each stage is a module with a typer app; heavy libraries are imported inside the commands."""
