"""Whether a candidate really is an identifier: check digits, neighbours, labels.

Every check gets folded text (ASCII bytes) and a match of its pattern, and gives the part to replace, or None.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from e2i.telemetry.labelled import is_person
from e2i.telemetry.sensitive_keys import words_of

Part = tuple[int, int]
Check = Callable[[bytes, Any], Part | None]

EMAIL = r"[A-Za-z0-9_.+%'~&-]+(?:@|%40)(?:[A-Za-z0-9_-]{1,63}\.){1,8}[A-Za-z]{2,24}"
EMAIL_IN_WORDS = (
    r"(?i)[a-z0-9_.+-]+ ?[\[({] ?at ?[\])}] ?[a-z0-9-]+(?: ?(?:[\[({] ?dot ?[\])}]|\.) ?[a-z0-9-]+){1,6}"
)  # fmt: skip
EMAIL_PLAIN_WORDS = (
    r"(?i)[a-z0-9_.+-]+ at [a-z0-9-]+(?: dot [a-z0-9-]+){0,3} dot (?:com|org|net|edu|gov|mil|io|co|info|biz"
    r"|us|eu|uk|ca|au|de|ch|at|fr|it|es|nl)\b"
)
EMAIL_QUOTED = r"""\\{0,7}"[^"\\@\x1e\r\n]{1,64}\\{0,7}"@(?:[A-Za-z0-9_-]{1,63}\.){1,8}[A-Za-z]{2,24}"""
PHONE = (
    r"(?i)(?:\+?0{0,2}1[-. ]{1,2})?(?:\([0-9]{3}\)[-. /]{0,3}[0-9]{3}[-. ]{0,3}[0-9]{4}|[0-9]{3}[-. /]{1,3}[0-9]{3}[-. ]{1,3}[0-9]{4}"
    r"|[0-9]{3}-[0-9]{7}|[0-9]{10})(?:[ ,]{0,2}(?:x|ext\.?) ?[0-9]{1,6})?"
)
PHONE_ABROAD = r"\+ ?[1-9][0-9]{0,14}(?:[ ./()-]{1,3}[0-9]{1,12}){0,7}"
MEDICARE = r"[1-9][AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9][0-9]-[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9][0-9]-[AC-HJKMNP-RT-Y]{2}[0-9]{2}"
SCHEME = r"(?i)(bearer|basic)\s{1,3}([A-Za-z0-9+/_~.=-]+)"
PRIVATE_KEY = r"(?s)-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?(?:-----.*?-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----|.*)"
ADDRESS = r"""://([^\s/?#@:"'<>]*):([^\s"'<>]+)@"""
ADDRESS_ORACLE = r"""thin:([^\s/@]*)/([^\s@"'<>]+)@"""
CURL = r"""(?:curl\b[^\r\n]{0,400}?\s-u|--(?:proxy-)?user)[\s="',]{0,4}([^\s:"',]+):([^\s"'<>]+)"""
ASSIGNED = r"""[:=]["'\\ ]{0,5}([A-Za-z0-9+/_=-]{32}[A-Za-z0-9+/_=-]*)"""

MARKER = re.compile(rb"\[(?:email|phone|ssn|npi|mrn|dob|card|secret|not logged)\]|.{0,3}\[truncated ")
_MEASURE = re.compile(rb"([A-Za-z_][A-Za-z0-9_.]{0,40})[\"'\\]*\s{0,2}[:=]?\s{0,2}[\"'\\]*$")
_UNIT = re.compile(
    rb"\s?(?:%|(?:bytes?|[kmg]i?b|[num]?s|sec|seconds|rows?|usd|eur|dollars?|[tn]b?rx|units?|scripts?|tokens?|prescriptions)\b)",
    re.IGNORECASE,
)


