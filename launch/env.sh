# shellcheck shell=bash
# Environment of a run on one platform: `. launch/env.sh cpu|gpu|tpu`. The only place of XLA flags. XLA ends a process
# that is given a flag that it does not know, so there are few, and a test starts JAX with all of them.
# JXSTILTS_SIMULATED=N: so many simulated devices on a CPU.

jxstilts_flags=""
case "${1:?platform: cpu, gpu or tpu}" in
  cpu)
    export JAX_PLATFORMS=cpu
    # XLA allocates its temporaries anew at every step. With large pages, and memory kept instead of handed back to the
    # system, training steps are faster (benchmarks/RESULTS.md). Read at a process's start.
    jxstilts_malloc=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000
    export GLIBC_TUNABLES="${GLIBC_TUNABLES:-$jxstilts_malloc}"
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
