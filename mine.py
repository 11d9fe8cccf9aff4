"""mine.py: see python mine.py --help"""

from colmrl.cli.mine import mine_app

if __name__ == "__main__":
    mine_app()
