// Threads of the OpenMP runtime that torch has loaded. Threads of another runtime would compete for
// the processors with torch's threads, which spin for a while after each operator.
//
// The runtime is passed as function addresses (library/openmp.py) and not linked: torch bundles one
// under its own name, but OpenMP pragmas would link the one of the compiler that built the kernels.

#pragma once

namespace threads {

// Addresses of GOMP_parallel and GOMP_barrier.
struct Runtime {
  void (*parallel)(void (*run)(void *), void *data, unsigned num_threads, unsigned flags);
  void (*barrier)();
};
__attribute__((visibility("hidden"))) extern Runtime runtime;

// Calls run() in each thread of a team; run must be thread-safe.
template <class Run> void in_team(int num_threads, Run &run) {
  runtime.parallel([](void *data) { (*static_cast<Run *>(data))(); }, &run, unsigned(num_threads),
                   0);
}

// Waits for the other threads of the team.
inline void meet() { runtime.barrier(); }

} // namespace threads
