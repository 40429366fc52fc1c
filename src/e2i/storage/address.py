"""URLs of databases."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from e2i.errors import BackendRejected

_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


def plain_url(url: str) -> str:
    """The URL as libpq reads it. Raises BackendRejected when it does not name a PostgreSQL database."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise BackendRejected(
            f"{parts.scheme or 'this'} is not a PostgreSQL URL.",
            where="DATABASE_URL",
            advice="Write postgresql://user:password@host:5432/database.",
        )
    return _joined(parts, parts.query)


def _joined(parts: SplitResult, query: str) -> str:
    # urlunsplit forgets the two slashes of a URL without host.
    return f"postgresql://{parts.netloc}{parts.path}{'?' + query if query else ''}"


def address(url: str) -> str:
    """Host, port and database of a URL, without user and password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or "local socket"
    return f"{host}{parts.path}"


def url_in_schema(url: str, *, schema: str) -> str:
    """The URL with `schema` as the only place where tables are looked up and made."""
    parts = urlsplit(plain_url(url))
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query["options"] = f"{query.get('options', '')} -csearch_path={schema}".strip()
    return _joined(parts, urlencode(query, quote_via=quote))


def sqlalchemy_url(url: str, *, schema: str) -> str:
    """The same database for SQLAlchemy (MLflow, Optuna), on psycopg 3, with its tables in `schema`.

    >>> sqlalchemy_url("postgresql://u:p@127.0.0.1:5432/e2i", schema="mlflow")
    'postgresql+psycopg://u:p@127.0.0.1:5432/e2i?options=-csearch_path%3Dmlflow'
    """
    return "postgresql+psycopg" + url_in_schema(url, schema=schema).removeprefix("postgresql")
