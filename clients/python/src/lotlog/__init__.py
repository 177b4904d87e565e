"""Client of lotlogd, a durable logging daemon for auction-lot predictions.

::

    import lotlog
    with lotlog.Client() as client:
        client.log(items_df, lot_id="TEST_LOT_001", roi_target=1.25)

The rooms, in reading order: ``client`` (what a program calls), ``aio``, ``handler``, ``dropin``; ``_core`` (what they share);
``_tables``, ``_json``, ``_encode`` (from items to a request); ``_session`` (numbers, resends), ``_link`` (the socket), ``_driver`` (both
together); ``_spool``, ``_deliver``; ``_receipt``, ``_errors``, ``_places``, ``_lives``. No room imports a library of tables.
"""

from ._errors import LotlogError, LotlogWarning, Refused, SpoolError, Unencodable, Unreachable
from ._receipt import Receipt
from .client import Bound, Client
from .dropin import log_predictions
from .handler import LotlogHandler

__version__ = "0.1.0"

__all__ = [
    "Bound",
    "Client",
    "LotlogError",
    "LotlogHandler",
    "LotlogWarning",
    "Receipt",
    "Refused",
    "SpoolError",
    "Unencodable",
    "Unreachable",
    "__version__",
    "log_predictions",
]
