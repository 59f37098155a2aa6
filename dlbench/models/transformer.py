"""Transformers: the translation network of Vaswani et al. 2017, and GPT-2 of Radford et al. 2019."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head attention of queries from `x` to keys and values from `memory`, with biases."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.rate = dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, causal: bool) -> Tensor:
        """(N, T, d) and (N, S, d) to (N, T, d); `causal`: no position sees a later one."""
        query = self._split_heads(self.query(x))
        key, value = map(self._split_heads, self.key_value(memory).chunk(2, dim=-1))
        rate = self.rate if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=rate, is_causal=causal)
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


def _feed_forward(width: int, hidden: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), activation, nn.Linear(hidden, width))


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each followed by a normalisation of its sum with the input."""

    def __init__(self, width: int, hidden: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads, 0.0)
        self.feed_forward = _feed_forward(width, hidden, nn.ReLU())
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, S, d) to the same shape."""
        x = self.norms[0](x + self.dropout(self.attention(x, x, causal=False)))
        out: Tensor = self.norms[1](x + self.dropout(self.feed_forward(x)))
        return out


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's output, and a feed-forward network."""

    def __init__(self, width: int, hidden: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads, 0.0)
        self.cross_attention = Attention(width, num_heads, 0.0)
        self.feed_forward = _feed_forward(width, hidden, nn.ReLU())
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(N, T, d), with the encoder's output (N, S, d), to (N, T, d)."""
        x = self.norms[0](x + self.dropout(self.attention(x, x, causal=True)))
        x = self.norms[1](x + self.dropout(self.cross_attention(x, memory, causal=False)))
        out: Tensor = self.norms[2](x + self.dropout(self.feed_forward(x)))
        return out


class Transformer(nn.Module):
    """Encoder and decoder over one vocabulary, whose embedding is the output's weight too (sections 3.1 to 3.5)."""

    def __init__(
        self, vocabulary: int, width: int, hidden: int, num_heads: int, num_layers: int, dropout: float, longest: int
    ) -> None:
        super().__init__()
        sizes = (width, hidden, num_heads, dropout)
        self.embedding = nn.Embedding(vocabulary, width)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(num_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(num_layers))
        self.output = nn.Linear(width, vocabulary, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("positions", _sinusoidal_positions(longest, width), persistent=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.output.weight = self.embedding.weight

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Token ids (N, S) and (N, T) to scores (N, T, vocabulary)."""
        memory = self._embed_tokens(source)
        for layer in self.encoder:
            memory = layer(memory)
        x = self._embed_tokens(target)
        for layer in self.decoder:
            x = layer(x, memory)
        scores: Tensor = self.output(x)
        return scores

    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        embedded = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        out: Tensor = self.dropout(embedded + self.get_buffer("positions")[: tokens.shape[1]])
        return out


def _sinusoidal_positions(longest: int, width: int) -> Tensor:
    """Section 3.5: sine and cosine of each position at wavelengths from 2 pi to 10,000 x 2 pi."""
    angles = torch.arange(longest)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def transformer_base() -> nn.Module:
    """Table 3, base: 6 + 6 layers, d 512, feed-forward 2,048, 8 heads, a shared vocabulary of 37,000, post-norm."""
    return Transformer(37_000, 512, 2_048, 8, 6, 0.1, longest=1_024)


class GPT2Layer(nn.Module):
    """Causal self-attention and a feed-forward network, each behind a normalisation of its own."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, dropout)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.feed_forward = _feed_forward(width, 4 * width, nn.GELU(approximate="tanh"))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, d) to the same shape."""
        normed = self.norm_attention(x)
        x = x + self.dropout(self.attention(normed, normed, causal=True))
        out: Tensor = x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))
        return out


class GPT2(nn.Module):
    """A decoder with learned positions, whose embedding is the output's weight too."""

    def __init__(self, vocabulary: int, longest: int, width: int, num_heads: int, num_layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(longest, width)
        self.layers = nn.ModuleList(GPT2Layer(width, num_heads, 0.1) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary, bias=False)
        self.dropout = nn.Dropout(0.1)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                # Those that end in a residual sum are divided by the square root of their number.
                last = name.endswith(("attention.output.weight", "feed_forward.2.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * num_layers) if last else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (N, T) to scores (N, T, vocabulary)."""
        x = self.dropout(self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device)))
        for layer in self.layers:
            x = layer(x)
        scores: Tensor = self.output(self.norm(x))
        return scores


def gpt2_small() -> nn.Module:
    """12 layers, d 768, 12 heads, a vocabulary of 50,257 tied to the output, up to 1,024 tokens."""
    return GPT2(50_257, 1_024, 768, 12, 12)
