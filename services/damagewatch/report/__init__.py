"""The evidence page: one file that shows an investigator what was found, side by side."""

from damagewatch.report.page import write_report

__all__ = ["write_report"]
