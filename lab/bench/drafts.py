"""What drafts from a request's own text bring: a text repeated, and a free answer.

    python -m lab.bench.drafts --model DIR [--drafts 0 4 8 12] [--rounds 3]

One request at a time, greedy. Every round runs each prompt with each length of draft, and stops
where an answer is not the one without drafts.
"""

from __future__ import annotations

import argparse
import itertools
import time

from server.engine.engine import EngineConfig
from server.engine.loading import load
from server.engine.loading.residual_norms import NEUTRAL_TEXTS
from server.engine.request import GenerationRequest
from server.engine.sampling import SamplingParams
from server.engine.sync_engine import SyncEngine

_PROMPTS = {
    "repeat": f"Repeat this text exactly:\n{NEUTRAL_TEXTS[0]}",
    "free": "Tell me about the history of bread.",
}


def main() -> None:
    """Measure every length of draft in every round."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", required=True, help="folder of a chat model")
    options.add_argument("--drafts", type=int, nargs="+", default=[0, 4, 8, 12])
    options.add_argument("--new-tokens", type=int, default=64)
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    engines = {}
    for length in arguments.drafts:
        config = EngineConfig(
            arguments.model,
            device="cpu",
            num_threads=1,
            kv_cache_bytes=1 << 27,
            max_model_len=1024,
            enable_prefix_cache=False,
            prompt_lookup_tokens=length,
        )
        loaded = load(config)
        engines[length] = SyncEngine(loaded)
    prompts = {
        name: loaded.tokenizer.render_chat([{"role": "user", "content": text}]).token_ids
        for name, text in _PROMPTS.items()
    }
    sampling = SamplingParams(max_tokens=arguments.new_tokens, temperature=0.0, ignore_eos=True)
    ids = itertools.count()
    answers: dict[str, list[int]] = {}
    for round_number, name, length in itertools.product(
        range(arguments.rounds), prompts, arguments.drafts
    ):
        request = GenerationRequest(f"r{next(ids)}", tuple(prompts[name]), sampling)
        begun = time.process_time()
        outputs = engines[length].generate([request])[0]
        seconds = time.process_time() - begun
        answer = [token for output in outputs for token in output.token_ids]
        if answers.setdefault(name, answer) != answer:
            raise SystemExit(f"another answer to {name} with drafts of {length}")
        rate = len(answer) / seconds
        print(f"round {round_number}  {name}  drafts {length}: {rate:.1f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
