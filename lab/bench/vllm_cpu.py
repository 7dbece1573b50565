"""One timed run of vLLM's CPU build in eager mode, greedy; runs in an environment of its own."""

from __future__ import annotations

import os

from .workload import Workload, measure, parser, workload

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--core", default="1", help="core its threads are bound to")
    arguments = options.parse_args()
    load = workload(arguments)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = arguments.core
    from vllm import LLM, SamplingParams

    model = LLM(
        model=arguments.model,
        dtype="bfloat16",
        enforce_eager=True,
        block_size=32,
        max_model_len=2048,
        max_num_seqs=256,
        max_num_batched_tokens=2048,
        enable_prefix_caching=False,
        disable_log_stats=True,
        seed=load.seed,
    )

    def generate(prompts: list[list[int]], new_tokens: int) -> int:
        sampling = SamplingParams(temperature=0.0, max_tokens=new_tokens, ignore_eos=True)
        outputs = model.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            sampling,
            use_tqdm=False,
        )
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    generate(Workload(4, 16, 4, load.seed).prompts(salt=1), 4)
    prompts = load.prompts()
    measure("vllm", load, lambda: generate(prompts, load.new_tokens)).report()


if __name__ == "__main__":
    main()
