"""Look at data before training: counts, lengths, pictures and what they cost, duplicates, leakage, a contact sheet.

One pass over the records of each data set; kept of a record are its id and numbers.
"""

from colmrl.checking.findings import Findings
from colmrl.checking.run import check_data

__all__ = ["Findings", "check_data"]
