"""Whether a value looks like what its key, its label or the head of its column says."""

from __future__ import annotations

import re

from e2i.telemetry.folding import fold
from e2i.telemetry.sensitive_keys import Label, hides

_SECRETS = ("secret", "degree", "pass", "pin", "sig")
_PERSON = re.compile(r"[A-Za-z]{1,6}[-_]?[0-9]{3,16}")
_NUMBER = re.compile(r"[0-9]{6,12}")
_PERIOD = re.compile(r"(?i)(?:fy|cy|ye?|wk?|q[1-4]-?|h[12]-?|week)[-_]?(?:19|20)[0-9]{2}(?:[0-9]{2}){0,2}")
_DAY = re.compile(r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])")
_NAMES = {"person": "mrn", "people": "mrn"}
_LONGEST = 80


def is_person(value: str) -> bool:
    """`P-0017` behind the bare word `patient`; no count, no period."""
    return _PERSON.fullmatch(value) is not None and not _PERIOD.fullmatch(value)


def marker(label: Label | None, value: str) -> str | None:
    """What stands for `value`, such as `[mrn]`; None when it does not look like what `label` says."""
    if label in (None, "holder") or not value:
        return None
    if label in _SECRETS:
        return "[secret]" if hides(label, value) else None
    if value.lstrip()[:1] in ("[", "{"):
        return None
    plain = fold(value[:_LONGEST]).data.decode().strip()
    digits = "".join(char for char in plain if char.isdigit())
    is_spelled = not plain.strip("0123456789+-.() /x")
    looks = {
        "npi": plain == digits and len(digits) == 10,
        "ssn": is_spelled and len(digits) == 9,
        "phone": is_spelled and 7 <= len(digits) <= 15,
        "card": is_spelled and 13 <= len(digits) <= 19,
        "dob": len(digits) >= 4,
        "mrn": bool(digits) and " " not in plain,
        "people": is_person(plain),
        "person": is_person(plain) or (_NUMBER.fullmatch(plain) is not None and not _DAY.fullmatch(plain)),
    }
    return f"[{_NAMES.get(label, label)}]" if looks[label] else None
