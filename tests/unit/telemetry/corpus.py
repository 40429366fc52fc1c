# ruff: noqa: RUF001 - unusual spellings are the point
"""Texts with planted identifiers, and texts of the field that hold none. All identifiers are made up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle

CONFIGURED_SECRET = "Zeppelin-Kaffee-42"

EMAILS = [
    "jane.doe@example.com", "j_smith+trial@mail.example.co.uk", "MARIA.GARCIA@EXAMPLE.ORG", "o'brien@clinic.example", "x@y.io",
    "dr-lee%home@sub.domain.example.net", "info@xn--bcher-kva.example", "jane.doe\uff20example.com", "jane\u200b.doe@example\u200b.com",
    "jane.doe%40example.com", "jane.doe [at] example [dot] com", "jane.doe(at)example.com", '"john smithQV"@example.org',
    "jane.doeQY at kantar dot org", "jane at mail dot clinic dot co dot uk", "josé.pérez@example.com", "anna@müller.example",
]  # fmt: skip
PHONES = [
    "617-555-0123", "(617) 555-0123", "(617)555-0123", "617.555.0123", "617 555 0123", "+1 617 555 0123", "+1-617-555-0123",
    "+16175550123", "1-617-555-0123", "1 (617) 555-0123", "+1 (617) 555-0123", "+1.617.555.0123", "001-617-555-0123", "617/555-0123",
    "617-5550123", "617 555-0123", "1-800-555-0199 ext. 42", "617-555-0123 x9", "617\u2011555\u20110123", "617\u2013555\u20130123",
    "617\u00a0555\u00a00123", "\uff16\uff11\uff17-\uff15\uff15\uff15-\uff10\uff11\uff12\uff13", "617\u200b-555\u200b-0123",
    "617\u00b7555\u00b70123", "6\u200d1\u200d7-555-0123", "617 - 555 - 0123", "+44 20 7946 0958", "+442079460958", "+49 (30) 901820",
    "+33 1 23 45 67 89", "+91-98765-43210", "+81-3-1234-5678", "\u0666\u0661\u0667-\u0665\u0665\u0665-\u0660\u0661\u0662\u0663",
    "\U0001d7d4\U0001d7cf\U0001d7d5-\U0001d7d3\U0001d7d3\U0001d7d3-\U0001d7ce\U0001d7cf\U0001d7d0\U0001d7d1", "¹(617) 555-0123",
    "_617-555-0123_",
]  # fmt: skip
SSNS = [
    "123-45-6789", "123 45 6789", "123.45.6789", "123\u201145\u20116789", "123\u201345\u20136789", "123\u00a045\u00a06789",
    "987-65-4321", "_987-65-4321.pdf", "\uff11\uff12\uff13-\uff14\uff15-\uff16\uff17\uff18\uff19", "123\u00ad-45-6789", "123 - 45 - 6789",
]  # fmt: skip
NPIS = ["1234567893", "1679576722", "1245319599", "2000000002", "\uff11234567893", "12345\u200b67893"]
MBIS = ["1EG4-TE5-MK73"]
CARDS = [
    "4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "5500005555555559", "378282246310005", "3782 822463 10005",
    "6011111111111117", "4222222222222", "30569309025904", "4111\u00a01111\u00a01111\u00a01111",
]  # fmt: skip
LABELLED = [
    "MRN: 00123456", "mrn=A1234567", "MRN 00123456", "Medical record number is 8837-22", "medical record #12345", "patient_id: P-0017",
    "patient id 104233", "Patient ID: 7", "patientId=PT0042", "member id: W123456789", "Member ID W99887766", "subscriber_id=ZGP882211",
    "MBI 1EG4TE5MK73", "policy number: AX-77120", "SSN 123456789", "ssn: 123456789", "SSN=123 45 6789", "social security number 123456789",
    "Social Security No. 123-45-6789", "NPI 1000000000", "NPI: 1112223334", "npi=1112223334", "npi_1112223334", "hcp_id: 1112223334",
    "prescriber id 1112223334", "provider 1112223334", "DOB: 01/31/1980", "dob 1980-01-31", "date of birth: Jan 31, 1980",
    "born on 31 January 1980", "Date of Birth 31.01.1980", "birthdate=19800131", "D.O.B. 1/31/80", "phone: 6175550123", "Tel 555-0123",
    "mobile no. 6175550123", "fax=6175550123", "call me at 6175550123", "Call her on 555-0123", "phone\u00a0:\u00a06175550123",
    "NPI\u00a01112223334", "MRN\u200b: 00123456", "MRNs: 48291301, 48291302", "MRNs 48291301 and 48291302; 48291303",
    "SSNs: 123456789, 223456789", "SSN 123-45-6789 / 223-45-6789", "NPIs: 1112223334, 1112223335 and 1112223336",
    "phones: 6175550123, 6175550124", "patient 48291399 was admitted", "Member #48291399", "pt_id=4829130", "pt id 4829130",
    "NPI:12453-19599", "617 5550 199 is her mobile", "617-5550-199 was his phone", "please call 5558675309", "text me 5558675309",
    "Dial 5558675309 now",
    "ptId=P-0017", "srcPtId: P-0017", "patient.identifier.value=P-0017", "person_id=4829130", "personId: P-0017", "caseId=AX-77120",
    "case_number: 8837-22", "claim_id: W123456789", "encounter_id=PT0042", "accountNumber=48291301", "account_no: 48291301",
    "acct # 48291301", "Account number: 48291301", "patient=P-0017", "patient P-0017 was seen", "member: W123456789",
    '"patient_id", "value": "P-0017"', '<attribute name="mrn" value="00123456"/>', '<birthDate value="1980-01-31"/>',
    "{'patient': {'id': 'P-0017', 'n': 3}}", "patients:\n  - id: P-0017", "Patient/48291301", "https://h/v1/patients/P-0017/notes",
    "GET /fhir/Patient?identifier=http://h/mrn|48291301", "<identifier><use value='official'/><value value='PT0042'/></identifier>",
    "PID|1||00123456^^^HOSP^MR||Doe^Jane||19800131|F", "NM1*IL*1*DOE*JANE****MI*W123456789~", "REF*SY*123456789~", "DMG*D8*19800131*F~",
    "patient_id LIKE 'P-0017%'", "mrn between 48291301 and 48291302", "patient_id in ('P-0017', 'P-0018', 'P-0019')", "p.mrn != '00123456'",
    "patient_ids = {'P-0017', 'P-0018'}", "Failing row contains (P-0017, 2026-01-05).", "hcp_1245319599.json", "visit_1245319599_x",
    "card_4111111111111111.pdf", "DEA BS1234563", "dea_number: BS1234563", "passport no: W99887766", "license_number: PT0042",
    "rx_number: 48291301", "health_plan_id: ZGP882211", "dob                  1980-01-31",
]  # fmt: skip
LABELLED_VALUES = {
    "00123456", "A1234567", "8837-22", "12345", "P-0017", "104233", "PT0042", "W123456789", "W99887766", "ZGP882211", "1EG4TE5MK73",
    "AX-77120", "123456789", "123 45 6789", "123-45-6789", "1000000000", "1112223334", "01/31/1980", "1980-01-31", "Jan 31, 1980",
    "48291301", "48291302", "48291303", "223456789", "223-45-6789", "1112223335", "1112223336", "6175550124", "48291399",
    "4829130", "12453-19599", "617 5550 199", "617-5550-199", "5558675309",
    "P-0018", "P-0019", "1245319599", "4111111111111111", "BS1234563", "DOE", "Doe^Jane",
    "31 January 1980", "31.01.1980", "19800131", "1/31/80", "6175550123", "555-0123",
}  # fmt: skip
SECRETS = [
    "Authorization: Bearer 9f8e7d6c5b4a", "authorization: Basic amFuZTpodW50ZXIy", "Bearer abc123def456", "bearer ABCDEFGHIJKLMNOP",
    "password=hunter2", "password: hunter2", "'password': 'hunter2'", '"password": "hunter2"', "PASSWORD = hunter2", "--password hunter2",
    "db_password=hunter2", "PGPASSWORD=hunter2", "passwd=hunter2", "the password is hunter2", "<password>hunter2</password>",
    "api_key=abcd-1234", "apiKey: abcd-1234", "x-api-key: abcd-1234", "OPENAI_API_KEY=abcd-1234", "--api-key=abcd-1234",
    "client_secret=abcd-1234", "clientSecret: 'abcd-1234'", "access_token=abcd-1234", "refreshToken: abcd-1234", "?token=abcd-1234&x=1",
    "[(b'x-api-key', b'abcd-1234')]", "('password', 'hunter2')", "SecretStr(password='hunter2')", "password\u00a0=\u00a0hunter2",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "AKIAIOSFODNN7EXAMPLE", "sk-abcdefghij1234567890abcd",
    "sk-ant-api03-abcdefghij1234567890", "ghp_abcdefghijklmnopqrst1234567890abcdef", "github_pat_11ABCDEFG0abcdefghijkl",
    "xoxb-123456789012-abcdefghijkl", "AIzaSyA1234567890abcdefghijklmnopqrstuv", "hf_abcdefghijklmnopqrstuvwx12",
    "glpat-abcdefghij1234567890", "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA75\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA75", "postgresql://e2i:hunter2@db.example.com:5432/e2i", "redis://:hunter2@cache:6379/0",
    "mysql+pymysql://u:p%40ss-hunter2@h/db", "postgresql://u:hunter2/x@h/db", "key: qL9vX2mB7tR4wZ8kN3cJ6hF1sD5gP0yA",
    CONFIGURED_SECRET, "Cookie: session=hunter2abc", '{"user":"a","pass":"hunter2QJ"}', "db_pass=hunter2QJ", "smtpPass: hunter2QJ",
    "password%3Dhunter2QK", "PASSWORD hunter2QD", "API_KEY abcd1234QQ", "X-Auth-Token abcQQ1234567", "passcode 99183377 / PIN 8842",
    "PIN: 8842", "pin=99183377", "pin code: 8842", "Passwort: hunter2QM", "client_secret is QZabc1",
    "curl -s -u jane:hunter2QX https://h/x", "curl --user jane:hunter2QX https://h/x", "jdbc:oracle:thin:scott/hunter2QX@h:1521:x",
    "https://hooks.slack.com/services/T00000000/B00000000/XXXXabcdefghij12345678", "JSESSIONID=abcd-1234", "PHPSESSID=abcd-1234",
    "Authorization: Digest username=x, response=9f8e7d6c5b4a",
    "https://x?sig=Zq7Zq7wXwX1212KkKk3434LlLl5656MmMm7878Nn%3D", "signature=Zq7Zq7wXwX1212KkKk3434", "auth token: abcd-1234",
]  # fmt: skip
SECRET_VALUES = {
    "9f8e7d6c5b4a", "amFuZTpodW50ZXIy", "abc123def456", "ABCDEFGHIJKLMNOP", "hunter2", "abcd-1234", "c2lnbmF0dXJl", "AKIAIOSFODNN7",
    "99183377", "8842", "abcQQ1234567", "QZabc1", "abcd1234QQ", "Zq7Zq7wXwX",
    "abcdefghij", "1234567890abcd", "MIIEpAIBAAKCAQEA75", "qL9vX2mB7tR4", CONFIGURED_SECRET, "xoxb-123", "AIzaSy",
}  # fmt: skip

SENTENCES = [
    "Please write to {} about the visit.", "contact={}", "{}", "notes: seen on Monday, {}, follow up", "({})", "value <{}>, next",
    "x\n{}\ny", "Visited;{};done", "“{}”", "id\t{}\tok", "Die Ärztin schrieb: {}",
]  # fmt: skip


def identifiers() -> list[str]:
    return [*EMAILS, *PHONES, *SSNS, *NPIS, *MBIS, *CARDS, *LABELLED, *SECRETS]


def carriers(text: str) -> Iterator[tuple[str, object]]:
    """The same text as people's code would put it on a span."""
    yield "text", text
    yield "list", ["first", text, "last"]
    yield "tuple", (text,)
    yield "dict", {"note": {"inner": [text]}}
    yield "json", json.dumps({"messages": [{"role": "user", "content": text}]})
    yield "json unescaped", json.dumps({"content": text}, ensure_ascii=False)
    yield "json in json", json.dumps({"body": json.dumps({"content": text})})
    yield "cut json", json.dumps({"messages": [{"content": text}]})[:-4]
    yield "bytes", text.encode()
    yield "error", f"ValueError: bad row: {text}"
    yield "stack trace", f'Traceback (most recent call last):\n  File "a.py", line 3, in f\n    raise ValueError(row)\nValueError: {text}\n'
    yield "padded", "a b c. " * 200 + text


