"""Hard negatives: search with the model, then keep what is close but, as far as can be told, not an answer."""

from colmrl.mining.report import read_report, report_path, step_lines
from colmrl.mining.run import mine

__all__ = ["mine", "read_report", "report_path", "step_lines"]
