"""Models to train and their losses: a read position at every tick's end, a line after the last."""

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
    """Read slots of a batch, and what they are to say.

    Attributes
    ----------
    row, back
        (n_slots,) which sequence of the batch, and how many positions lie after the slot.
    log_prior, shares
        (n_slots, n_categories) what counting says, and what was really taken.
    taken
        (n_slots, most) numbers of the titles taken, -1 where there are no more.
    """

    row: Tensor
    back: Tensor
    log_prior: Tensor
    shares: Tensor
    taken: Tensor

    def to(self, device: torch.device | str) -> ReadPositions:
        """Give them on another device."""
        return ReadPositions(*(getattr(self, field.name).to(device) for field in fields(self)))


class TimelineModel(nn.Module):
    """A base model with LoRA inside, a readout, and the loss that trains both.

    loss = mean over slots of -sum_c share_c log q_c  (nats an event)
           + line_weight * mean over the line's tokens of -log p(token)
           + title_weight * mean over the titles taken of -log p(title)

    with q = softmax(log prior + z): a new readout gives z = 0, so training starts at the prior.

    Parameters
    ----------
    model
        Decoder or encoder-decoder; whatever of it requires a gradient is trained.
    names
        (n_categories, d) from `label_embeddings`.
    end
        Token that ends a line; it is learned like any other, whatever the padding token is.
    title_embeddings
        Of titles; without one nothing is said of them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        category_head: CategoryHead,
        names: Tensor,
        *,
        end: int,
        line_weight: float,
        title_embeddings: TitleEmbeddings | None = None,
        title_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.category_head, self.title_embeddings, self.end = (
            model,
            category_head,
            title_embeddings,
            end,
        )
        self.line_weight, self.title_weight = line_weight, title_weight
        self.register_buffer("names", names, persistent=False)

    def forward(
        self,
        prompts: Sequence[list[Position]],
        slots: ReadPositions,
        requests: Sequence[list[Position]] = (),
        lines: Sequence[list[int]] = (),
        n_positions: int = 0,
    ) -> dict[str, Tensor]:
        """Give the loss and its parts.

        Parameters
        ----------
        prompts
            Sequences to read; a slot's row is an index into them.
        requests, lines
            Sequences that end where a line starts, and the tokens of these lines.
        n_positions
            Of the prompts; nothing depends on it here, whoever measures speed counts it.

        Raises
        ------
        TrainingError
            If a slot has no target, or a line no tokens.
        """
        totals = slots.shares.sum(dim=1)
        if not len(totals) or bool((totals <= 0).any()):
            raise TrainingError("a row has no label: a read slot needs a target with a category")
        states = self.states(prompts, slots)
        log_weights = torch.log_softmax(
            slots.log_prior + self.category_head(states, self.names), dim=1
        )
        read = -(slots.shares * log_weights).sum(dim=1).mean()
        counted = -(slots.shares * slots.log_prior).sum(dim=1).mean()
        found = {"loss": read, "read_loss": read.detach(), "counting_loss": counted}
        if self.title_embeddings is not None and bool((slots.taken >= 0).any()):
            foretold = title_loss(self.title_embeddings.scores(states), slots.taken)
            found["loss"] = found["loss"] + self.title_weight * foretold
            found["title_loss"] = foretold.detach()
        if lines:
            written = self.line_loss(requests, lines)
            found["loss"] = found["loss"] + self.line_weight * written
            found["line_loss"] = written.detach()
        return found

    def scores(self, prompts: Sequence[list[Position]], slots: ReadPositions) -> Tensor:
        """(n_slots, n_categories) z at each slot."""
        scores: Tensor = self.category_head(self.states(prompts, slots), self.names)
        return scores

    def states(self, prompts: Sequence[list[Position]], slots: ReadPositions) -> Tensor:
        """(n_slots, d) hidden states at each slot."""
        embedded, mask = embed_positions(self.model, prompts, self.title_embeddings)
        if self.model.config.is_encoder_decoder:
            return self._started(embedded, mask)[slots.row]
        body = truncated_decoder(self.model, self.category_head.depth)
        hidden = body(inputs_embeds=embedded, use_cache=False, **_placed(mask))
        found: Tensor = hidden.last_hidden_state[slots.row, mask.shape[1] - 1 - slots.back]
        return found

    def _started(self, embedded: Tensor, mask: Tensor) -> Tensor:
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
        """Mean loss of the lines' tokens and ends; the model's head is applied to them only."""
        if not all(lines):
            raise TrainingError("a row has no label: a line to write has no tokens")
        ended = [[*line, self.end] for line in lines]
        labels = torch.tensor([token for line in ended for token in line], device=self.names.device)
        if self.model.config.is_encoder_decoder:
            states = self._decoded(requests, ended)
        else:
            rows = [
                [*request, *token_positions(line)]
                for request, line in zip(requests, lines, strict=True)
            ]
            embedded, mask = embed_positions(self.model, rows, self.title_embeddings)
            body = self.model.get_decoder()
            hidden = body(inputs_embeds=embedded, use_cache=False, **_placed(mask))
            # The last len(line) + 1 positions of a row say the line and its end.
            states = torch.cat(
                [
                    row[-len(line) :]
                    for row, line in zip(hidden.last_hidden_state, ended, strict=True)
                ]
            )
        return cross_entropy(self.model.get_output_embeddings()(states).float(), labels)

    def _decoded(self, requests: Sequence[list[Position]], ended: Sequence[list[int]]) -> Tensor:
        embedded, mask = embed_positions(self.model, requests, self.title_embeddings)
        start, width = self.model.config.decoder_start_token_id, max(map(len, ended))
        ids = [[start, *line[:-1], *[start] * (width - len(line))] for line in ended]
        output = self.model.get_decoder()(
            input_ids=torch.tensor(ids, device=mask.device),
            encoder_hidden_states=self.model.get_encoder()(
                inputs_embeds=embedded, attention_mask=mask
            ).last_hidden_state,
            encoder_attention_mask=mask,
            use_cache=False,
        )
        found = output.last_hidden_state
        if getattr(self.model.config, "scale_decoder_outputs", False):
            found = found * self.model.config.d_model**-0.5
        return torch.cat([row[: len(line)] for row, line in zip(found, ended, strict=True)])


def title_loss(scores: Tensor, taken: Tensor) -> Tensor:
    """Mean over the titles taken of -log softmax(scores), nats; see `ReadPositions.taken`."""
    slot, place = (taken >= 0).nonzero(as_tuple=True)
    return -torch.log_softmax(scores, dim=1)[slot, taken[slot, place]].mean()


def _placed(mask: Tensor) -> dict[str, Tensor]:
    """Say which positions are real and where each stands: padding is on the left."""
    return {"attention_mask": mask, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}


class LineModel(nn.Module):
    """A `TimelineModel` of which the lines alone are learned, by layers that it does not read."""

    def __init__(self, reader: TimelineModel) -> None:
        super().__init__()
        self.reader = reader

    def forward(
        self, requests: Sequence[list[Position]], lines: Sequence[list[int]], n_positions: int = 0
    ) -> dict[str, Tensor]:
        """Give the mean loss of the lines' tokens and ends, nats."""
        return {"loss": self.reader.line_loss(requests, lines)}
