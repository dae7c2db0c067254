from __future__ import annotations

from typing import TYPE_CHECKING

import mtd
import pytest
import speed

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.backbones.backbone import Backbone


@pytest.fixture(scope="module")
def lite0(data: Path, weights: Path) -> Backbone:
    del data, weights  # where they are missing, these tests are skipped
    pytest.importorskip("timm", reason="Lite0 comes from timm: pip install --editable '.[fit]'")
    return mtd.backbone_of("lite0")


@pytest.fixture(scope="module")
def network(lite0: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, speed.Turns]:
    return speed.network_turns(tmp_path_factory.mktemp("network"), lite0)


@pytest.mark.alone
def test_the_head_adds_at_most_six_tenths_to_the_backbone(network: dict[str, speed.Turns]) -> None:
    assert speed.ratio(network, "fused Lite0", "bare Lite0") <= 1.6


@pytest.mark.alone
def test_the_filterbank_is_no_slower_than_lite0(network: dict[str, speed.Turns]) -> None:
    assert speed.ratio(network, "fused filterbank", "fused Lite0") <= 1.0


@pytest.mark.alone
def test_a_fit_takes_at_most_three_feature_passes(lite0: Backbone, tmp_path: Path) -> None:
    turns = speed.fit_turns(tmp_path, lite0, rounds=2)  # as many images as the table has: a part of a fit is constant
    assert speed.ratio(turns, "fit", "feature pass") <= 3.0


@pytest.mark.slow
@pytest.mark.usefixtures("process_locks")
def test_memory_of_a_fit_does_not_grow_with_the_images(lite0: Backbone, tmp_path: Path) -> None:
    few, many = speed.peak_mib(tmp_path, lite0, (speed.FEW_IMAGES, speed.FIT_IMAGES))
    assert many <= 1.1 * few
