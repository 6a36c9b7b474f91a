"""The measured half of `nox -s cost-profile`: every arm's training steps, each round beside its host's and MoCo's.

An arm's own test times blocks of its steps by pytest-benchmark; before each of them a block of its host and one of
MoCo run, so that whatever else the machine does meets all of them alike. Ratios are taken round by round. The page is
made of the JSON that pytest-benchmark writes (`--benchmark-json`); `studies/cost_profile` calls this file.
"""

from statistics import median

import pytest
import torch

from scd.profiling.energy import energy
from scd.profiling.steptime import PHASES, PhaseTimes
from studies.cost_profile.arms import arms, settings_of
from studies.cost_profile.measured import (
    MEMORY_WHAT,
    STEPS,
    compiled,
    device_of,
    loops,
    machine,
    memory_of,
    rate_in_fresh_process,
    stepper,
)

pytestmark = pytest.mark.usefixtures("one_thread")  # as a study runs here: one thread a run, as many runs as cores
ARMS = {arm.name: arm for arm in arms()}
ROUNDS, PHASE_ROUNDS, PROCESS_ROUNDS, CURVE_ROUNDS = 6, 3, 4, 5
MANY_ROUNDS = {"scd_moco": 100, "moco": 20}  # the page's first sentence: a small ratio on a machine that is not quiet
CURVES = {
    "image side (px)": [(side, (f"sizes.crop={side}", f"sizes.canvas={2 * side}")) for side in (16, 24, 32, 48)],
    "images per step": [(batch, (f"training.batch_size={batch}",)) for batch in (16, 32, 64, 128)],
    "width of the last stage": [
        (4 * w, (f"backbone.widths=[{w},{2 * w},{4 * w}]",)) for w in (8, 16, 32)
    ],
    "layers in the backbone": [
        (1 + 2 * n, (f"backbone.widths={[16] + [32] + [64] * (n - 2)}", f"backbone.strides={[1, 2] + [1] * (n - 2)}"))
        for n in (3, 5, 8)
    ],
}  # fmt: skip


@pytest.fixture(scope="session")
def words(request) -> tuple[str, ...]:
    return tuple(request.config.getoption("--words").split())


def config_of(name: str, words: tuple[str, ...]) -> dict:
    config = ARMS[name].config(settings_of(ARMS[name], words))
    if device_of(config).type == "cuda" and not torch.cuda.is_available():
        pytest.skip("this tier trains on a GPU, and torch sees none")
    return config


def beside(benchmark, target, references: dict, rounds: int = ROUNDS) -> tuple[list[float], dict[str, list[float]]]:
    """Seconds of the target's blocks and, of every round, the references' blocks just before."""
    own, others = [], {name: [] for name in references}

    def before():
        for name, reference in references.items():
            others[name].append(reference.block())

    before()
    target.block()  # warm-up
    for times in others.values():
        times.clear()
    benchmark.pedantic(lambda: own.append(target.block()), setup=before, rounds=rounds)
    return own, others


@pytest.mark.parametrize("name", ARMS)
def test_arm(benchmark, name, words):
    arm, config = ARMS[name], config_of(name, words)
    benchmark.extra_info.update(kind="arm", arm=name, label=arm.label, host=arm.host, machine=machine())
    trained = stepper(config)
    references = {other: stepper(config_of(other, words)) for other in dict.fromkeys(("moco", arm.host))}
    own, others = beside(benchmark, trained, references, MANY_ROUNDS.get(name, ROUNDS))

    device = device_of(config)
    phases, watched, alone = PhaseTimes(device), [], []
    for _ in range(PHASE_ROUNDS):
        watched.append(trained.block(phases))
        alone.append(trained.block())
    joules, why = energy(lambda: trained.block(), device)
    benchmark.extra_info.update(
        seconds=[seconds / STEPS for seconds in own],
        to_moco=[mine / other for mine, other in zip(own, others["moco"], strict=True)],
        to_host=[mine / other for mine, other in zip(own, others[arm.host], strict=True)],
        images_per_second=trained.images_per_block / median(own),
        phases={phase: phases.seconds[phase] / (PHASE_ROUNDS * STEPS) for phase in PHASES},
        overhead=median(watched) / median(alone) - 1,
        memory=memory_of(config),
        memory_what=MEMORY_WHAT[device.type],
        joules=None if joules is None else joules / STEPS,
        joules_why=why,
        batch_size=config["training"]["batch_size"],
        side=config["views"]["size"],
        backbone=config["backbone"],
    )
    assert sum(phases.seconds.values()) <= sum(watched)


@pytest.mark.parametrize("number", range(5))
def test_what_makes_it_fast(benchmark, number, words):
    """One thing undone at a time, beside the suite as it is."""
    config = config_of("moco", words)
    name, make = list(loops(config).items())[number]
    own, others = beside(benchmark, make(), {"suite": stepper(config)})
    ratios = [mine / other for mine, other in zip(own, others["suite"], strict=True)]
    benchmark.extra_info.update(kind="variant", variant=name, ratios=ratios)


def test_allocator(benchmark, words):
    config = config_of("moco", words)
    kept, default = [], []
    benchmark.pedantic(
        lambda: kept.append(rate_in_fresh_process(config, True)),
        setup=lambda: default.append(rate_in_fresh_process(config, False)),
        rounds=PROCESS_ROUNDS,
    )
    ratios = [with_ / without for with_, without in zip(kept, default, strict=True)]
    benchmark.extra_info.update(kind="variant", variant="memory allocator: the system's defaults", ratios=ratios)


def test_compile(benchmark, words):
    config = config_of("moco", words)
    name = "backbones through torch.compile"
    try:
        trained, seconds = compiled(config)
    except RuntimeError as error:
        benchmark.extra_info.update(kind="variant", variant=name, error=str(error))
        benchmark.pedantic(stepper(config).block, rounds=1)  # without it: there is nothing else to time
        return
    own, others = beside(benchmark, trained, {"suite": stepper(config)})
    ratios = [mine / other for mine, other in zip(own, others["suite"], strict=True)]
    saved = (median(others["suite"]) - median(own)) / STEPS
    pays = seconds / saved if saved > 0 else None
    benchmark.extra_info.update(kind="variant", variant=name, ratios=ratios, compile_seconds=seconds, pays_after=pays)


@pytest.mark.parametrize("curve", CURVES)
def test_scaling(benchmark, curve, words):
    """SCD on MoCo beside MoCo at every point; the benchmark's own time is that of the first point."""
    points = []
    for position, (x, changes) in enumerate(CURVES[curve]):
        pair = {name: stepper(config_of(name, (*words, *changes))) for name in ("scd_moco", "moco")}
        if position == 0:
            own, others = beside(benchmark, pair["scd_moco"], {"moco": pair["moco"]}, CURVE_ROUNDS)
        else:
            for each in pair.values():
                each.block()
            own, others = [], {"moco": []}
            for _ in range(CURVE_ROUNDS):
                others["moco"].append(pair["moco"].block())
                own.append(pair["scd_moco"].block())
        points.append({"x": x, "ratios": [mine / host for mine, host in zip(own, others["moco"], strict=True)]})
    benchmark.extra_info.update(kind="curve", curve=curve, points=points)
