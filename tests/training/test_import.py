"""The command line opens without what only training takes, which is slow to import."""

import subprocess
import sys

SLOW = ("torch", "timm", "sklearn", "lightning_fabric", "onnx")


def test_commands_and_help_need_no_torch() -> None:
    words = f"import sys\nfor name in {SLOW}: sys.modules[name] = None\n"
    words += "sys.argv = ['damagewatch-train', 'data', '--help']\n"
    words += "from damagewatch_training.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rephotograph" in done.stdout