_NEXT = re.compile(
    rb"(?i)(?:\s{0,2}[,;/|&]\s{0,2}(?:and\s|or\s)?|\s(?:and|or)\s)([a-z]{0,3}[-#]?\+?\(?[0-9](?:[-. ()]{0,2}[0-9]){0,15})(?![\w])"
)
_NEXT_QUOTED = re.compile(rb"""\\{0,8}["']\s{0,4},\s{0,4}b?\\{0,8}["']([^"'\\\s]{1,64})(?=\\{0,8}["']\s{0,2}(?:[,)\]}]|$))""")
_DIGITS, _LETTERS = re.compile(rb"[0-9]+"), re.compile(rb"[A-Za-z]+")
_DAY = re.compile(rb"(?:19|20)[0-9]{2}-?[0-9]{2}-?[0-9]{2}$")
_PEOPLE = re.compile(rb"(?i)\s(?:hcps?|patients|people|doctors|physicians|prescribers|calls|members|weeks|targets)\b")


def words(text: str) -> frozenset[bytes]:
    """Of a list in one string."""
    return frozenset(text.encode().split())


_MEASURES = words(
    "time timestamp ts epoch seed hash bytes size count counts rows volume total sum amount sales revenue units trx nrx "
    "nbrx ns us ms seconds started ended start end created updated finished observed offset port pid usd cost budget"
)
_DATA_TYPES = re.compile(rb"(?i)^(?:u?int|float|decimal|utf|varchar|str|string|bool)[0-9]{0,3}$")
_RECENT = re.compile(rb"1[678][0-9]{8}")
"""seconds since 1970, from 2020 to 2030: programs put them into names"""
_FILES = (b".png", b".jpg", b".jpeg", b".gif", b".svg", b".webp", b".json", b".yaml", b".csv", b".parquet")


_DOMAIN_BEFORE_ENDING = re.compile(
    rb"(?i)\.(?:com|org|net|edu|gov|mil|io|co|info|biz|us|eu|uk|ca|au|de|ch|at|fr|it|es|nl|example)\.[a-z]+$"
)


ESCAPES = (b"\\n", b"\\r", b"\\t")
"""before a word in JSON that was cut: the letter is none of the word"""
_SIGNS = (b"-", b"+")


def _left(data: bytes, at: int) -> bytes:
    return data[at - 1 : at]


def _stands_alone(data: bytes, start: int, end: int, *, is_grouped: bool = False) -> bool:
    """No digit, letter or underscore touches it, and it is no part of a decimal number or of a longer dashed number.

    A number in groups (`scan_617-555-0198.pdf`) may touch an underscore; solid digits beside one are an identifier of ours.
    """
    before, after = data[max(0, start - 2) : start], data[end : end + 2]
    if before[-1:].isalnum() or after[:1].isalnum() or (not is_grouped and b"_" in (before[-1:], after[:1])):
        return False
    if before[:1].isdigit() and before[-1:] in (b".", b"-"):
        return False
    return not (after[:1] in (b".", b"-") and after[1:].isdigit())


def _is_counted(data: bytes, start: int, end: int) -> bool:
    """It is an amount, a time or a count by the word before it or the unit after it."""
    if _UNIT.match(data, end) or data[max(0, start - 2) : start].strip() == b"$":
        return True
    word = _MEASURE.search(data[max(0, start - 48) : start])
    return word is not None and any(part.encode() in _MEASURES for part in words_of(word.group(1).decode()))


def _luhn(digits: bytes) -> bool:
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = digit - 48
        if index % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def is_npi(digits: bytes) -> bool:
    """Ten digits, the first 1 or 2, whose check digit is right with the prefix 80840 (CMS, ISO 7812)."""
    return len(digits) == 10 and digits[:1] in (b"1", b"2") and _luhn(b"80840" + digits)


