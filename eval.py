"""eval.py: see python eval.py --help"""

from colmrl.cli.evaluate import eval_app

if __name__ == "__main__":
    eval_app()
