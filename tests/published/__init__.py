from published.case import Case
from published.cross_sections import ADJUSTED, ASSIGNED
from published.instruments import INSTRUMENTS
from published.panels import PANELS

__all__ = ["CASES", "Case"]

CASES = (*ASSIGNED, *ADJUSTED, *INSTRUMENTS, *PANELS)
