"""beartype as PEP 484 reads numbers: an int is a float."""

from beartype import BeartypeConf, beartype

tower = beartype(conf=BeartypeConf(is_pep484_tower=True))
