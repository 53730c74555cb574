"""What WSGI servers load: `flask run`, `gunicorn wsgi:app`."""

from chiffon.api.app import create_app
from chiffon.config import SettingsError, settings
from chiffon.domain.errors import ChiffonError
from chiffon.logs import configure

try:
    configure(settings())
    app = create_app(settings())
except (SettingsError, ChiffonError) as error:
    raise SystemExit(f"chiffon: {error}") from None
