"""The torch backend: TorchScript, torch.export, AOTInductor."""
