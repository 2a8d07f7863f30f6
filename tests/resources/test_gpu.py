"""The device that was asked for, or a clear no."""

import subprocess
import sys

import pytest

from ml.errors import UsageError
from resources.gpu import Device


def cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def test_auto_and_cpu() -> None:
    assert Device("cpu").name == "cpu"
    assert Device().name == ("cuda" if cuda() else "cpu")
    facts = Device("cpu").describe()
    assert facts["device"] == "cpu" and facts["threads"] >= 1 and facts["torch"]


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        Device("tpu")


def test_cuda_is_described_or_refused() -> None:
    if not cuda():
        with pytest.raises(UsageError, match="no CUDA device"):
            _ = Device("cuda").name
        return
    facts = Device("cuda").describe()
    assert facts["memory_bytes"] > 0 and facts["name"] and "." in facts["capability"]


def test_torch_is_not_imported_before_use() -> None:
    code = "import sys, resources.gpu as g; g.Device('cpu').name; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
