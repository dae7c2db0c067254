"""What only a workstation does, with torch, timm, scikit-learn, matplotlib or Dask; never on a device."""
