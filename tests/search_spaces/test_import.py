from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["errors", "operators", "spec", "edit", "codec", "catalogue", "space"])
def test_rooms_about_values_import_no_torch(module):
    code = f"import sys, search_spaces.{module}; print([m for m in ('torch', 'optuna', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
