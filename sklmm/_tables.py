"""A table that is to be read as a whole."""

import pandas as pd

#: Options of pandas by which a narrow terminal neither loses columns nor breaks lines.
SHOWN_WHOLE = ("display.max_columns", None, "display.expand_frame_repr", False)


class Table(pd.DataFrame):
    """A DataFrame that shows all of its columns, however wide the terminal is."""

    @property
    def _constructor(self):
        return Table

    def _constructor_from_mgr(self, mgr, axes):
        # pandas 2.2.0 would warn of its own call.
        return Table._from_mgr(mgr, axes)

    def __repr__(self):
        with pd.option_context(*SHOWN_WHOLE):
            return super().__repr__()

    def _repr_html_(self):
        with pd.option_context(*SHOWN_WHOLE):
            return super()._repr_html_()
