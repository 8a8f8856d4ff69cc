"""Asks a causal language model in this process, a batch of questions at a time; it reads text only."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgkd import language
from jaxgkd.errors import ConfigError, DataError, UnsupportedModelError
from jaxgkd.teachers.describe import Failure, Question, Reply
from jaxgkd.teachers.prompts import bare_tokenizer

# Prompts are padded to a multiple of this, so that few shapes are compiled.
_WIDTH_STEP = 64


@dataclass(frozen=True, eq=False)
class LocalDescriber:
    """A causal model with its tokenizer.

    Fields:
      name: for people, and for the file of answers.
      model, tokenizer: of `jaxgkd.language`.
      weights_hash: of the checkpoint.
      stop_tokens: ids that end an answer.
      max_tokens: of an answer.
      temperature: 0 takes the most probable token every time.
      batch_size: questions answered at once; an answer is kept once its batch is done.
      seed: of the drawing of tokens above temperature 0.
    """

    name: str
    model: language.Decoder
    tokenizer: language.Tokenizer
    weights_hash: str
    stop_tokens: tuple[int, ...]
    max_tokens: int = 400
    temperature: float = 0.0
    batch_size: int = 8
    seed: int = 0

    def __post_init__(self):
        """Raises ConfigError for a value that cannot be used; the message names the field."""
        for name in ("max_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"the value is {getattr(self, name)}", field=name, mend="give 1 or more")
        if self.temperature < 0:
            raise ConfigError(f"the value is {self.temperature}", field="temperature", mend="give 0 or more")

    @classmethod
    def load(cls, path_or_id: str, **settings: Any) -> "LocalDescriber":
        """From a folder, the Hugging Face cache or the hub; `settings` are the last fields.

        Raises:
          UnsupportedModelError: the model is not causal, or would not be reproduced exactly.
          CheckpointError: it cannot be found or read.
        """
        folder = language.resolve(path_or_id)
        model, tokenizer = language.load(folder), language.load_tokenizer(folder)
        if not isinstance(model, language.Decoder):
            mend = "give a causal model, best one that was tuned to follow instructions"
            raise UnsupportedModelError("the model does not write text", file=folder, mend=mend)
        stops = _stop_tokens(folder, tokenizer)
        return cls(Path(path_or_id).name, model, tokenizer, language.weights_hash(folder), stops, **settings)

    @property
    def settings(self) -> dict[str, Any]:
        """What of this decides an answer."""
        return {
            "model": self.name,
            "weights": self.weights_hash,
            "tokenizer": self.tokenizer.hash,
            "chat_template": self._chat_template,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed if self.temperature else None,
        }

    @property
    def _chat_template(self) -> Any:
        return getattr(self.tokenizer._tokenizer, "chat_template", None)

    def replies(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply | Failure]]:
        """Every question with its reply; all are read first, and the short ones are answered first.

        Raises:
          ConfigError: a question has a picture, or the chat template cannot be used.
        """
        asked = [(question, self.prompt(question)) for question in questions]
        room = self.model.max_tokens - self.max_tokens
        for question, prompt in asked:
            if len(prompt) > room:
                reason = f"a prompt of {len(prompt)} tokens and {self.max_tokens} more are too many for the model"
                yield question, Failure(reason, of_question=True)
        fitting = sorted((pair for pair in asked if len(pair[1]) <= room), key=lambda pair: len(pair[1]))
        for start in range(0, len(fitting), self.batch_size):
            batch = fitting[start : start + self.batch_size]
            replies = self._answer([prompt for _, prompt in batch], room, seed=self.seed + start)
            yield from zip((question for question, _ in batch), replies, strict=True)

    def prompt(self, question: Question) -> np.ndarray:
        """Token ids [t] of a question in the form the model was taught, or as plain text where it has none."""
        if question.image is not None:
            raise ConfigError("a local model sees no pictures", field="parts", mend="leave image out")
        bare = bare_tokenizer(self.tokenizer)
        if self._chat_template is None:
            text = f"{question.system}\n\n{question.text}\n\nDescription:"
            return np.asarray(bare.encode(text).ids, np.int32)
        # The template writes the special tokens itself.
        return np.asarray(bare.encode(self._chat(question), add_special_tokens=False).ids, np.int32)

    def _chat(self, question: Question) -> str:
        with_role = [{"role": "system", "content": question.system}, {"role": "user", "content": question.text}]
        # Some templates refuse a role of the system.
        without = [{"role": "user", "content": f"{question.system}\n\n{question.text}"}]
        reason = ""
        for messages in (with_role, without):
            try:
                return self.tokenizer._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            except ImportError:
                mend = "install it with pip install jinja2"
                raise ConfigError("the model's chat template needs the package jinja2", mend=mend) from None
            except Exception as error:  # whatever a template's author lets it raise
                reason = " ".join(str(error).split())[:160]
        raise ConfigError(
            f"the chat template cannot be used ({reason})", file=self.tokenizer.folder, mend="choose another model"
        )

    def _answer(self, prompts: Sequence[np.ndarray], room: int, *, seed: int) -> list[Reply | Failure]:
        """Replies to a batch; the last prompt is repeated to fill it, so that its shape is one of few."""
        filled = [*prompts, *[prompts[-1]] * (self.batch_size - len(prompts))]
        batch = language.pad(
            filled, padding_id=self.tokenizer.padding_id, side="left", multiple=_WIDTH_STEP, max_tokens=room
        )
        ids, mask = (jnp.asarray(values) for values in batch)
        sampling = language.Sampling(self.temperature) if self.temperature else None
        options: dict[str, Any] = {"stop_tokens": self.stop_tokens, "sampling": sampling, "seed": seed}
        made = language.generate(self.model, ids, mask, max_new_tokens=self.max_tokens, **options)
        tokens, kept = np.asarray(made.tokens), np.asarray(made.mask) > 0
        replies = []
        for i, prompt in enumerate(prompts):
            new = tokens[i, kept[i]]
            ended = int(new[-1]) in self.stop_tokens
            text = self.tokenizer.decode(new[:-1] if ended else new).strip()
            reply = Reply(text, len(prompt), len(new), "stop" if ended else "length")
            replies.append(reply if text else Failure("empty answer", of_question=True))
        return replies


def _stop_tokens(folder: Path, tokenizer: language.Tokenizer) -> tuple[int, ...]:
    """What the checkpoint says ends an answer, in generation_config.json and config.json, and the tokenizer's end."""
    stops = set() if tokenizer.end_id is None else {tokenizer.end_id}
    for name in ("generation_config.json", "config.json"):
        file = folder / name
        if not file.is_file():
            continue
        try:
            fields = json.loads(file.read_bytes())
        except ValueError:
            raise DataError("is no JSON", file=file, mend="download it again") from None
        said = fields.get("eos_token_id") if isinstance(fields, Mapping) else None
        stops |= {token for token in (said if isinstance(said, list) else [said]) if isinstance(token, int)}
    return tuple(sorted(token for token in stops if token >= 0))
