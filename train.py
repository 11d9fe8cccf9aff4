"""train.py: see python train.py --help"""

from colmrl.cli.train import train_app

if __name__ == "__main__":
    train_app()
