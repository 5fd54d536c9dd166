"""Models to train and their losses: category scores at every tick's end, and a line at the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from llmrec.errors import TrainingError
from llmrec.language.forward import embed_positions, truncated_decoder
from llmrec.language.heads import CategoryHead, TitleEmbeddings
from llmrec.language.tokenization import Position, token_positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class ReadPositions:
    """The read positions of a batch, and their targets.

    Attributes
    ----------
    row, back
        (n,) sequence of the batch, and how many of its positions come after the read position.
    log_prior, shares
        (n, n_categories) log of the expected shares, by counting, and the observed shares.
    target_titles
        (n, max_titles) numbers of the observed titles, filled up with -1.
    """

    row: Tensor
    back: Tensor
    log_prior: Tensor
    shares: Tensor
    target_titles: Tensor

    def to(self, device: torch.device | str) -> ReadPositions:
        """Give them on another device."""
        return ReadPositions(*(getattr(self, field.name).to(device) for field in fields(self)))


class TimelineModel(nn.Module):
    """A base model with LoRA inside, a category head, and the loss that trains both.

    loss = mean over read positions of -sum_c share_c log q_c  (nats an event)
           + line_weight * mean over the line's tokens of -log p(token)
           + title_weight * mean over the observed titles of -log p(title)

    with q = softmax(log prior + z): a new category head gives z = 0, so training starts at the
    prior.

    Parameters
    ----------
    model
        Decoder or encoder-decoder; whatever of it requires a gradient is trained.
    label_embeddings
        (n_categories, d) from `llmrec.language.heads.label_embeddings`.
    end
        Token that ends a line; it is learned like any other, whatever the padding token is.
    title_embeddings
        None: titles have no embeddings and no loss.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        category_head: CategoryHead,
        label_embeddings: Tensor,
        *,
        end: int,
        line_weight: float,
        title_embeddings: TitleEmbeddings | None = None,
        title_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.category_head = model, category_head
        self.title_embeddings, self.end = title_embeddings, end
        self.line_weight, self.title_weight = line_weight, title_weight
        self.register_buffer("label_embeddings", label_embeddings, persistent=False)

    def forward(
        self,
        prompts: Sequence[list[Position]],
        read_positions: ReadPositions,
        requests: Sequence[list[Position]] = (),
        lines: Sequence[list[int]] = (),
        n_positions: int = 0,
    ) -> dict[str, Tensor]:
        """Compute the loss and its parts.

        Parameters
        ----------
        prompts
            Sequences to score; ``read_positions.row`` is an index into them.
        requests, lines
            Sequences that end where a line starts, and the tokens of these lines.
        n_positions
            Of the prompts. It is not used here, but by the Trainer for its speed.

        Raises
        ------
        TrainingError
            If a read position has no target, or a line no tokens.
        """
        totals = read_positions.shares.sum(dim=1)
        if not len(totals) or bool((totals <= 0).any()):
            raise TrainingError("a row has no label: a read position needs a target category")
        states = self.states(prompts, read_positions)
        log_weights = torch.log_softmax(
            read_positions.log_prior + self.category_head(states, self.label_embeddings), dim=1
        )
        category_loss = -(read_positions.shares * log_weights).sum(dim=1).mean()
        counting_loss = -(read_positions.shares * read_positions.log_prior).sum(dim=1).mean()
        # Checkpoints have held the parts under these names since version 0.1.
        outputs = {
            "loss": category_loss,
            "read_loss": category_loss.detach(),
            "counting_loss": counting_loss,
        }
        titles = read_positions.target_titles
        if self.title_embeddings is not None and bool((titles >= 0).any()):
            loss = title_loss(self.title_embeddings.scores(states), titles)
            outputs["loss"] = outputs["loss"] + self.title_weight * loss
            outputs["title_loss"] = loss.detach()
        if lines:
            loss = self.line_loss(requests, lines)
            outputs["loss"] = outputs["loss"] + self.line_weight * loss
            outputs["line_loss"] = loss.detach()
        return outputs

    def scores(self, prompts: Sequence[list[Position]], read_positions: ReadPositions) -> Tensor:
        """(n, n_categories) z at each read position."""
        states = self.states(prompts, read_positions)
        scores: Tensor = self.category_head(states, self.label_embeddings)
        return scores

    def states(self, prompts: Sequence[list[Position]], read_positions: ReadPositions) -> Tensor:
        """(n, d) hidden states at each read position."""
        embedded, mask = embed_positions(self.model, prompts, self.title_embeddings)
        if self.model.config.is_encoder_decoder:
            return self._first_decoder_states(embedded, mask)[read_positions.row]
        decoder = truncated_decoder(self.model, self.category_head.depth)
        output = decoder(inputs_embeds=embedded, use_cache=False, **_mask_inputs(mask))
        columns = mask.shape[1] - 1 - read_positions.back
        states: Tensor = output.last_hidden_state[read_positions.row, columns]
        return states

    def _first_decoder_states(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """(n_rows, d) states at the first position of an encoder-decoder's decoder."""
        encoded = self.model.get_encoder()(inputs_embeds=embedded, attention_mask=mask)
        start = torch.full_like(mask[:, :1], self.model.config.decoder_start_token_id)
        output = self.model.get_decoder()(
            input_ids=start,
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=mask,
            use_cache=False,
        )
        states: Tensor = output.last_hidden_state[:, 0]
        return states

    def line_loss(self, requests: Sequence[list[Position]], lines: Sequence[list[int]]) -> Tensor:
        """Mean loss of the lines' tokens and ends, nats."""
        if not all(lines):
            raise TrainingError("a row has no label: a line has no tokens")
        targets = [[*line, self.end] for line in lines]
        labels = torch.tensor(
            [token for line in targets for token in line], device=self.label_embeddings.device
        )
        if self.model.config.is_encoder_decoder:
            states = self._encoder_decoder_states(requests, targets)
        else:
            states = self._decoder_states(requests, targets)
        # The model's own head, over the vocabulary, is applied to these states only.
        return cross_entropy(self.model.get_output_embeddings()(states).float(), labels)

    def _decoder_states(
        self, requests: Sequence[list[Position]], targets: Sequence[list[int]]
    ) -> Tensor:
        """(n_tokens, d) states of a decoder that predict the tokens of the lines and their ends."""
        rows = [
            [*request, *token_positions(line[:-1])]
            for request, line in zip(requests, targets, strict=True)
        ]
        embedded, mask = embed_positions(self.model, rows, self.title_embeddings)
        decoder = self.model.get_decoder()
        output = decoder(inputs_embeds=embedded, use_cache=False, **_mask_inputs(mask))
        states = zip(output.last_hidden_state, targets, strict=True)
        return torch.cat([row[-len(line) :] for row, line in states])

    def _encoder_decoder_states(
        self, requests: Sequence[list[Position]], targets: Sequence[list[int]]
    ) -> Tensor:
        """(n_tokens, d) states of a decoder behind an encoder, as in `_decoder_states`."""
        embedded, mask = embed_positions(self.model, requests, self.title_embeddings)
        start, width = self.model.config.decoder_start_token_id, max(map(len, targets))
        ids = [[start, *line[:-1], *[start] * (width - len(line))] for line in targets]
        output = self.model.get_decoder()(
            input_ids=torch.tensor(ids, device=mask.device),
            encoder_hidden_states=self.model.get_encoder()(
                inputs_embeds=embedded, attention_mask=mask
            ).last_hidden_state,
            encoder_attention_mask=mask,
            use_cache=False,
        )
        states = output.last_hidden_state
        if getattr(self.model.config, "scale_decoder_outputs", False):
            states = states * self.model.config.d_model**-0.5
        return torch.cat([row[: len(line)] for row, line in zip(states, targets, strict=True)])


def title_loss(scores: Tensor, target_titles: Tensor) -> Tensor:
    """Mean over the observed titles of -log softmax(scores), nats; see `ReadPositions`."""
    row, column = (target_titles >= 0).nonzero(as_tuple=True)
    return -torch.log_softmax(scores, dim=1)[row, target_titles[row, column]].mean()


def _mask_inputs(mask: Tensor) -> dict[str, Tensor]:
    """Give a decoder's inputs that follow from a mask whose padding is on the left."""
    return {"attention_mask": mask, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}


class LineModel(nn.Module):
    """A `TimelineModel` whose lines alone are trained, in layers above those that score."""

    def __init__(self, timeline_model: TimelineModel) -> None:
        super().__init__()
        self.timeline_model = timeline_model

    def forward(
        self, requests: Sequence[list[Position]], lines: Sequence[list[int]], n_positions: int = 0
    ) -> dict[str, Tensor]:
        """Give the mean loss of the lines' tokens and ends, nats."""
        return {"loss": self.timeline_model.line_loss(requests, lines)}
