"""Short texts as vectors: a vocabulary of whole words and a causal transformer (the text encoder of CLIP's form).

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020, section 2.4.
"""

import re
from collections.abc import Iterable, Sequence

import torch
from timm.layers import QuickGELU
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from scd.errors import UsageError

PADDING = 0
WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; everything but letters and digits separates them."""
    return WORD.findall(text.lower())


class Vocabulary:
    """The words of some texts, numbered in alphabetical order from 1; then the start and the end of a text.

    Args:
        texts: all that will be encoded.

    Attributes:
        words: in their order; start, end: numbers of these tokens, the two largest ones.
        length: tokens of the longest text, start and end included.

    NOTE: CLIP splits words into pieces of a fixed vocabulary (49,152 byte pairs) and has a fixed length of 77 tokens.
    """

    def __init__(self, texts: Iterable[str]):
        split = [words_of(text) for text in texts]
        self.words = tuple(sorted({word for words in split for word in words}))
        self.numbers = {word: number for number, word in enumerate(self.words, start=1)}
        self.start, self.end = len(self.words) + 1, len(self.words) + 2
        self.length = max((len(words) for words in split), default=0) + 2

    def __len__(self) -> int:
        """How many different tokens there are, with start, end and padding."""
        return self.end + 1

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Tokens (T, ``length``) int64 of T texts: start, words, end, then padding.

        Raises:
            KeyError: a word that is not in the vocabulary.
        """
        rows = []
        for text in texts:
            tokens = [self.start, *(self.numbers[word] for word in words_of(text)), self.end]
            rows.append(tokens + [PADDING] * (self.length - len(tokens)))
        return torch.tensor(rows, dtype=torch.int64).view(len(texts), self.length)


class TextTransformer(nn.Module):
    """A causal transformer over tokens; the vector of a text is the last layer's output at its end token.

    Args:
        tokens: number of different tokens; the end token is the largest one.
        length: of the token sequences.
        width: C of the vectors. depth: number of blocks. heads: of their attention.

    Raises:
        UsageError: heads that do not divide the width.

    Tokens after the end, such as padding, cannot change a vector: a token attends to itself and earlier ones.
    """

    def __init__(self, tokens: int, length: int, width: int, depth: int, heads: int):
        super().__init__()
        if width % heads:
            raise UsageError(f"a text transformer's {heads} heads must divide its width {width}")
        self.dim = width
        self.embed = nn.Embedding(tokens, width)
        self.positions = nn.Parameter(torch.empty(length, width))
        options = {"mlp_ratio": 4.0, "qkv_bias": True, "act_layer": QuickGELU, "norm_layer": nn.LayerNorm}
        self.blocks = nn.ModuleList([Block(width, heads, **options) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        """CLIP's first weights: the residual branches' last layers are smaller the more blocks there are."""
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        width, depth = self.dim, len(self.blocks)
        for block in self.blocks:
            nn.init.normal_(block.attn.qkv.weight, std=width**-0.5)
            nn.init.normal_(block.mlp.fc1.weight, std=(2 * width) ** -0.5)
            for last in (block.attn.proj, block.mlp.fc2):
                nn.init.normal_(last.weight, std=(2 * width * depth) ** -0.5)
            for layer in (block.attn.qkv, block.attn.proj):
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors (T, C) of token sequences (T, ``length``) int64."""
        x = self.embed(tokens) + self.positions  # (T, L, C)
        for block in self.blocks:
            x = block(x, is_causal=True)
        ends = tokens.argmax(dim=1)
        return self.norm(x.take_along_dim(ends[:, None, None], dim=1)[:, 0])
