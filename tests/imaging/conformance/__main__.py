"""``python -m tests.imaging.conformance``: write the page, and sheets of thumbnails to look at."""

from __future__ import annotations

import sys
from pathlib import Path

from .compared import compare
from .outcomes import SHARED, outcomes
from .page import page
from .references import missing_tools
from .sheet import write_sheets

CHECKOUT = Path(__file__).resolve().parents[3]
PAGE = CHECKOUT / "docs" / "dicom-conformance.md"


def main() -> None:
    """Write both; say what is missing where something is."""
    missing = missing_tools()
    if missing or not SHARED.exists():
        sys.exit(f"missing: {', '.join(missing) or SHARED} (Debian: dcmtk, libgdcm-tools)")
    found = outcomes()
    sheets = write_sheets(found, CHECKOUT / "out" / "conformance")
    PAGE.write_text(page(found, list(compare(found))))
    sys.stdout.write("\n".join(str(path) for path in [PAGE, *sheets]) + "\n")


if __name__ == "__main__":
    main()
