from __future__ import annotations

import subprocess
import sys


def test_settings_of_triton_bring_in_no_library_of_the_gateway() -> None:
    """Jobs read them too, and the extra `jobs` has no PyJWT."""
    probe = "import sys, dafh.security.settings; sys.exit('jwt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], timeout=170, check=False).returncode == 0
