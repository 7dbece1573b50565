"""One timed run of transformers' own continuous batching (`generate_batch`), greedy.

Left to itself it takes nine tenths of the memory and puts whole prompts of all requests in one
batch; page size, batch and cache are set to what is fastest here.
"""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from .workload import Workload, measure, parser, workload

_NO_TOKEN = -1


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--page-size", type=int, default=32)
    options.add_argument("--max-batch-tokens", type=int, default=512)
    arguments = options.parse_args()
    load = workload(arguments)
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=torch.bfloat16, attn_implementation="sdpa"
    ).eval()
    pages = -(-(load.prompt_tokens + load.new_tokens) // arguments.page_size)
    chosen = {
        "page_size": arguments.page_size,
        "max_batch_tokens": arguments.max_batch_tokens,
        "num_blocks": load.num_requests * (pages + 1),
    }

    def generate(prompts: list[list[int]], new_tokens: int) -> int:
        config = GenerationConfig(
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=_NO_TOKEN,
            pad_token_id=0,
            use_cache=True,
        )
        outputs = model.generate_batch(
            inputs=prompts,
            generation_config=config,
            continuous_batching_config=ContinuousBatchingConfig(**chosen),
        )
        return sum(len(output.generated_tokens) for output in outputs.values())

    generate(Workload(2, 16, 4, load.seed).prompts(salt=1), 4)
    prompts = load.prompts()
    measure("transformers", load, lambda: generate(prompts, load.new_tokens), **chosen).report()


if __name__ == "__main__":
    main()
