"""Timed runs of our engine, greedy, each request under one of K distinct profiles.

    python -m lab.bench.throughput --model DIR [--profiles 0 32] [--rounds 5] [--operation ablate]

One engine serves every setting in turn, round by round, so that drift of the machine meets all of
them alike. K = 0 is unsteered; otherwise request i has profile i mod K, which acts at every layer.
"""

from __future__ import annotations

import asyncio
from functools import cache

import torch

from server.engine.async_engine import AsyncEngine
from server.engine.engine import EngineConfig
from server.engine.request import GenerationRequest
from server.engine.sampling import SamplingParams
from steering.directions import Direction, DirectionKind
from steering.documents import Intervention
from steering.model_spec import ModelSpec
from steering.plan import Steer, SteeringPlan, compile_plan
from steering.sites import Site

from .workload import Workload, measure, parser, workload


def profile(index: int, operation: str, spec: ModelSpec) -> SteeringPlan:
    """Profile `index`: one operation with a random direction of its own at every layer."""
    generator = torch.Generator().manual_seed(index)
    vector = torch.randn(spec.hidden_size, generator=generator)
    direction = Direction(
        f"random-{index}",
        DirectionKind.VECTOR,
        Site.RESID_POST,
        (0,),
        {"vector": vector / vector.norm()},
    )
    layers = tuple(range(spec.num_layers))
    intervention = Intervention.from_dict(
        {"operation": operation, "direction": direction.name, "layers": layers}
    )
    return compile_plan([Steer(intervention, direction)], [], spec)


async def generate(
    engine: AsyncEngine,
    name: str,
    prompts: list[list[int]],
    new_tokens: int,
    plans: list[SteeringPlan | None],
) -> int:
    """Send all prompts at once; returns the number of tokens generated."""
    sampling = SamplingParams(max_tokens=new_tokens, temperature=0.0, ignore_eos=True)

    async def one(index: int, prompt: list[int]) -> int:
        request = GenerationRequest(
            f"{name}-{index}", tuple(prompt), sampling, plan=plans[index % len(plans)]
        )
        count = 0
        async for output in engine.generate(request):
            count += len(output.token_ids)
        return count

    counts = await asyncio.gather(*(one(i, prompt) for i, prompt in enumerate(prompts)))
    return sum(counts)


def main() -> None:
    """Measure every number of profiles in every round."""
    options = parser(__doc__)
    options.add_argument("--profiles", type=int, nargs="+", default=[0])
    options.add_argument("--operation", default="ablate", choices=["ablate", "add"])
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--dtype", default="bfloat16")
    arguments = options.parse_args()
    load = workload(arguments)
    config = EngineConfig(
        arguments.model,
        device="cpu",
        dtype=arguments.dtype,
        num_threads=1,
        max_num_seqs=256,
        max_model_len=2048,
        kv_cache_bytes=1 << 30,
        enable_prefix_cache=False,
    )
    engine = AsyncEngine.start(config)

    @cache
    def plans(count: int) -> list[SteeringPlan | None]:
        spec = engine.info().spec
        return [profile(i, arguments.operation, spec) for i in range(count)] or [None]

    warm = Workload(4, 16, 4, load.seed)
    for count in arguments.profiles:
        asyncio.run(generate(engine, "warm", warm.prompts(salt=1), 4, plans(count)))
    for round_number in range(arguments.rounds):
        for count in arguments.profiles:
            prompts, name = load.prompts(), f"{round_number}-{count}"

            def run(
                count: int = count, prompts: list[list[int]] = prompts, name: str = name
            ) -> int:
                return asyncio.run(generate(engine, name, prompts, load.new_tokens, plans(count)))

            setting = {"profiles": count, "operation": arguments.operation if count else None}
            measure("coxswain", load, run, **setting).report()
    engine.close()


if __name__ == "__main__":
    main()
