"""`python -m vizlib` is the command `vizlib`."""

from vizlib.cli import app

if __name__ == "__main__":
    app(prog_name="python -m vizlib")
