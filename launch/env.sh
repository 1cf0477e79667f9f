# shellcheck shell=bash
# Environment of a run on one platform: `. launch/env.sh cpu|gpu|tpu`. The only place of XLA flags. XLA ends a process
# that is given a flag that it does not know, so there are few, and a test starts JAX with all of them.
# JXSTILTS_SIMULATED=N: so many simulated devices on a CPU.

jxstilts_flags=""
case "${1:?platform: cpu, gpu or tpu}" in
  cpu)
    export JAX_PLATFORMS=cpu
    if [ -n "${JXSTILTS_SIMULATED:-}" ]; then
      jxstilts_flags="--xla_force_host_platform_device_count=$JXSTILTS_SIMULATED"
    fi
    ;;
  gpu)
    # Collectives overlap with computation (docs.jax.dev: GPU performance tips).
    jxstilts_flags="--xla_gpu_enable_latency_hiding_scheduler=true"
    ;;
  tpu) ;; # libtpu's own defaults
  *)
    echo "launch/env.sh: unknown platform '$1'; cpu, gpu or tpu" >&2
    exit 2
    ;;
esac
export XLA_FLAGS="$jxstilts_flags${XLA_FLAGS:+ $XLA_FLAGS}"  # what the user sets comes last, and wins
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
