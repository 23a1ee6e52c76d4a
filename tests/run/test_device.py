"""Which device, which number format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lapwing.errors import ConfigError
from lapwing.run import device as devices
from lapwing.run.device import cpu_multiplies_bf16, open_device, peak_memory_gb, pick_device, pick_precision

CPU = torch.device("cpu")


def there(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("cuda", "mps", "picked"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_fastest_there_is(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, picked: str) -> None:
    there(monkeypatch, cuda, mps)
    assert pick_device("auto").type == picked
    assert pick_device("cpu") == CPU


def test_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    there(monkeypatch, cuda=True, mps=False)
    assert pick_device("auto", local_rank=1) == torch.device("cuda", 1)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    there(monkeypatch, cuda=False, mps=False)
    with pytest.raises(
        ConfigError, match="device: asked for 'cuda', this machine has cpu; choose one of these, or auto"
    ):
        pick_device("cuda")


@pytest.mark.parametrize("name", ["cuda:99", "mps:99", "warp drive"])
def test_a_device_that_takes_no_tensor_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"device: '{name}' cannot be used here \(.+\); choose cpu, or auto$"):
        open_device(name)


def test_a_device_is_opened_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_device("cpu") == open_device(CPU) == CPU
    there(monkeypatch, cuda=False, mps=False)
    assert open_device("auto") == CPU


def test_bf16_is_picked_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (True, False):
        monkeypatch.setattr(devices, "cpu_multiplies_bf16", lambda has=has: has)
        assert pick_precision("auto", CPU) == ("bf16" if has else "fp32")
        assert pick_precision("auto", CPU, images=False) == "fp32"
        assert pick_precision("fp32", CPU) == "fp32"
        assert pick_precision("bf16", CPU) == "bf16"


@pytest.mark.parametrize(
    ("flags", "has"), [("avx512f avx512_bf16", True), ("amx_bf16 sse", True), ("avx512f sse", False)]
)
def test_the_processor_says_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, has: bool) -> None:
    monkeypatch.setattr(devices.platform, "system", lambda: "Linux")
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags}\n")
    assert cpu_multiplies_bf16(tmp_path / "cpuinfo") is has
    assert not cpu_multiplies_bf16(tmp_path / "missing")


def test_memory_is_measured() -> None:
    assert 0.01 < peak_memory_gb(CPU) < 1000
