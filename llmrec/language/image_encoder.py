"""Images to vectors by a model of images, and a block of features from the images of items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from llmrec.data.catalog import Catalog
from llmrec.data.ids import format_id
from llmrec.data.item_features import FeatureMatrix
from llmrec.errors import DataError
from llmrec.language.pretrained import load_image_encoder

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedModel

IMAGES_PER_BATCH = 32
EXAMPLES = 3  # items that a summary names of a kind


class ImageEncoder:
    """An encoder of images as unit vectors: the product of two is their cosine.

    Parameters
    ----------
    name
        What it is called in reports.
    model, processor
        From transformers, in evaluation mode; see `load`.
    """

    def __init__(self, name: str, model: PreTrainedModel, processor: Any) -> None:
        self.name, self.model, self.processor = name, model, processor

    @classmethod
    def load(cls, name: str, *, device: str = "auto") -> ImageEncoder:
        """Load from a local folder or by a hub id, such as of a ViT, DINOv2, CLIP or SigLIP.

        Raises
        ------
        ModelLoadError, MissingExtraError
            See `load_image_encoder`.
        """
        return cls(name, *load_image_encoder(name, device=device))

    def embed(self, images: Sequence[Image | Path | str]) -> FeatureMatrix:
        """(n_images, d) unit vectors: the pooled output, or the mean of the last hidden states.

        Of a model of images and texts it is what the model compares with texts. Images are turned
        as their camera says, and stand on white where they are transparent.

        Raises
        ------
        DataError
            If an image cannot be read; it names the path, or the position.
        """
        parts = []
        for start in range(0, len(images), IMAGES_PER_BATCH):
            batch = images[start : start + IMAGES_PER_BATCH]
            opened = [_open_image(image, start + place) for place, image in enumerate(batch)]
            parts.append(self._embed_batch([self._pixels(image) for image in opened]))
        return np.concatenate(parts) if parts else np.empty((0, self._width), dtype=np.float32)

    @property
    def _width(self) -> int:
        """How many numbers a vector has."""
        from PIL import Image as Images

        return int(self._embed_batch([self._pixels(Images.new("RGB", (8, 8)))]).shape[1])

    def _pixels(self, image: Image) -> torch.Tensor:
        """(n_channels, height, width) what the model sees of an image."""
        found: torch.Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"]
        if found.ndim != 4 or len(found) != 1:
            shape = tuple(found.shape)
            raise DataError(
                f"{self.name!r} makes {shape} of an image, not (1, channels, height, width): give "
                "an encoder that takes whole images, such as ViT, DINOv2, CLIP or SigLIP."
            )
        return found[0]

    def _embed_batch(self, pixels: Sequence[torch.Tensor]) -> FeatureMatrix:
        """(n_images, d) unit vectors; images of one size go together through the model."""
        places: dict[torch.Size, list[int]] = defaultdict(list)
        for place, one in enumerate(pixels):
            places[one.shape].append(place)
        rows: list[FeatureMatrix] = [np.empty(0, dtype=np.float32)] * len(pixels)
        for equal in places.values():
            stacked = torch.stack([pixels[place] for place in equal]).to(self.model.device)
            with torch.inference_mode():
                found = self._pooled(stacked).float().flatten(1).cpu().numpy()
            norms = np.linalg.norm(found, axis=1, keepdims=True)
            for place, row in zip(equal, found / np.maximum(norms, 1e-12), strict=True):
                rows[place] = row
        return np.stack(rows)

    def _pooled(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n_images, d, ...) one vector an image."""
        if hasattr(self.model, "get_image_features"):
            found = self.model.get_image_features(pixel_values=pixels)
            return torch.as_tensor(getattr(found, "pooler_output", found))
        output = self.model(pixel_values=pixels)
        if (pooled := getattr(output, "pooler_output", None)) is not None:
            return torch.as_tensor(pooled)
        states = output.last_hidden_state  # of tokens, or (n_images, d, height, width)
        return torch.as_tensor(states.mean(dim=1) if states.ndim == 3 else states.mean(dim=(2, 3)))


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Vectors of the images of a catalog's items, and which items have none.

    Attributes
    ----------
    matrix
        (n_items, d) unit vectors for `Catalog.with_features`; NaN for an item without.
    missing
        Ids of the items for which no image was given.
    broken
        What is wrong with the images that could not be read, by item id.
    unknown
        Ids that were given an image and are not in the catalog.
    """

    matrix: FeatureMatrix
    missing: tuple[str, ...]
    broken: Mapping[str, str]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        """One line for each kind of item, with a few of them."""
        n_items = len(self.matrix)
        found = n_items - len(self.missing) - len(self.broken)
        lines = [f"{found:,} of {n_items:,} items have an image"]
        for what, ids in (
            ("items without an image", self.missing),
            ("images of items that are not in the catalog", self.unknown),
        ):
            shown = ", ".join(map(repr, ids[:EXAMPLES])) + ", ..." * (len(ids) > EXAMPLES)
            lines += [f"  {len(ids):,} {what}: {shown}"] if ids else []
        reasons = list(self.broken.items())
        lines += [f"  {len(reasons):,} images cannot be read"] if reasons else []
        lines += [f"    {item_id!r}: {reason}" for item_id, reason in reasons[:EXAMPLES]]
        return "\n".join(lines)


def embed_item_images(
    catalog: Catalog, images: Mapping[Any, Image | Path | str], encoder: ImageEncoder
) -> ImageFeatures:
    """Embed the images of a catalog's items; those that are missing or broken are named.

    Parameters
    ----------
    images
        Item id to its image, or the path of it.

    Raises
    ------
    DataError
        If no item of the catalog has an image that can be read.
    """
    given = {format_id(item_id): image for item_id, image in images.items()}
    ids = catalog.item_ids.tolist()
    vectors, broken = dict[str, FeatureMatrix](), dict[str, str]()
    wanted = [item_id for item_id in ids if item_id in given]
    for start in range(0, len(wanted), IMAGES_PER_BATCH):
        opened = {}
        for item_id in wanted[start : start + IMAGES_PER_BATCH]:
            try:
                opened[item_id] = _open_image(given[item_id], start)
            except DataError as error:
                broken[item_id] = str(error)
        if opened:
            vectors |= zip(opened, encoder.embed(list(opened.values())), strict=True)
    if not vectors:
        why = f", such as {next(iter(broken.values()))}" if broken else ": write ids as it does"
        raise DataError(f"no item of the catalog has an image that can be read{why}.")
    width = len(next(iter(vectors.values())))
    matrix = np.full((catalog.n_items, width), np.nan, dtype=np.float32)
    for row, item_id in enumerate(ids):
        if item_id in vectors:
            matrix[row] = vectors[item_id]
    missing = tuple(item_id for item_id in ids if item_id not in given)
    return ImageFeatures(matrix, missing, broken, tuple(sorted(set(given) - set(ids))))


def _open_image(image: Image | Path | str, place: int) -> Image:
    """Read an image in red, green and blue; DataError names its path, or its place."""
    from PIL import Image as Images

    what = str(image) if isinstance(image, str | Path) else f"image {place}"
    try:
        if isinstance(image, str | Path):
            with Images.open(image) as opened:
                return _in_three_colours(opened)
        if isinstance(image, Images.Image):
            return _in_three_colours(image)
    except FileNotFoundError as error:
        raise DataError(f"{what} is not there") from error
    except (OSError, ValueError, SyntaxError, Images.DecompressionBombError) as error:
        raise DataError(f"{what} cannot be read: {error}") from error
    raise DataError(f"{what} is of type {type(image).__name__}: give a path or an image of Pillow")


def _in_three_colours(image: Image) -> Image:
    """Turn an image as its camera says, and put it on white where it is transparent."""
    from PIL import Image as Images
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    over = upright.convert("RGBA")
    return Images.alpha_composite(Images.new("RGBA", over.size, "white"), over).convert("RGB")
