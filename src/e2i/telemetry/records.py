"""People in the messages of health care: HL7 version 2, X12 and FHIR, where the place of a field says what it is."""

from __future__ import annotations

from typing import Any

from e2i.telemetry.checks import MARKER, Check, Part

SEGMENT = r"(?:^|[^A-Za-z0-9])((?:PID|NK1|GT1|IN1|IN2)\|[0-9]{0,4}\|)([^\r\n\x1e\"]*)"
"""HL7: patient, next of kin, guarantor and insurance"""
SEGMENT_SCAN = r"(?:PID|NK1|GT1|IN1|IN2)\|[0-9]*\|"
LOOP = r"(?:^|[^A-Za-z0-9])((?:NM1\*(?:IL|QC|74|QD|03|EY)\*|REF\*(?:SY|1L|IG|EJ|0F|1W|MR|F6|D9|G1)\*|DMG\*D8\*))([^~\r\n\x1e\"]*)"
"""X12: subscriber, patient, their numbers and their birth"""
LOOP_SCAN = r"(?:NM1\*(?:IL|QC|74|QD|03|EY)|REF\*(?:SY|1L|IG|EJ|0F|1W|MR|F6|D9|G1)|DMG\*D8)\*"
_PATHS = r"/(?i:patients?|members?|subscribers?|persons?|beneficiary|beneficiaries)|\bPatient|\bRelatedPerson"
REFERENCE = (
    rf"(?:(?:{_PATHS})/|\bPatient\?(?:identifier|_id)=(?:[^\s&|\"']{{0,200}}(?:\||%7[Cc]))?)"
    r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})"
)
"""of FHIR, and addresses of that kind: `Patient/88127`, `https://host/patients/P-0017/notes`"""
REFERENCE_SCAN = rf"(?:{_PATHS})/[A-Za-z_.-]*[0-9]|Patient\?(?:identifier|_id)="
ELEMENT = r"(?i)<identifier\b[^\x1e]{0,600}?<value value=\\?[\"']([^\"'\\<>]{1,64})"
ELEMENT_SCAN = r"(?i:<value value=\\*[\"'])"
FAILED_ROW = r"Failing row contains \(([^\r\n\x1e]*)(?:\)|$)"
FAILED_ROW_SCAN = r"Failing row contains \("
"""PostgreSQL names no column there"""


def _fields(_data: bytes, match: Any) -> Part | None:
    """All fields of a segment but its name and number."""
    start, end = match.span(2)
    return (start, end) if end > start and not MARKER.match(match.group(2)) and any(48 <= c <= 57 for c in match.group(2)) else None


def _number(data: bytes, match: Any) -> Part | None:
    """A part of an address or an element that holds digits."""
    start, end = match.span(1)
    end = start + len(data[start:end].rstrip(b".-"))
    return (start, end) if any(48 <= c <= 57 for c in data[start:end]) else None


RECORDS: tuple[tuple[str, str, Check], ...] = (
    (SEGMENT_SCAN, SEGMENT, _fields),
    (LOOP_SCAN, LOOP, _fields),
    (REFERENCE_SCAN, REFERENCE, _number),
    (ELEMENT_SCAN, ELEMENT, _number),
    (FAILED_ROW_SCAN, FAILED_ROW, _number),
)
"""what a scan hits, what is found there, and whether it is one; all are `mrn`"""
