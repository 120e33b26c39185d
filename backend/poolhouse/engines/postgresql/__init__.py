"""The check that the engine's requirements are installed; the app itself does not need them."""

from importlib.util import find_spec

from django.core.exceptions import ImproperlyConfigured

if missing := [name for name in ("dj_db_conn_pool", "sqlalchemy") if find_spec(name) is None]:
    raise ImproperlyConfigured(
        f"The engine poolhouse.engines.postgresql requires {' and '.join(missing)}: pip install 'poolhouse[pool]'."
    )
