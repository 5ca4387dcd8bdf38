"""ONNX of a recognizer by itself, through PyTorch's exporter."""

import copy
import json
import logging
import warnings
from pathlib import Path

import torch
from speechbrain.processing.features import STFT
from torch import nn

from lightning_modules.standalone import Standalone


class LSTM(nn.Module):
    """ONNX's operator in the place of one PyTorch layer, whose loop the exporter would unroll for one length.

    PyTorch orders gates as input, forget, cell, output; ONNX as input, output, forget, cell.
    """

    def __init__(self, layer: nn.LSTM) -> None:
        super().__init__()
        self.size = layer.hidden_size
        parameters = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
        gates = [parameter.detach().chunk(4) for parameter in parameters]
        weights, recurrent, *biases = [torch.cat([i, o, f, c])[None] for i, f, c, o in gates]
        self.register_buffer("weights", weights)
        self.register_buffer("recurrent", recurrent)
        self.register_buffer("biases", torch.cat(biases, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        """[B, T, D] to [B, T, W]."""
        given = (x.transpose(0, 1), self.weights, self.recurrent, self.biases)
        shape = (x.shape[1], 1, x.shape[0], self.size)
        found = torch.onnx.ops.symbolic("LSTM", given, {"hidden_size": self.size}, dtype=x.dtype, shape=shape)
        return found.squeeze(1).transpose(0, 1), None


class Fourier(nn.Module):
    """A convolution in the place of SpeechBrain's STFT: a hundred times nearer to it than onnxruntime's operator."""

    def __init__(self, transform: STFT) -> None:
        super().__init__()
        self.hop, self.reach = transform.hop_length, transform.n_fft // 2
        before = (transform.n_fft - transform.win_length) // 2
        behind = transform.n_fft - transform.win_length - before
        window = nn.functional.pad(transform.window.double(), (before, behind))
        waves = torch.fft.rfft(torch.diag(window))
        self.kernel = torch.stack([waves.real, waves.imag], 2).flatten(1).T[:, None].float()

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """[B, N] to [B, T, bins, 2], real and imaginary."""
        padded = nn.functional.pad(samples, (self.reach, self.reach))[:, None]
        return nn.functional.conv1d(padded, self.kernel, stride=self.hop).transpose(1, 2).unflatten(2, (-1, 2))


def exportable(module: nn.Module) -> nn.Module:
    """The module with these in the place of what they stand for."""
    for kind, other in ((nn.LSTM, LSTM), (STFT, Fourier)):
        if isinstance(module, kind):
            return other(module)
    for name, child in module.named_children():
        setattr(module, name, exportable(child))
    return module


def write(recognizer: Standalone, out: Path) -> None:
    """Write to `out`, in one step; input, output and metadata are as local/export.py says."""
    rate = recognizer.extractor.sample_rate
    example = 0.1 * torch.randn(rate)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision's operators
        recognizer(example)  # makes what extractors make when they are first called
        copied = exportable(copy.deepcopy(recognizer))
        for name, value in vars(copied.extractor).items():
            if isinstance(value, nn.Module):
                setattr(copied.extractor, name, exportable(value))
        program = torch.onnx.export(
            copied, (example,), dynamo=True, verbose=False, input_names=["samples"],
            output_names=["log_probabilities"], dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        )  # fmt: skip
    program.model.metadata_props.update(
        sample_rate=str(rate),
        frame_shift=str(recognizer.frame_shift),
        units=json.dumps([*recognizer.recognizer.units]),
    )
    aside = out.with_name(out.name + ".tmp")
    program.save(aside)
    aside.replace(out)
