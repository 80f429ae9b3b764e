"""How many keys the next batch takes: as many as fit into the time a batch should take."""

from core.settings import Settings

FEWEST, FIRST, MOST = 500, 5_000, 100_000


class BatchSize:
    """Small batches lose a third of the speed, long ones make a pause wait: so time decides, not rows.

    The size at most doubles or halves from one batch to the next. A fixed `GUTHI_BATCH_ROWS` stays as it is.
    """

    def __init__(self, settings: Settings) -> None:
        self._fixed = settings.batch_rows
        self._seconds = settings.batch_milliseconds / 1_000
        self.rows = self._fixed or FIRST

    def learn(self, rows: int, seconds: float) -> None:
        """The last batch walked `rows` keys in `seconds`."""
        if self._fixed or rows <= 0:
            return
        factor = self._seconds / max(seconds, 1e-6)
        self.rows = round(max(FEWEST, min(MOST, rows * max(0.5, min(2.0, factor)))))
