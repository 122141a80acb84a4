"""The DAFH network: EfficientNet features, CBAM, inter-layer fusion, Ptanh hash heads (torch)."""
