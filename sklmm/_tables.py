"""Tables that are to be read as a whole."""

import textwrap

import pandas as pd

#: Options of pandas by which a narrow terminal neither loses columns nor breaks lines, and no text
#: is cut.
SHOWN_WHOLE = (
    *("display.max_columns", None),
    *("display.max_colwidth", None),
    *("display.expand_frame_repr", False),
)


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


class Findings(Table):
    """A table of findings by name, which is printed as sentences; a part of it is a `Table`."""

    def __repr__(self):
        lines = []
        for name, row in self.iterrows():
            numbers = f"{row['value']:.3g}" + ("" if pd.isna(row["p"]) else f", p = {row['p']:.2g}")
            text = f"{name} ({numbers}): {row['meaning']}"
            wrapped = textwrap.wrap(text, 90, subsequent_indent=" " * 10)
            lines += [f"{row['verdict']:<10}{wrapped[0]}", *wrapped[1:]]
        return "\n".join(lines)
