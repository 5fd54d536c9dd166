"""Images to vectors: what the model pools, in any batch; broken images and models are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from llmrec.data.catalog import Catalog
from llmrec.errors import DataError, MissingExtraError, ModelLoadError
from llmrec.language import pretrained
from llmrec.language.image_encoder import ImageEncoder, embed_item_images
from tests.language.tiny_models import save_bert, save_clip, save_vit

Images: Any = pytest.importorskip("PIL.Image", reason="needs the extra images")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ImageEncoder:
    return ImageEncoder.load(str(save_vit(tmp_path_factory.mktemp("vit"))), device="cpu")


def picture(seed: int, width: int = 20, height: int = 30) -> Any:
    """An image of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Images.fromarray(pixels)


def unit(values: torch.Tensor) -> np.ndarray[Any, Any]:
    return np.asarray((values / values.norm(dim=-1, keepdim=True)).numpy())


def pixels_of(encoder: ImageEncoder, image: Any) -> torch.Tensor:
    found: torch.Tensor = encoder.processor(images=image, return_tensors="pt")["pixel_values"]
    return found


def test_a_vector_is_the_pooled_output_of_the_image(encoder: ImageEncoder) -> None:
    with torch.inference_mode():
        expected = encoder.model(pixels_of(encoder, picture(0))).pooler_output
    found = encoder.embed([picture(0)])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, unit(expected), atol=1e-6)


def test_without_pooling_weights_a_vector_is_the_mean_state_of_the_patches(tmp_path: Path) -> None:
    encoder = ImageEncoder.load(str(save_vit(tmp_path, pooling=False)), device="cpu")
    with torch.inference_mode():
        states = encoder.model(pixels_of(encoder, picture(0))).last_hidden_state
    assert states.shape[1] == 5  # four patches and the class token
    np.testing.assert_allclose(encoder.embed([picture(0)]), unit(states.mean(dim=1)), atol=1e-6)


def test_of_a_model_of_images_and_texts_it_is_what_is_compared_with_texts(tmp_path: Path) -> None:
    encoder = ImageEncoder.load(str(save_clip(tmp_path)), device="cpu")
    found = encoder.embed([picture(0), picture(1)])
    assert found.shape == (2, 24)
    with torch.inference_mode():
        vision = encoder.model.vision_model(pixels_of(encoder, picture(1))).pooler_output
        expected = encoder.model.visual_projection(vision)
    np.testing.assert_allclose(found[1:], unit(expected), atol=1e-6)


def test_an_image_gets_the_same_vector_alone_among_others_and_from_its_file(
    encoder: ImageEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [picture(seed, 10 + seed, 12) for seed in range(5)]
    paths = [tmp_path / f"{seed}.png" for seed in range(5)]
    for image, path in zip(pictures, paths, strict=True):
        image.save(path)
    found = encoder.embed(pictures)
    alone = np.concatenate([encoder.embed([image]) for image in pictures])
    np.testing.assert_allclose(found, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert encoder.embed([*paths[:3], str(paths[3]), pictures[4]]).tobytes() == found.tobytes()
    monkeypatch.setattr("llmrec.language.image_encoder.IMAGES_PER_BATCH", 2)
    np.testing.assert_allclose(encoder.embed(pictures), found, atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_no_image_gives_no_vector(encoder: ImageEncoder) -> None:
    assert encoder.embed([]).shape == (0, 32)


def test_a_transparent_image_stands_on_white_and_a_turned_one_is_upright(
    encoder: ImageEncoder, tmp_path: Path
) -> None:
    clear = Images.new("RGBA", (9, 9), (255, 0, 0, 0))
    white = Images.new("RGB", (9, 9), "white")
    assert encoder.embed([clear]).tobytes() == encoder.embed([white]).tobytes()
    tags = Images.Exif()
    tags[0x0112] = 6  # the camera was turned by a quarter
    picture(0).save(tmp_path / "turned.png", exif=tags)
    upright = picture(0).transpose(Images.Transpose.ROTATE_270)
    found = encoder.embed([tmp_path / "turned.png"])
    assert found.tobytes() == encoder.embed([upright]).tobytes()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA"])
def test_images_of_any_colours_are_read(encoder: ImageEncoder, mode: str) -> None:
    assert np.isfinite(encoder.embed([picture(0).convert("L").convert(mode)])).all()


def broken_files(folder: Path) -> dict[str, Path]:
    (folder / "text.png").write_text("no image")
    (folder / "empty.jpg").write_bytes(b"")
    picture(0, 200, 200).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:5_000])
    return {name: folder / name for name in ("text.png", "empty.jpg", "cut.png", "absent.png")}


def test_an_image_that_cannot_be_read_is_named(encoder: ImageEncoder, tmp_path: Path) -> None:
    for name, path in broken_files(tmp_path).items():
        with pytest.raises(DataError, match=rf"{name} (cannot be read|is not there)"):
            encoder.embed([picture(0), path])
    with pytest.raises(DataError, match="image 1 is of type int"):
        encoder.embed([picture(0), 7])  # type: ignore[list-item]


def catalog_of(ids: list[str]) -> Catalog:
    return Catalog.from_frame(pd.DataFrame({"item_id": ids, "categories": [["A"]] * len(ids)}))


def test_items_get_the_vectors_of_their_images_and_the_others_are_named(
    encoder: ImageEncoder, tmp_path: Path
) -> None:
    broken = broken_files(tmp_path)
    items = catalog_of(["1", "b", "c", *broken])
    given = {1.0: picture(1), "c": tmp_path / "whole.png", "q": picture(2), **broken}
    found = embed_item_images(items, given, encoder)
    expected = encoder.embed([picture(1), tmp_path / "whole.png"])
    np.testing.assert_allclose(found.matrix[[0, 2]], expected, atol=1e-6)
    assert np.isnan(np.delete(found.matrix, [0, 2], axis=0)).all()
    assert found.missing == ("b",)
    assert set(found.broken) == set(broken)
    assert found.unknown == ("q",)
    lines = str(found).splitlines()
    assert lines[0] == "2 of 7 items have an image"
    assert "  1 items without an image: 'b'" in lines
    assert "  4 images cannot be read" in lines
    block = items.with_features("image", found.matrix).features["image"]
    np.testing.assert_array_equal(block, found.matrix)


def test_a_catalog_without_a_readable_image_is_refused(
    encoder: ImageEncoder, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="write ids as it does"):
        embed_item_images(catalog_of(["a"]), {"b": picture(0)}, encoder)
    with pytest.raises(DataError, match=r"such as .*absent\.png is not there"):
        embed_item_images(catalog_of(["a"]), {"a": tmp_path / "absent.png"}, encoder)


def with_processor(**changes: Any) -> Callable[[Path], None]:
    """Give a function that changes how a folder's model has images prepared."""

    def change(folder: Path) -> None:
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "no preprocessor_config"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (cut_weights, "cannot be loaded"),
        (with_processor(size={"height": 10**6, "width": 16}), r"size\.height is 1000000"),
        (with_processor(size=10**6), "size is 1000000"),
        (with_processor(image_processor_type="Trainer"), "is no image processor"),
        (with_processor(auto_map={"AutoImageProcessor": "code.Own"}), "no code of a model is run"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_refused(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    change(save_vit(tmp_path))
    with pytest.raises(ModelLoadError, match=message):
        ImageEncoder.load(str(tmp_path), device="cpu")


def test_a_model_of_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="which prepares images"):
        ImageEncoder.load(str(save_bert(tmp_path)), device="cpu")


def test_without_pillow_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'llmrec\[images\]'"):
        ImageEncoder.load(str(save_vit(tmp_path)))