def planted() -> Iterator[tuple[str, str, object]]:
    """(identifier, carrier, value): every identifier in every carrier, in changing sentences."""
    sentences = cycle(SENTENCES)
    for identifier in identifiers():
        is_alone = identifier in PHONES[4:5] or identifier == "123 45 6789"
        for sentence in (next(sentences), "{}" if is_alone else next(sentences)):
            for carrier, value in carriers(sentence.format(identifier)):
                yield identifier, carrier, value


def remains(identifier: str) -> list[str]:
    """What must not be readable afterwards."""
    if identifier in LABELLED:
        return [value for value in LABELLED_VALUES if value in identifier] or [identifier]
    if identifier in SECRETS:
        return [value for value in SECRET_VALUES if value in identifier] or [identifier]
    return [identifier]


FIELD = [
    "TRx 1,234,567 in the week of 2026-11-20", "NRx fell by 12.4 % to 34,512", "NBRx <= NRx <= TRx", "volume 12345678",
    "TRx=4021733019", "amount $1234567893", "amount: 1234567893.00", "revenue 1234567893 USD", "1234567893 bytes",
    "ROI 3.42 (95 % CI 1.20 to 5.64)", "started_at=1763722003", "timestamp: 1763722003", "epoch 1763722003", "1763722003123",
    "1763722003123456", "1763722003123456789", "2026-11-21T11:06:24.123456789Z", "2026-11-21 11:06:24+00:00", "20261121T110624",
    "week ending 2026-11-20", "11/20/2026", "21.11.2026", "0.1234567890123456", "p = 0.00041234567893", "3.14159265358979",
    "-0.5123456789012345", "1e-10", "1.7976931348623157e308", "AUC 0.8123456789", "[0.123456789, 0.6175550123]",
    "019a3f5e-7b7c-7def-8123-456789abcdef", "12345678-1234-7123-8123-123456789012", "019a3f5e7b7c7def8123456789abcdef",
    "8123456789abcdef", "e2i_causal_impact_0193", "e2i_causal_impact_1763722003", "run-2026-11-21-a",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "commit 0e626ac9d2f7a1b3c4d5e6f708192a3b4c5d6e7f",
    "trace_id=019a3f5e7b7c7def8123456789abcdef", '{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}', "version 1.2.3", "v2026.11.2",
    "mlflow 3.17.0", "Python 3.11.9", "127.0.0.1:5432", "192.168.100.200", "http://localhost:8080/api/v1/traces", "port 54321",
    "http://host:8080/path?user=a", "postgresql://127.0.0.1:5432/e2i", "s3://bucket/models/019a3f5e7b7c7def/artifacts/model.pkl",
    "NDC 0078-0659-20", "NDC 00078-0659-20", "ICD-10 C50.911", "ZIP3 021", "02139", "decile 10", "HCP × week", "Kisqali",
    "Remibrutinib", "Fabhalta", "gen_ai.usage.input_tokens=512", "max_tokens=4096", '{"max_tokens": 1024, "temperature": 0.2}',
    "token_count: 1843", "tokens: 512", "input tokens 1200", "time_to_first_token: 0.31", "tokenizer=cl100k",
    "price per token 0.000003", "the token budget is 4096", "total_tokens=123456", "prompt_tokens: 99", "secretary of the board",
    "basic statistics of the panel", "Basic information follows", "bearer of news", "the password policy is strict",
    "password_policy: strict", "authorization required for restricted HCPs", "prior authorization rate 0.31",
    "prior authorization: 31 % of claims", "Prior Authorization: required", '{"prior_authorization": "step edit"}',
    "preauthorization=12 weeks", "reauthorization: yearly", "redact_patterns: [password, api_key, secret, token, authorization]",
    "member of the panel", "patients 1200", "patient count: 1200", "patient_id_column", "patient_id, week, trx", "patient_id: int64",
    "npi: int64", "unit: npi", "columns: npi, week, trx, nrx", "npi_count=1200", "4000 npis", "n_patients=812", "phone_calls: 1200345",
    "phone calls 1200345", "calls 1200345", "call volume 3456789", "reach 1250000 HCPs", "reached 12500 HCPs on 2026-11-20",
    "text field 12", "seed=4294967295", "seed 3735928559", "rows: 2147483647", "4294967296 bytes", "size=5368709120", "rows=10000000",
    "hash 1234567893", "+12.5 %", "+1250000 TRx", "+12500000", "+1.25 0.37 0.12", "-1234567", "+05:30", "1e+10", "12 345 678",
    "1 234 567 TRx", "120 340 5600 780", "100, 200, 3000", "120 45 6789 333", "30-60-90 day plan", "2020–2025", "10–20", "5 µs",
    "95 % CI", "R² = 0.81", "m²", "±3.2", "≤ 0.1", "café", "naïve Bayes", "日本語のテキスト", "Привет", "image@2x.png", "rate(x[5m])",
    "@dataclass", "user@localhost", "pkg@1.2.3", "a@b", "k=v", "x: 1", "lambda x: x + 1", "f(a, b)", "C:\\new\\table", "a\\nb", "100%",
    "50%25", "raise ValueError(f'bad {row}')", '  File "/app/e2i/engine/graph.py", line 123, in run', "KeyError: 'nrx_pre'",
    "E2IError: overlap 0.003 in stratum 4", "claude-sonnet-4-5-20250929", "gpt-4.1-2025-04-14", "text-embedding-3-small",
    "XGBoostClassifierWithCalibration2026", "RandomForestRegressorV2WithDepth12AndTrees500", "risk-adjusted-propensity-score-model",
    "task-20261121-propensity-calibration-run", "disk-usage-2026-report-of-the-panel", "ask-me-later-about-the-2026-results-of-nrx",
    "[email]", "[phone] and [ssn]", "password=[secret]", "npi [npi]", "…[truncated 20480 bytes]", "[not logged]", "", "chart 3 of 5",
    "policy 12", "subject line", "Subject: results of week 47", "provider network of 1200", "physician 12 of 40", "doctor visits 3",
    "HCP 42", "hcp_decile=10", "cell sizes 1-10 are suppressed", "mobile app 3.2", "born in the Northeast", "fax machine",
    "passed: 12", "passed 12 of 14", "pass rate: 31 %", '{"pass": true}', '{"passed": 12, "failed": 2}', "pass: fail",
    "first_pass: complete",
    "pinned: 12345678", "pinned 2026", "mapping: npi to week", "design: stepped", "sig: 0.04", "sig. at 0.05", "signature: (state, deps)",
    "significant: 3", "authorization of benefits", "authorization 12 of 40", "token v2", "the secret of 2026", "access key 2 of 3",
    "look at the dot plot", "meet at noon", "median at week dot 12", "reach 2502502500 HCPs", "call 2502502500 TRx", "text 12345678",
    "patient 1200345 TRx", "patient 12 of 40", "patient 20 weeks", "attempt no 12345", "attempt_id=12345", "prompt_id: 44444",
    "receipt no 4829130", "opt_id=4829130", "617 of 5550 is the number", "NPI match 0.98", "member 3", "compass: north", "bypass=true",
    "telemetry 2.0", "ph 7.4", "tel quel", "itinerary 123456789", "rating 123456789",
    "hcp_id: H0012", "account_id: A-1002", "case: treated", "case A: 12 of 40", "cases 1204", "case numbers: 1,204", "use case id",
    "claims: 12034", "claim rate 0.31", "claim count: 1204", "policy: v2", "policy tree depth 2", "patient: 12", "patients: 1200345",
    "patient FY2026", "patient weeks 1200", "patient-years: 1200", "per patient: 3.42", "patient Q12026", "member: 3",
    "account no longer active in 2026", "account numbers: 12", "account executive 12", "person 12 of 40", "in person no calls 12",
    "persons/100", "/patients?limit=10", "/api/v1/patients", "/patients/count", "/people/12", "run_1763722003", "task_1700000000_x",
    "a_1234567890", "batch_2026112101", "PID 12345", "REF*12", "NM1 gene", "dea process 3", "ideas 12", "rx number of the brand: 3",
    "TRx number: 1,204", "trx_number: 12", "license: MIT", "model license no 3 of 5", "health plans: 40", "sort -u a:b",
    "docker run --user 1000:1000 img", "values ('a', 3)", "insert into t (week, nrx) values ('2026-01-05', 3)", "npi like 12",
    "patient_id like '%'", "the phone values 1200345", "phone value 3 %", '{"name": "phone_calls", "value": 1200345}',
    '{"properties": {"patient_id": {"type": "string", "maxLength": 12}}}', '{"patient": {"n": 812, "id_column": "patient_id"}}',
    '{"patient": {"weeks": "12", "site": "S-0017"}}', '{"policy": {"name": "P1", "budget": 12}}', '{"patients": 1200345}',
    '{"chart": {"title": "fig1"}}', '{"patients": {"count": 12, "2026": 3}}', '{"resourceType": "Bundle", "id": "b17"}',
    "order_4111111111111112", "Index(['nrx'], length=3)", "npi = array([1, 2, 3])", "patient_id.nunique() = 1200", "n_patients=1200",
    "SELECT count(patient_id) FROM t WHERE week = '2026-01-05'", "ORDER BY npi LIMIT 10",
    "hcp_id,week,nrx\nH0012,2026-01-05,3\nH0013,2026-01-05,4", "account_id,nrx\nA-1002,3", "| hcp_id | nrx |\n|---|---|\n| H0012 | 3 |",
    "week,nrx,trx\n2026-01-05,3,4", "region,phone_calls,nrx\nNE,1200345,3\n", "channel;email;phone\ncalls;12;30\n",
    "feature,importance\npatient_id,0.12\nnrx_pre,0.4", "patient_id     int64\nnrx    float64\nweek2   int64", "npi,trx\nint64,int64",
    "columns: npi, week, trx\n3 rows, 12 columns, 14", "Patient ID, week and trx are read.\nRow 12, week 3, trx 4",
    "   term   coef\n0  npi    0.12\n1  week   0.3", "token,count\nthe,512\nof,33",
]  # fmt: skip


def field_texts() -> list[str]:
    """At least 300: each by itself, and in a sentence."""
    return [*FIELD, *(f"In week 47: {text} (as known on 2026-11-20)" for text in FIELD if text)]
