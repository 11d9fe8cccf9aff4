"""encode.py: see python encode.py --help"""

from colmrl.cli.encode import encode_app

if __name__ == "__main__":
    encode_app()
