"""The process that `benchmarks.startup` times: `jxstilts run` up to the end of its first training step, then it leaves.

    python -m benchmarks.first_step RECORD BEGAN run --config=... --workdir=W

RECORD: JSON file to write; BEGAN: `time.time()` when the process was started. The command runs as it always does; only
a few functions of it note when they begin and end.
"""

import json
import os
import sys
import time

from jxstilts import pages

START = time.time()  # the interpreter is up
EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile or load",
}


class Watch:
    """Times by name, in the order in which they were first noted, and JAX's own durations in two stretches."""

    def __init__(self, record: str, began: float):
        self.record, self.began = record, began
        self.ends: list[tuple[str, float]] = [("interpreter", START - began)]
        self.jax: dict[str, dict[str, float]] = {}
        self.stretch = "before"

    def mark(self, name: str) -> None:
        """Ends the part `name`: all since the mark before."""
        self.ends.append((name, time.time() - self.began))

    def event(self, name: str, seconds: float, **_) -> None:
        own = self.jax.setdefault(self.stretch, {"programs": 0})
        if name in EVENTS:
            own[EVENTS[name]] = own.get(EVENTS[name], 0.0) + seconds
            own["programs"] += EVENTS[name] == "compile or load"

    def around(self, module, name: str, before: str, after: str):
        """Marks where a function of a module begins and ends."""
        function = getattr(module, name)

        def watched(*args, **kwargs):
            self.mark(before)
            found = function(*args, **kwargs)
            self.mark(after)
            return found

        setattr(module, name, watched)

    def leave(self) -> None:
        parts, last = {}, 0.0
        for name, end in self.ends:
            parts[name] = parts.get(name, 0.0) + end - last
            last = end
        with open(self.record, "w") as file:
            json.dump({"seconds": last, "parts": parts, "jax": self.jax}, file)
        os._exit(0)  # what comes after the first step is not of interest


def main(record: str, began: str, *argv: str) -> int:
    pages.large()  # as the command itself does
    watch = Watch(record, float(began))
    from jxstilts import cli

    run = cli._run

    def watched_run(options):  # imported as late as the command itself does
        import jax

        from jxstilts import study
        from jxstilts.train import phase

        watch.mark("imports")
        jax.monitoring.register_event_duration_secs_listener(watch.event)
        watch.around(study, "run", "config", "end")
        watch.around(phase.handover, "take_over", "tokenizer, folder, devices", "weights")
        watch.around(phase.inputs, "make", "weights", "data")
        watch.around(phase.optimizers, "schedule", "optimizer state", "optimizer state")
        make = phase.step.make_train_step

        def watched_step(*args, **kwargs):
            train_step = make(*args, **kwargs)

            def first(state, batch):
                watch.mark("checkpoints, log, first batch")
                watch.stretch = "step"
                found = train_step(state, batch)
                watch.mark("the step: trace, lower, compile or load")
                jax.block_until_ready(found)
                watch.mark("the step: run")
                return watch.leave()

            return first

        phase.step.make_train_step = watched_step
        return run(options)

    cli._run = watched_run
    return cli.main(list(argv))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