def _is_card(digits: bytes) -> bool:
    size, two, four = len(digits), int(digits[:2]), int(digits[:4])
    known = (
        (digits[:1] == b"4" and size in (13, 16, 19))
        or (size == 16 and (51 <= two <= 55 or 2221 <= four <= 2720))
        or (size == 15 and two in (34, 37))
        or (size == 14 and (two in (36, 38, 39) or 300 <= four // 10 <= 305))
        or (16 <= size <= 19 and (four == 6011 or two in (62, 65) or 644 <= four // 10 <= 649 or 3528 <= four <= 3589))
        or (13 <= size <= 19 and two in (50, 56, 57, 58, 63, 67, 68, 69))
    )
    return known and _luhn(digits)


def _digits(value: bytes) -> bytes:
    return bytes(c for c in value if 48 <= c <= 57)


def whole(_data: bytes, match: Any) -> Part:
    """The pattern says it all."""
    return match.span()  # type: ignore[no-any-return]


def alone(data: bytes, match: Any) -> Part | None:
    """The pattern says it all, unless it is a piece of something longer."""
    start, end = match.span()
    return (start, end) if _stands_alone(data, start, end) else None


def email(_data: bytes, match: Any) -> Part | None:
    """Not `image@2x.png`."""
    start, end = match.span()
    value = match.group()
    if value.lower().endswith(_FILES) and not _DOMAIN_BEFORE_ENDING.search(value):
        return None
    return start + len(value) - len(value.lstrip(b"'.&%-")), end


def phone(data: bytes, match: Any) -> Part | None:
    """Three groups with the same separator; spaces only where no other numbers stand beside it."""
    start, end = match.span()
    value = match.group()
    if not _stands_alone(data, start + value.startswith(b"("), end, is_grouped=not value.isdigit()):
        return None
    if value.isdigit():
        alone_in_value = (start == 0 or data[start - 1] == 0x1E) and (end == len(data) or data[end] == 0x1E)
        return (start, end) if alone_in_value and len(value) == 10 and value[0] > 49 and value[3] > 49 else None
    body = value.lstrip(b"+").lstrip(b"0")
    has_prefix = body[:1] == b"1" and body[1:2] in (b"-", b".", b" ")
    groups = re.findall(rb"[^0-9()]+", body[1:].lstrip(b"-. ") if has_prefix else body)
    if b"(" not in value and len(groups) >= 2 and (b"." in groups[0]) != (b"." in groups[1]):
        return None
    if has_prefix or b"(" in value or any(group.strip() for group in groups[:2]):
        return start, end
    area, exchange = value[0], value[4:].lstrip()[0]
    return (start, end) if area > 49 and exchange > 49 and not _has_number_beside(data, start, end) else None


def _has_number_beside(data: bytes, start: int, end: int) -> bool:
    before, after = data[max(0, start - 3) : start], data[end : end + 3]
    return bool(re.search(rb"[0-9][ ,]{1,2}$", before) or re.match(rb"[ ,]{1,2}[0-9]", after))


def phone_abroad(data: bytes, match: Any) -> Part | None:
    """A plus and 8 to 15 digits that are no signed number."""
    start, end = match.span()
    if _left(data, start).isalnum() or _left(data, start) in (b")", b"_") or data[end : end + 1].isalnum():
        return None
    value = match.group()
    digits = _digits(value)
    groups = re.findall(rb"[0-9]+", value)
    gaps = re.findall(rb"[^0-9]+", value[1:].lstrip())
    if not 8 <= len(digits) <= 15:
        return None
    if len(groups) == 1:
        return (start, end) if len(digits) >= 10 and not _is_counted(data, start, end) else None
    if any(gap.strip(b" ") == b"." for gap in gaps) and not (len(gaps) >= 2 and set(gaps) == {b"."}):
        return None
    is_grouped_number = all(gap == b" " for gap in gaps) and all(len(group) == 3 for group in groups[1:]) and len(digits) < 11
    return None if is_grouped_number else (start, end)


def _follows_label(data: bytes, match: Any) -> bool:
    at = match.start(1)
    is_hump = _left(data, at).islower() and data[at : at + 1].isupper()  # `homePhone`
    return is_hump or not _left(data, at).isalpha() or data[max(0, at - 2) : at] in ESCAPES


def _with_alike(data: bytes, start: int, end: int) -> Part:
    """`MRNs: 48291301, 48291302`: what follows and looks the same belongs to the label too."""
    size = len(_digits(data[start:end]))
    while (more := _NEXT.match(data, end)) is not None:
        digits = len(_digits(more.group(1)))
        if digits < 5 or abs(digits - size) > 1 or _DAY.match(more.group(1)) or _is_counted(data, more.start(1), more.end(1)):
            break
        end = more.end(1)
    return start, _last_quoted(data, start, end)


def _last_quoted(data: bytes, start: int, end: int) -> int:
    """`in ('P-0017', 'P-0018')`: the end of the last one in quotes that is spelled like the first."""
    shape = _shape(data[start:end])
    while (more := _NEXT_QUOTED.match(data, end)) is not None and _shape(more.group(1)) == shape:
        end = more.end(1)
    return end


def _shape(value: bytes) -> bytes:
    return _DIGITS.sub(b"9", _LETTERS.sub(b"a", value))


def _in_list(data: bytes, match: Any) -> Part | None:
    """`npis: [1234567893, 1679576722]`: everything between the brackets."""
    start = match.start(3) + 1
    end = data.find(b"]", start, start + 4096)
    end = min(len(data), start + 4096) if end < 0 else end
    content = data[start:end]
    return (start, end) if any(48 <= c <= 57 for c in content) and not MARKER.match(data, start) else None


def digits_labelled(data: bytes, match: Any) -> Part | None:
    """All digits that the label promises."""
    if not _follows_label(data, match):
        return None
    if match.group(3)[:1] == b"[":
        return _in_list(data, match)
    start, end = match.span(3)
    return None if data[end : end + 1].isdigit() else _with_alike(data, start, end)


def phone_labelled(data: bytes, match: Any) -> Part | None:
    """Seven to fifteen digits after a word for a telephone."""
    if not _follows_label(data, match):
        return None
    start, end = match.span(3)
    if match.group(3)[:1] == b"[":
        return _in_list(data, match)
    if data[end : end + 1].isalnum() or re.match(rb"\d{4}-\d{2}-\d{2}", match.group(3)):
        return None
    return None if data[end : end + 1] == b"." and data[end + 1 : end + 2].isdigit() else _with_alike(data, start, end)


def phone_called(data: bytes, match: Any) -> Part | None:
    """`call 5558675309`, not `reach 2502502500 HCPs`."""
    start, end = match.span(3)
    if not _follows_label(data, match) or _is_counted(data, start, end) or _PEOPLE.match(data, end):
        return None
    return (start, end) if _stands_alone(data, start, end) else None


def phone_told(data: bytes, match: Any) -> Part | None:
    """`617 5550 199 is her mobile`."""
    start, end = match.span(1)
    return (start, end) if 7 <= len(_digits(match.group(1))) <= 15 and _stands_alone(data, start, end) else None


def person_number(data: bytes, match: Any) -> Part | None:
    """`patient 48291399` and `patient: P-0017`, not `patient 1200345 TRx` and `patient FY2026`."""
    start, end = match.span(3)
    if not _follows_label(data, match) or not _stands_alone(data, start, end):
        return None
    if not match.group(3).isdigit() and not is_person(match.group(3).decode()):
        return None
    return None if _is_counted(data, start, end) or _PEOPLE.match(data, end) else (start, end)


def ssn(data: bytes, match: Any) -> Part | None:
    """With hyphens or dots always; with spaces when it can be one and stands by itself."""
    start, end = match.span()
    first, second = (match.group(index).strip() for index in (1, 2))
    if first != second or not _stands_alone(data, start, end, is_grouped=bool(first)):
        return None
    if first:
        return start, end
    area, group, serial = match.group()[:3], re.split(rb"\s+", match.group())[1], match.group()[-4:]
    can_be = area not in (b"000", b"666") and area[:1] != b"9" and group != b"00" and serial != b"0000"
    return (start, end) if can_be and not _has_number_beside(data, start, end) else None


def solid_npi(data: bytes, match: Any) -> Part | None:
    """Ten digits with the right check digit that nothing calls an amount or a time."""
    start, end = match.span()
    if end - start != 10 or not is_npi(match.group()) or not _stands_alone(data, start, end, is_grouped=True):
        return None
    before = _left(data, start)
    if b"_" in (before, data[end : end + 1]) and _RECENT.match(match.group()):
        return None
    # a number has its sign in front of it; behind a letter, as in `visit-1679576722.pdf`, it is a hyphen
    is_signed = before in _SIGNS and not _left(data, start - 1).isalpha()
    return None if is_signed or before in (b"$", b"@") or _is_counted(data, start, end) else (start, end)


def card(data: bytes, match: Any) -> Part | None:
    """A known issuer's prefix and length, and the check digit."""
    start, end = match.span()
    digits = _digits(match.group())
    if not _stands_alone(data, start, end, is_grouped=len(digits) >= 15) or not _is_card(digits):
        return None
    return None if _is_counted(data, start, end) and match.group().isdigit() else (start, end)


def record_number(data: bytes, match: Any) -> Part | None:
    """A token with digits; a short number only after `:`, `=` or `#`."""
    if not _follows_label(data, match):
        return None
    if match.group(3)[:1] == b"[":
        return _in_list(data, match)
    value = match.group(3)
    digits = _digits(value)
    is_assigned = any(sign in match.group(2) for sign in (b":", b"=", b"#"))
    if len(digits) < (1 if is_assigned else 3) or _DATA_TYPES.match(value):
        return None
    return _with_alike(data, *match.span(3))


def date_labelled(data: bytes, match: Any) -> Part | None:
    """A date after a word for birth."""
    return match.span(3) if _follows_label(data, match) else None


def vendor_key(data: bytes, match: Any) -> Part | None:
    """The prefix of a key that a vendor gives out, at the start of a word; `risk-adjusted-…` holds no `sk-` key."""
    start, end = match.span()
    value = match.group()
    if _left(data, start).isalnum() or not any(48 <= c <= 57 for c in value):
        return None
    return start, end


def scheme(data: bytes, match: Any) -> Part | None:
    """`Bearer x` and `Basic x`, not `basic statistics`."""
    value = match.group(2)
    if _left(data, match.start()).isalpha():
        return None
    if match.group(1).lower() == b"basic":
        try:
            looks_right = b":" in base64.b64decode(value.rstrip(b".") + b"=" * (-len(value.rstrip(b".")) % 4), validate=True)
        except (binascii.Error, ValueError):
            looks_right = False
    else:
        looks_right = len(value) >= 24 or any(48 <= c <= 57 for c in value) or (not value.islower() and not value.istitle())
    return match.span(2) if looks_right else None


def address(_data: bytes, match: Any) -> Part | None:
    """The password in `scheme://user:password@host`; `host:8080/…@…` has none."""
    return None if re.match(rb"[0-9]{1,5}(?:[/?]|$)", match.group(2)) and b"/" in match.group(2) else match.span(2)


def login(_data: bytes, match: Any) -> Part | None:
    """`curl -u name:password`, not `docker run --user 1000:1000`."""
    return None if match.group(2).isdigit() else match.span(2)


def assigned(_data: bytes, match: Any) -> Part | None:
    """A long value without any pattern; hexadecimal ids, digests and names in words stay."""
    value = match.group(1)
    kinds = ["l" if 97 <= c <= 122 else "u" if 65 <= c <= 90 else "d" if 48 <= c <= 57 else "o" for c in value[:64]]
    changes = sum(a != b for a, b in pairwise(kinds)) / (len(kinds) - 1)
    is_random = changes >= 0.5 or (changes >= 0.38 and "lllll" not in "".join(kinds))
    return match.span(1) if is_random and {"l", "u", "d"} <= set(kinds) and len(set(value[:64])) >= 16 else None


def is_whole_or_long(text: str, start: int, end: int) -> bool:
    """A configured secret counts wherever it is; one of up to seven characters only as a whole word."""
    return end - start >= 8 or not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum())
