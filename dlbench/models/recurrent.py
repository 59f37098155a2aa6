"""A recurrent language model: Zaremba et al. 2014, "Recurrent neural network regularization", the medium network."""

from torch import Tensor, nn


class RecurrentLanguageModel(nn.Module):
    """Embedding, LSTM layers and an output of its own weights; the state is zero at the head of each sequence.

    PyTorch's LSTM has two biases per gate.
    """

    def __init__(self, vocabulary: int, width: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, num_layers, dropout=dropout, batch_first=True)
        self.output = nn.Linear(width, vocabulary)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.05, 0.05)  # section 4.1

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (N, T) to scores (N, T, vocabulary)."""
        states, _ = self.lstm(self.dropout(self.embedding(tokens)))
        scores: Tensor = self.output(self.dropout(states))
        return scores


def lstm_lm() -> nn.Module:
    """Vocabulary 10,000, embedding 650, two LSTM layers of 650, dropout 0.5."""
    return RecurrentLanguageModel(10_000, 650, 2, 0.5)
